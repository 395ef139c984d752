//! A rule for requests.

use super::super::MAX_TEXT;
use super::super::fields::{Fields, text, wrong};
use super::{backends, matches, policies, values};
use crate::objects::{Headers, HttpRoute, Name, NoteKind, RouteAction};
use crate::source::ConvertError;
use base64::Engine as _;
use std::sync::Arc;
use warren_common::model::traffic::values::{Extent, RuleError, check_authority, check_path};
use warren_common::model::traffic::{HeaderChanges, PathChange, Redirect, RedirectPort, Reply, Rewrite};

const MAX_BODY: usize = 1 << 20;
const MAX_PATH: usize = 4096;

pub(super) fn route(mut rule: Fields<'_>, own: &Arc<str>) -> Result<HttpRoute, ConvertError> {
    let name = rule.text("name", MAX_TEXT)?.unwrap_or_default();
    let matches = rule.list("match", 1024, |entry| matches::request(entry, own))?;
    let forward = backends(&mut rule, true)?;
    let redirect = rule.fields("redirect")?.map(redirect).transpose()?;
    let reply = rule.fields("directResponse")?.map(reply).transpose()?;
    let delegate = rule.fields("delegate")?.map(|fields| delegate(fields, own)).transpose()?;
    let rewrite = rule.fields("rewrite")?.map(rewrite).transpose()?;
    let says_headers = rule.has("headers");
    let (request, response) = values::headers(&mut rule)?;
    let mut actions = Vec::new();
    actions.extend((!forward.is_empty()).then_some(RouteAction::Forward(forward)));
    actions.extend(redirect.map(RouteAction::Redirect));
    actions.extend(reply.map(RouteAction::Reply));
    actions.extend(delegate.map(RouteAction::Delegate));
    let (Some(action), None) = (actions.pop(), actions.pop()) else {
        let reason = "it needs exactly one of route, redirect, directResponse and delegate";
        return Err(wrong(rule.path(), reason));
    };
    does_not_contradict(&rule, &action, rewrite.as_ref())?;
    let names_host = |changes: &HeaderChanges| {
        changes.set.iter().chain(&changes.add).any(|change| *change.name == *":authority")
    };
    if rewrite.as_ref().is_some_and(|rewrite| rewrite.authority.is_some()) && names_host(&request) {
        return Err(rule.wrong("rewrite", "the host is changed by rewrite.authority and by headers"));
    }
    Ok(HttpRoute {
        name,
        matches,
        action,
        rewrite,
        timeout_ms: rule.duration_ms("timeout", 1)?,
        retries: rule.fields("retries")?.map(policies::retries).transpose()?,
        fault: rule.fields("fault")?.map(policies::fault).transpose()?,
        mirrors: policies::mirrors(&mut rule)?,
        cors: rule.fields("corsPolicy")?.map(policies::cors).transpose()?,
        headers: says_headers.then_some(Headers { request, response }),
    })
}

/// What an answer of the rule's own excludes, as Istio's validation has it, and what has nothing to do beside it.
fn does_not_contradict(
    rule: &Fields<'_>,
    action: &RouteAction,
    rewrite: Option<&Rewrite>,
) -> Result<(), ConvertError> {
    const SENT: [&str; 6] = ["timeout", "retries", "mirror", "mirrors", "mirrorPercentage", "mirrorPercent"];
    let answer = match action {
        RouteAction::Redirect(_) => "redirect",
        RouteAction::Reply(_) => "directResponse",
        RouteAction::Forward(_) | RouteAction::Delegate(_) => return Ok(()),
    };
    if rewrite.is_some() {
        return Err(rule.wrong("rewrite", format_args!("it does not go with {answer}")));
    }
    if rule.has("fault") {
        return Err(rule.wrong("fault", format_args!("it does not go with {answer}")));
    }
    for field in SENT.into_iter().filter(|field| rule.has(field)) {
        rule.note(rule.at(field), NoteKind::Unsupported("the rule answers itself, and sends nothing on"));
    }
    Ok(())
}

fn delegate(mut fields: Fields<'_>, own: &Arc<str>) -> Result<Name, ConvertError> {
    let name = fields.required("name", MAX_TEXT)?;
    Ok(Name::new(fields.text("namespace", MAX_TEXT)?.unwrap_or_else(|| own.clone()), name))
}

