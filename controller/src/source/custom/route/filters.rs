//! Filters of a rule and of a backend.

use super::super::MAX_TEXT;
use super::super::endpoint::host;
use super::super::fields::{Fields, per_million, wrong};
use super::super::virtual_service::values::{MAX_VALUE, header_name};
use super::reference;
use crate::objects::{BackendRef, Filters, Kind};
use crate::source::ConvertError;
use std::sync::Arc;
use warren_common::model::traffic::values::check_path;
use warren_common::model::traffic::{
    Cors, HeaderChange, HeaderChanges, PathChange, Redirect, RedirectPort, Rewrite, RouteApi, TextMatch,
};

const KINDS: [(&str, &str); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("RequestMirror", "requestMirror"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
    ("ExtensionRef", "extensionRef"),
];

/// Those that requests of gRPC have no use for.
const OF_HTTP: [&str; 4] = ["RequestRedirect", "URLRewrite", "CORS", "ExternalAuth"];

pub(super) fn filters(fields: &mut Fields<'_>, kind: Kind, of_rule: bool) -> Result<Filters, ConvertError> {
    let kinds: Vec<_> =
        KINDS.into_iter().filter(|(name, _)| kind != Kind::GRPCRoute || !OF_HTTP.contains(name)).collect();
    let mut filters = Filters::default();
    let mut seen: Vec<&str> = Vec::new();
    fields.list("filters", 16, |mut filter| {
        let Some(name) = filter.lenient("type", &kinds)? else {
            breaks(&mut filters, format!("{} has no type that is known", filter.path()));
            filter.forget();
            return Ok(());
        };
        if seen.contains(&name) && !["requestMirror", "extensionRef"].contains(&name) {
            return Err(filter.wrong("type", "there is another filter of this type"));
        }
        seen.push(name);
        let value = filter.fields(name)?.ok_or_else(|| filter.wrong(name, "it is missing"))?;
        match name {
            "requestHeaderModifier" => filters.request_headers = header_changes(value)?,
            "responseHeaderModifier" => filters.response_headers = header_changes(value)?,
            "requestRedirect" => filters.redirect = Some(redirect(value)?),
            "urlRewrite" => filters.rewrite = Some(rewrite(value)?),
            "requestMirror" => filters.mirrors.extend(mirror(value)?),
            "cors" if of_rule => filters.cors = Some(cors(value)?),
            _ => {
                // Never skipped: what it was to do is not done, so what it was for fails.
                let path = filter.at(name);
                breaks(&mut filters, format!("{path}: this filter is not supported here"));
                value.forget();
            }
        }
        Ok(())
    })?;
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        return Err(fields.wrong("filters", "RequestRedirect and URLRewrite exclude each other"));
    }
    Ok(filters)
}

/// A prefix is replaced only where it is known which one: the API wants one match by prefix.
pub(super) fn replaces_prefix(filters: &Filters) -> bool {
    let of_rewrite = filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
    let of_redirect = filters.redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
    [of_rewrite, of_redirect].into_iter().flatten().any(|path| matches!(path, PathChange::Segments(_)))
}

/// Every filter that cannot be applied is named.
fn breaks(filters: &mut Filters, why: String) {
    filters.broken = Some(match filters.broken.take() {
        Some(earlier) => format!("{earlier}; {why}"),
        None => why,
    });
}

fn header_changes(mut fields: Fields<'_>) -> Result<HeaderChanges, ConvertError> {
    let mut list = |list: &str| -> Result<Vec<HeaderChange>, ConvertError> {
        let all = fields.list(list, 16, |mut entry| {
            let name = entry.required("name", MAX_TEXT)?;
            let name = header_name(&name, false).map_err(|reason| entry.wrong("name", reason))?;
            let value = entry.text("value", MAX_VALUE)?.unwrap_or_default();
            let change = HeaderChange { name, value };
            change.pieces(RouteApi::Gateway).map_err(|reason| entry.wrong("value", reason))?;
            Ok(change)
        })?;
        // Of several with one name the first counts.
        let mut first: Vec<HeaderChange> = Vec::with_capacity(all.len());
        for change in all {
            if !first.iter().any(|earlier| earlier.name == change.name) {
                first.push(change);
            }
        }
        Ok(first)
    };
    let (set, add) = (list("set")?, list("add")?);
    let mut remove = Vec::new();
    for name in fields.texts("remove", 16, MAX_TEXT)? {
        remove.push(header_name(&name, false).map_err(|reason| fields.wrong("remove", reason))?);
    }
    Ok(HeaderChanges { set, add, remove })
}

