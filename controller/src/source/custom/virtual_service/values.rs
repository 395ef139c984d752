//! Values that rules, matches and destinations have in common.

use super::super::MAX_TEXT;
use super::super::endpoint::host;
use super::super::fields::{Fields, text, wrong};
use crate::objects::Target;
use crate::source::ConvertError;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::{HeaderChange, HeaderChanges, TextMatch};

/// Longest regular expression, as Istio bounds it.
const MAX_REGEX: usize = 1024;
/// Longest value of a match or a header.
pub(in crate::source::custom) const MAX_VALUE: usize = 4096;
/// A compiled expression may not be larger: each agent holds it.
const MAX_PROGRAM: usize = 1 << 20;

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
            header_value(&value).map_err(|reason| wrong(&path, reason))?;
            Ok(HeaderChange { name, value })
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
    match lower.as_str() {
        ":authority" | "host" if host => return Ok(":authority".into()),
        ":authority" | "host" => return Err(format!("{name:?} cannot be changed here")),
        _ => {}
    }
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if lower.is_empty() || lower.len() > MAX_TEXT || !lower.bytes().all(is_token) {
        return Err(format!("{name:?} is not the name of a header that can be changed"));
    }
    Ok(lower.into())
}

/// Nothing that would end the header.
pub(in crate::source::custom) fn header_value(value: &str) -> Result<(), String> {
    match value.bytes().all(|b| b == b'\t' || (b >= 0x20 && b != 0x7f)) {
        true => Ok(()),
        false => Err("the value of a header has no line breaks and no control characters".to_owned()),
    }
}

/// `{exact}`, `{prefix}` or `{regex}`; none of them, or the expression `*`, is presence.
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
        if name == "regex" && *value != *"*" {
            regex(&value).map_err(|reason| fields.wrong(name, reason))?;
        }
        found = Some(match (name, &*value) {
            ("regex", "*") => TextMatch::Present,
            _ => make(value),
        });
    }
    Ok(found.unwrap_or(TextMatch::Present))
}

/// Checks that an expression can be used.
pub(in crate::source::custom) fn regex(text: &str) -> Result<(), String> {
    if text.len() > MAX_REGEX {
        return Err(format!("a regular expression has at most {MAX_REGEX} bytes"));
    }
    let anchored = format!("^(?:{text})$");
    let built = regex::RegexBuilder::new(&anchored).size_limit(MAX_PROGRAM).build();
    built.map(drop).map_err(|error| {
        let reason = error.to_string();
        // The first lines draw the expression, which the path names already.
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{text:?} is not a regular expression (RE2): {last}")
    })
}
