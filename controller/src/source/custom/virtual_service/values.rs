//! Values that rules, matches and destinations have in common.

use super::super::MAX_TEXT;
use super::super::endpoint::host;
use super::super::fields::{Fields, text, wrong};
use crate::objects::Target;
use crate::source::ConvertError;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::values::{Expression, Extent, is_header_name, is_host};
use warren_common::model::traffic::{HeaderChange, HeaderChanges, RouteApi, TextMatch};

/// Longest regular expression, as Istio bounds it.
const MAX_REGEX: usize = 1024;
/// Longest value of a match or a header.
pub(in crate::source::custom) const MAX_VALUE: usize = 4096;

/// `{host, subset, port: {number}}`.
pub(super) fn target(mut fields: Fields<'_>) -> Result<Target, ConvertError> {
    let name = fields.required("host", MAX_TEXT)?;
    let host = match name.parse::<IpAddr>() {
        Ok(_) => name,
        Err(_) => host(&name, "host")
            .map_err(|_| fields.wrong("host", format_args!("{name:?} is not a DNS name")))?,
    };
    let subset = fields.text("subset", MAX_TEXT)?;
    let port = match fields.fields("port")? {
        Some(mut port) => Some(port.port("number")?.ok_or_else(|| port.wrong("number", "it is missing"))?),
        None => None,
    };
    Ok(Target { host, subset, port })
}

/// `headers: {request, response}`.
pub(super) fn headers(fields: &mut Fields<'_>) -> Result<(HeaderChanges, HeaderChanges), ConvertError> {
    let Some(mut headers) = fields.fields("headers")? else { return Ok(Default::default()) };
    let mut changes = |name: &str, request| match headers.fields(name)? {
        Some(fields) => header_changes(fields, request),
        None => Ok(HeaderChanges::default()),
    };
    Ok((changes("request", true)?, changes("response", false)?))
}

fn header_changes(mut fields: Fields<'_>, request: bool) -> Result<HeaderChanges, ConvertError> {
    let mut list = |name: &str| {
        fields.entries(name, 256, |path, key, value| {
            let name = header_name(key, request).map_err(|reason| wrong(&path, reason))?;
            let value = text(value, MAX_VALUE).map_err(|reason| wrong(&path, reason))?;
            let change = HeaderChange { name, value };
            change.pieces(RouteApi::Istio).map_err(|reason| wrong(&path, reason))?;
            Ok(change)
        })
    };
    let (set, add) = (list("set")?, list("add")?);
    let mut remove = Vec::new();
    for name in fields.texts("remove", 256, MAX_TEXT)? {
        let name = header_name(&name, false).map_err(|reason| fields.wrong("remove", reason))?;
        remove.push(name);
    }
    let hosts = set.iter().chain(&add).filter(|change| *change.name == *":authority");
    if hosts.count() > 1 {
        return Err(wrong(fields.path(), "the host is changed twice"));
    }
    Ok(HeaderChanges { set, add, remove })
}

/// In lower case; the host is `:authority`, which only requests have.
pub(in crate::source::custom) fn header_name(name: &str, host: bool) -> Result<Arc<str>, String> {
    let lower = name.to_ascii_lowercase();
    match (is_host(&lower), host) {
        (true, true) => return Ok(":authority".into()),
        (true, false) => return Err(format!("{name:?} cannot be changed here")),
        (false, _) => {}
    }
    if lower.len() > MAX_TEXT || !is_header_name(&lower) {
        return Err(format!("{name:?} is not the name of a header that can be changed"));
    }
    Ok(lower.into())
}

/// `{exact}`, `{prefix}` or `{regex}` of a header or a query parameter, whose presence is meant by `{}`.
pub(super) fn text_match_or_presence(fields: Fields<'_>) -> Result<TextMatch, ConvertError> {
    if fields.is_empty() { Ok(TextMatch::Present) } else { text_match(fields) }
}

/// `{exact}`, `{prefix}` or `{regex}`. None of them is an error: a slip of the pen must not hold everything. The expression
/// `*` does.
pub(super) fn text_match(mut fields: Fields<'_>) -> Result<TextMatch, ConvertError> {
    let mut found = None;
    for (name, make) in [
        ("exact", TextMatch::Exact as fn(Arc<str>) -> TextMatch),
        ("prefix", TextMatch::Prefix),
        ("regex", TextMatch::Regex),
    ] {
        let Some(value) = fields.take(name) else { continue };
        let value = text(value, MAX_VALUE).map_err(|reason| fields.wrong(name, reason))?;
        if found.is_some() {
            return Err(wrong(fields.path(), "exact, prefix and regex exclude each other"));
        }
        if name == "prefix" && value.is_empty() {
            return Err(fields.wrong(name, "an empty one holds everything; leave the condition out instead"));
        }
        if name == "regex" && *value != *"*" {
            regex(&value).map_err(|reason| fields.wrong(name, reason))?;
        }
        found = Some(match (name, &*value) {
            ("regex", "*") => TextMatch::Present,
            _ => make(value),
        });
    }
    found.ok_or_else(|| match fields.first() {
        None => wrong(fields.path(), "it needs exact, prefix or regex"),
        Some(other) => {
            wrong(fields.path(), format_args!("it needs exact, prefix or regex; {other} is not known"))
        }
    })
}

/// Checks that an expression of all of a text can be used.
pub(in crate::source::custom) fn regex(text: &str) -> Result<(), String> {
    expression(text, Extent::Whole)
}

/// Checks that an expression can be used.
pub(super) fn expression(text: &str, extent: Extent) -> Result<(), String> {
    if text.len() > MAX_REGEX {
        return Err(format!("a regular expression has at most {MAX_REGEX} bytes"));
    }
    Expression::new(text, extent).map(drop).map_err(|error| error.to_string())
}