fn hostname(fields: &mut Fields<'_>) -> Result<Option<Arc<str>>, ConvertError> {
    let Some(text) = fields.text("hostname", MAX_TEXT)? else { return Ok(None) };
    let name = host(&text, "hostname");
    name.map(Some).map_err(|_| fields.wrong("hostname", format_args!("{text:?} is not a DNS name")))
}

fn path_change(fields: &mut Fields<'_>) -> Result<Option<PathChange>, ConvertError> {
    let Some(mut path) = fields.fields("path")? else { return Ok(None) };
    let kind = path.lenient("type", &[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)])?;
    let field = match kind {
        Some(true) => "replaceFullPath",
        Some(false) => "replacePrefixMatch",
        None => return Ok(None),
    };
    let text = path.text(field, 1024)?.unwrap_or_default();
    check_path(&text).map_err(|reason| path.wrong(field, reason))?;
    Ok(Some(if kind == Some(true) { PathChange::Full(text) } else { PathChange::Segments(text) }))
}

fn rewrite(mut fields: Fields<'_>) -> Result<Rewrite, ConvertError> {
    Ok(Rewrite { authority: hostname(&mut fields)?, path: path_change(&mut fields)? })
}

/// In the mesh the listener's port is the one that the client connected to.
fn redirect(mut fields: Fields<'_>) -> Result<Redirect, ConvertError> {
    let scheme = fields.lenient("scheme", &[("http", "http"), ("https", "https")])?;
    let port = fields.port("port")?;
    let status = fields.number("statusCode", 100, 599)?.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        fields.not_known("statusCode", &status.to_string());
    }
    let port = match (port, scheme) {
        (Some(number), _) => RedirectPort::Number(number),
        (None, Some(_)) => RedirectPort::OfScheme,
        (None, None) => RedirectPort::OfConnection,
    };
    Ok(Redirect {
        status: u16::try_from(status).unwrap_or(302),
        scheme: scheme.map(Arc::from),
        authority: hostname(&mut fields)?,
        port,
        path: path_change(&mut fields)?,
    })
}

fn mirror(mut fields: Fields<'_>) -> Result<Option<(BackendRef, u32)>, ConvertError> {
    let to = fields.fields("backendRef")?.ok_or_else(|| fields.wrong("backendRef", "it is missing"))?;
    let percent = fields.number("percent", 0, 100)?;
    let fraction = match fields.fields("fraction")? {
        None => None,
        Some(mut fraction) => {
            let numerator = fraction.number("numerator", 0, i32::MAX as u64)?;
            let numerator = numerator.ok_or_else(|| fraction.wrong("numerator", "it is missing"))?;
            let denominator = fraction.number("denominator", 1, i32::MAX as u64)?.unwrap_or(100);
            if numerator > denominator {
                return Err(wrong(fraction.path(), "it is more than all"));
            }
            Some((numerator * 1_000_000 / denominator) as u32)
        }
    };
    if percent.is_some() && fraction.is_some() {
        return Err(wrong(fields.path(), "percent and fraction exclude each other"));
    }
    let share = fraction.or(percent.map(|percent| per_million(percent as f64))).unwrap_or(1_000_000);
    let to = reference(to)?;
    Ok((share > 0).then_some((to, share)))
}

fn cors(mut fields: Fields<'_>) -> Result<Cors, ConvertError> {
    let mut origins = Vec::new();
    for text in fields.texts("allowOrigins", 64, MAX_TEXT)? {
        origins.push(match text.contains('*') {
            _ if *text == *"*" => TextMatch::Present,
            false => TextMatch::Exact(text),
            // `*` stands for anything, as far to the left as it goes.
            true => TextMatch::Regex(regex::escape(&text).replace("\\*", ".*").into()),
        });
    }
    let mut names = |name: &str| fields.texts(name, 64, MAX_TEXT);
    let (methods, headers, expose) =
        (names("allowMethods")?, names("allowHeaders")?, names("exposeHeaders")?);
    for (field, list) in [("allowMethods", &methods), ("allowHeaders", &headers), ("exposeHeaders", &expose)]
    {
        if let Some(bad) = list.iter().find(|text| header_name(text, true).is_err()) {
            return Err(fields.wrong(field, format_args!("{bad:?} is not a name")));
        }
    }
    Ok(Cors {
        origins,
        methods,
        headers,
        expose,
        max_age_s: Some(fields.number("maxAge", 1, i32::MAX as u64)?.unwrap_or(5)),
        credentials: fields.flag("allowCredentials")?.unwrap_or_default(),
        forward_unmatched: false,
        gateway_api: true,
    })
}