/// A text of `fields` that passes a check.
fn checked(
    fields: &mut Fields<'_>,
    name: &str,
    longest: usize,
    check: impl Fn(&Arc<str>) -> Result<(), RuleError>,
) -> Result<Option<Arc<str>>, ConvertError> {
    let Some(text) = fields.text(name, longest)? else { return Ok(None) };
    check(&text).map_err(|reason| fields.wrong(name, reason))?;
    Ok(Some(text))
}

fn rewrite(mut fields: Fields<'_>) -> Result<Rewrite, ConvertError> {
    let uri = checked(&mut fields, "uri", MAX_PATH, check_path)?;
    let by_regex = match fields.fields("uriRegexRewrite")? {
        Some(mut regex) => {
            let pattern = regex.required("match", MAX_TEXT * 4)?;
            values::expression(&pattern, Extent::Part).map_err(|reason| regex.wrong("match", reason))?;
            let substitution = checked(&mut regex, "rewrite", MAX_TEXT * 4, check_path)?.unwrap_or_default();
            Some(PathChange::Regex { pattern, substitution })
        }
        None => None,
    };
    if uri.is_some() && by_regex.is_some() {
        return Err(wrong(fields.path(), "uri and uriRegexRewrite exclude each other"));
    }
    let authority = checked(&mut fields, "authority", MAX_TEXT, check_authority)?;
    let path = uri.map(PathChange::Prefix).or(by_regex);
    if authority.is_none() && path.is_none() {
        return Err(wrong(fields.path(), "it needs uri, uriRegexRewrite or authority"));
    }
    Ok(Rewrite { authority, path })
}

fn redirect(mut fields: Fields<'_>) -> Result<Redirect, ConvertError> {
    let status = fields.number("redirectCode", 301, 308)?.unwrap_or(301);
    if ![301, 302, 303, 307, 308].contains(&status) {
        return Err(fields.wrong("redirectCode", format_args!("{status} is none of 301, 302, 303, 307, 308")));
    }
    let uri = checked(&mut fields, "uri", MAX_PATH, check_path)?;
    let authority = checked(&mut fields, "authority", MAX_TEXT, check_authority)?;
    let scheme = fields.text("scheme", 16)?;
    if scheme.as_ref().is_some_and(|scheme| !["http", "https"].contains(&&**scheme)) {
        return Err(fields.wrong("scheme", "it is http or https"));
    }
    let port = fields.port("port")?;
    let derive = fields.choice(
        "derivePort",
        &[
            ("FROM_PROTOCOL_DEFAULT", RedirectPort::OfScheme),
            ("FROM_REQUEST_PORT", RedirectPort::OfConnection),
        ],
    )?;
    if port.is_some() && derive.is_some() {
        return Err(wrong(fields.path(), "port and derivePort exclude each other"));
    }
    if uri.is_none() && authority.is_none() && scheme.is_none() && port.is_none() && derive.is_none() {
        return Err(wrong(fields.path(), "it needs uri, authority, scheme or port"));
    }
    Ok(Redirect {
        status: status as u16,
        scheme,
        authority,
        port: port.map(RedirectPort::Number).or(derive).unwrap_or(RedirectPort::OfRequest),
        path: uri.map(PathChange::Full),
    })
}

fn reply(mut fields: Fields<'_>) -> Result<Reply, ConvertError> {
    let status = fields.number("status", 200, 599)?.ok_or_else(|| fields.wrong("status", "it is missing"))?;
    let body: Arc<[u8]> = match fields.fields("body")? {
        None => Arc::default(),
        Some(mut body) => match (body.take("string"), body.take("bytes")) {
            (Some(value), None) => {
                let text = text(value, MAX_BODY).map_err(|reason| body.wrong("string", reason))?;
                text.as_bytes().into()
            }
            (None, Some(value)) => {
                let text = text(value, MAX_BODY * 2).map_err(|reason| body.wrong("bytes", reason))?;
                let bytes = base64::engine::general_purpose::STANDARD.decode(&*text);
                let bytes =
                    bytes.map_err(|error| body.wrong("bytes", format_args!("not base64: {error}")))?;
                if bytes.len() > MAX_BODY {
                    return Err(body.wrong("bytes", "longer than 1 MiB"));
                }
                bytes.into()
            }
            _ => return Err(wrong(body.path(), "it needs exactly one of string and bytes")),
        },
    };
    Ok(Reply { status: status as u16, body })
}
