//! Conditions of rules, and their rank: Gateway API, "Proxy or Load Balancer routing configuration ... MUST prioritize".

use super::super::MAX_TEXT;
use super::super::fields::{Fields, wrong};
use super::super::virtual_service::values::{MAX_VALUE, regex};
use crate::objects::RankedMatch;
use crate::source::ConvertError;
use std::sync::Arc;
use warren_common::model::traffic::values::{Expression, Extent};
use warren_common::model::traffic::{HeaderMatch, HttpMatch, PathMatch, QueryMatch, TextMatch};

const METHODS: [(&str, &str); 9] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

/// Of an HTTPRoute. Rank: kind of path, its length, method, headers, query parameters.
pub(super) fn http(mut fields: Fields<'_>) -> Result<RankedMatch, ConvertError> {
    let (path, kind, length) = match fields.fields("path")? {
        None => (None, 1, 1),
        Some(path) => self::path(path)?,
    };
    let method = fields.lenient("method", &METHODS)?;
    let headers = headers(&mut fields)?;
    let query: Vec<QueryMatch> = named(&mut fields, "queryParams", |name| name.to_owned())?
        .into_iter()
        .map(|(name, value)| QueryMatch { name, value })
        .collect();
    let rank = [kind, length, usize::from(method.is_some()), headers.len(), query.len()];
    let method = method.map(|method| TextMatch::Exact(method.into()));
    Ok(RankedMatch { when: HttpMatch { path, method, headers, query, ..HttpMatch::default() }, rank })
}

/// Whether it asks for a prefix of the path; `/` is one.
pub(super) fn is_prefix(of_http: &RankedMatch) -> bool {
    matches!(of_http.when.path, None | Some(PathMatch::Segments(_)))
}

/// Exact paths come first; then expressions, which the API leaves to us; then prefixes.
fn path(mut fields: Fields<'_>) -> Result<(Option<PathMatch>, usize, usize), ConvertError> {
    let kinds = [("PathPrefix", 'p'), ("Exact", 'e'), ("RegularExpression", 'r')];
    let Some(kind) = fields.lenient_or_first("type", &kinds)? else {
        // What it would be in a type that is not known, nobody knows.
        drop(fields.take("value"));
        return Ok((None, 1, 1));
    };
    let value = fields.text("value", MAX_TEXT * 4)?.unwrap_or_else(|| "/".into());
    let length = value.len();
    if kind == 'r' {
        regex(&value).map_err(|reason| fields.wrong("value", reason))?;
        return Ok((Some(PathMatch::Regex(value)), 2, length));
    }
    let lower = value.to_ascii_lowercase();
    let bad = ["//", "/./", "/../", "%2f", "#"].into_iter().find(|bad| lower.contains(bad));
    if !value.starts_with('/') || bad.is_some() || lower.ends_with("/..") || lower.ends_with("/.") {
        return Err(fields.wrong("value", format_args!("{value:?} is not a path that requests can have")));
    }
    if kind == 'e' {
        return Ok((Some(PathMatch::Exact(value)), 3, length));
    }
    match value.trim_end_matches('/') {
        "" => Ok((None, 1, 1)),
        path => Ok((Some(PathMatch::Segments(path.into())), 1, path.len())),
    }
}

fn headers(fields: &mut Fields<'_>) -> Result<Vec<HeaderMatch>, ConvertError> {
    let found = named(fields, "headers", str::to_ascii_lowercase)?;
    Ok(found.into_iter().map(|(name, value)| HeaderMatch { name, value, not: false }).collect())
}

/// `{type, name, value}`; of several with one name the first counts.
fn named(
    fields: &mut Fields<'_>,
    list: &str,
    spell: impl Fn(&str) -> String,
) -> Result<Vec<(Arc<str>, TextMatch)>, ConvertError> {
    let all = fields.list(list, 16, |mut entry| {
        let is_regex =
            entry.lenient("type", &[("Exact", false), ("RegularExpression", true)])?.unwrap_or(false);
        let name: Arc<str> = spell(&entry.required("name", MAX_TEXT)?).into();
        let value = entry.text("value", MAX_VALUE)?.unwrap_or_default();
        if is_regex {
            regex(&value).map_err(|reason| entry.wrong("value", reason))?;
            return Ok((name, TextMatch::Regex(value)));
        }
        Ok((name, TextMatch::Exact(value)))
    })?;
    let mut first: Vec<(Arc<str>, TextMatch)> = Vec::with_capacity(all.len());
    for (name, value) in all {
        if !first.iter().any(|(earlier, _)| *earlier == name) {
            first.push((name, value));
        }
    }
    Ok(first)
}

/// Of a GRPCRoute: `/service/method` is the path. Rank: length of the service, of the method, headers.
pub(super) fn grpc(mut fields: Fields<'_>) -> Result<RankedMatch, ConvertError> {
    let (path, service, method) = match fields.fields("method")? {
        None => (None, 0, 0),
        Some(mut called) => {
            let is_regex =
                called.lenient_or_first("type", &[("Exact", false), ("RegularExpression", true)])?;
            let (service, method) = (called.text("service", 1024)?, called.text("method", 1024)?);
            if service.is_none() && method.is_none() {
                return Err(fields.wrong("method", "it needs service, method or both"));
            }
            for (name, part) in [("service", &service), ("method", &method)] {
                let Some(part) = part else { continue };
                if is_regex == Some(true) {
                    regex(part).map_err(|reason| called.wrong(name, reason))?;
                } else if is_regex == Some(false) && part.contains('/') {
                    return Err(called.wrong(name, "it has no slash"));
                }
            }
            let length = |part: &Option<Arc<str>>| part.as_ref().map_or(0, |part| part.len());
            let path = called_path(is_regex == Some(true), service.as_deref(), method.as_deref());
            if let Some(PathMatch::Regex(text)) = &path {
                // Of two that can be used the whole may be too much.
                Expression::new(text, Extent::Whole).map_err(|reason| wrong(called.path(), reason))?;
            }
            (path, length(&service), length(&method))
        }
    };
    let headers = headers(&mut fields)?;
    let rank = [service, method, headers.len(), 0, 0];
    Ok(RankedMatch { when: HttpMatch { path, headers, ..HttpMatch::default() }, rank })
}

fn called_path(is_regex: bool, service: Option<&str>, method: Option<&str>) -> Option<PathMatch> {
    const ANY: &str = "[^/]+";
    let part = |text: Option<&str>| match text {
        None => ANY.to_owned(),
        Some(text) if is_regex => format!("(?:{text})"),
        Some(text) => regex::escape(text),
    };
    match (service, method) {
        (None, None) => None,
        (Some(service), Some(method)) if !is_regex => {
            Some(PathMatch::Exact(format!("/{service}/{method}").into()))
        }
        (Some(service), None) if !is_regex => Some(PathMatch::Segments(format!("/{service}").into())),
        _ => Some(PathMatch::Regex(format!("/{}/{}", part(service), part(method)).into())),
    }
}
