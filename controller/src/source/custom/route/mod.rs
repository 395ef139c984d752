//! `gateway.networking.k8s.io`: HTTPRoute, GRPCRoute, TLSRoute, TCPRoute and ReferenceGrant.
//!
//! A value that is not known is no error: the route is kept, and its status says that it is not accepted.

mod filters;
mod grant;
mod matches;
mod unread;

pub(in crate::source) use grant::ReferenceGrant;
pub(in crate::source) use unread::unread_route;

use super::endpoint::host;
use super::fields::{Fields, Notes, text};
use super::virtual_service::policies::default_retries;
use super::{Custom, MAX_TEXT};
use crate::objects::{self, BackendRef, Filters, Kind, Object, ParentRef, RouteRule};
use crate::source::ConvertError;
use serde_json::Value;
use std::sync::Arc;
use warren_common::model::traffic::{Retries, RetryOn};

/// Of all rules together.
const MAX_MATCHES: usize = 128;
const MAX_PARENTS: usize = 32;
const MAX_WEIGHT: u32 = 1_000_000;

/// Declares how a kind of route comes from the API server.
macro_rules! kinds {
    ($($name:ident)+) => {$(
        /// As the API server hands it out.
        #[derive(serde::Deserialize)]
        #[serde(transparent)]
        pub(in crate::source) struct $name(Custom<Value>);

        impl TryFrom<$name> for Object {
            type Error = ConvertError;

            fn try_from($name(object): $name) -> Result<Self, ConvertError> {
                route(Kind::$name, object)
            }
        }
    )+};
}

kinds! { HTTPRoute GRPCRoute TLSRoute TCPRoute }

fn route(kind: Kind, object: Custom<Value>) -> Result<Object, ConvertError> {
    let (name, created) = (object.metadata.name()?, object.metadata.created()?);
    let notes = Notes::default();
    let mut route = {
        let mut spec = Fields::of(object.spec.ok_or(ConvertError::Missing("spec"))?, "spec", &notes)?;
        spec.unsupported("useDefaultGateways", "there are no default gateways");
        let parents = spec.list("parentRefs", MAX_PARENTS, parent)?;
        let mut hostnames = Vec::new();
        if kind != Kind::TCPRoute {
            for text in spec.texts("hostnames", 1024, MAX_TEXT)? {
                let (star, name) = text.strip_prefix("*.").map_or(("", &*text), |name| ("*.", name));
                let name = host(name, "hostnames");
                let name =
                    name.map_err(|_| spec.wrong("hostnames", format_args!("{text:?} is not a DNS name")))?;
                hostnames.push(format!("{star}{name}").into());
            }
        }
        if kind == Kind::TLSRoute && hostnames.is_empty() {
            return Err(spec.wrong("hostnames", "it is missing"));
        }
        let most = if matches!(kind, Kind::TLSRoute | Kind::TCPRoute) { 1 } else { 16 };
        let mut rules = spec.list("rules", most, |fields| rule(fields, kind))?;
        let matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
        if matches > MAX_MATCHES {
            let reason = format!("{matches} matches in all; at most {MAX_MATCHES} are allowed");
            return Err(spec.wrong("rules", reason));
        }
        if rules.is_empty() {
            if most == 1 {
                return Err(spec.wrong("rules", "it is missing"));
            }
            // The API's default: one rule that matches everything, and has nowhere to send it.
            rules.push(RouteRule::default());
        }
        objects::Route {
            kind,
            name,
            created,
            generation: object.metadata.generation(),
            parents,
            hostnames,
            rules,
            unsupported: None,
            newer: None,
            notes: Vec::new(),
        }
    };
    route.unsupported = notes.unsupported();
    route.notes = notes.into_inner();
    Ok(Object::Route(Box::new(route)))
}

fn parent(mut fields: Fields<'_>) -> Result<ParentRef, ConvertError> {
    Ok(ParentRef {
        group: group(&mut fields, "gateway.networking.k8s.io")?,
        kind: fields.text("kind", MAX_TEXT)?.unwrap_or_else(|| "Gateway".into()),
        namespace: fields.text("namespace", MAX_TEXT)?,
        name: fields.required("name", MAX_TEXT)?,
        section: fields.text("sectionName", MAX_TEXT)?,
        port: fields.port("port")?,
    })
}

/// The group: present and empty is the core's, which differs from absent.
fn group(fields: &mut Fields<'_>, default: &str) -> Result<Arc<str>, ConvertError> {
    match fields.take("group") {
        None => Ok(default.into()),
        Some(value) => text(value, MAX_TEXT).map_err(|reason| fields.wrong("group", reason)),
    }
}

fn rule(mut fields: Fields<'_>, kind: Kind) -> Result<RouteRule, ConvertError> {
    let name = fields.text("name", MAX_TEXT)?.unwrap_or_default();
    let backends = fields.list("backendRefs", 16, |entry| backend(entry, kind))?;
    if matches!(kind, Kind::TLSRoute | Kind::TCPRoute) {
        if backends.is_empty() {
            return Err(fields.wrong("backendRefs", "it is missing"));
        }
        return Ok(RouteRule { name, backends, ..RouteRule::default() });
    }
    let matches = match kind {
        Kind::GRPCRoute => fields.list("matches", 64, matches::grpc)?,
        _ => fields.list("matches", 64, matches::http)?,
    };
    let filters = filters::filters(&mut fields, kind, true)?;
    let by_prefix = matches.len() <= 1 && matches.iter().all(matches::is_prefix);
    let replaces_prefix = |filters: &Filters| !by_prefix && filters::replaces_prefix(filters);
    if replaces_prefix(&filters) || backends.iter().any(|to| replaces_prefix(&to.filters)) {
        return Err(fields.wrong("filters", "ReplacePrefixMatch needs one match in its rule, by PathPrefix"));
    }
    if filters.redirect.is_some() && !backends.is_empty() {
        return Err(fields.wrong("backendRefs", "they do not go with the filter RequestRedirect"));
    }
    fields.unsupported("sessionPersistence", "use a DestinationRule with consistentHash");
    let mut rule = RouteRule { name, matches, filters, backends, ..RouteRule::default() };
    if kind == Kind::HTTPRoute {
        if let Some(mut timeouts) = fields.fields("timeouts")? {
            let (request, backend) =
                (duration(&mut timeouts, "request")?, duration(&mut timeouts, "backendRequest")?);
            if let (Some(request), Some(backend)) = (request, backend)
                && request != 0
                && backend > request
            {
                return Err(timeouts.wrong("backendRequest", "it is longer than request"));
            }
            rule.timeout_ms = request.filter(|ms| *ms > 0);
            rule.per_try_ms = backend.filter(|ms| *ms > 0);
        }
        rule.retries = fields.fields("retry")?.map(retry).transpose()?;
    }
    if rule.per_try_ms.is_some() {
        let retries = rule.retries.get_or_insert_with(default_retries);
        retries.per_try_timeout_ms = rule.per_try_ms;
    }
    Ok(rule)
}

fn duration(fields: &mut Fields<'_>, name: &str) -> Result<Option<u64>, ConvertError> {
    let Some(text) = fields.text(name, 64)? else { return Ok(None) };
    let ms = super::duration::gateway_ms(&text);
    ms.map(Some).ok_or_else(|| {
        fields.wrong(name, format_args!("{text:?} is not a duration such as 1m30s (GEP-2257)"))
    })
}

/// Beside the codes: whatever brought no response (GEP-1731: disconnect, reset, timeout, TCP failure).
fn retry(mut fields: Fields<'_>) -> Result<Retries, ConvertError> {
    let mut retries = default_retries();
    retries.on.push(RetryOn::Reset);
    for code in fields.numbers("codes", 64, 400, 599)? {
        if let Ok(status) = u16::try_from(code) {
            retries.on.push(RetryOn::Status(status));
        }
    }
    retries.attempts = fields.number32("attempts", 100)?.unwrap_or(retries.attempts);
    retries.backoff_ms = duration(&mut fields, "backoff")?.filter(|ms| *ms > 0).unwrap_or(retries.backoff_ms);
    Ok(retries)
}

fn backend(mut fields: Fields<'_>, kind: Kind) -> Result<BackendRef, ConvertError> {
    let weight = fields.number32("weight", MAX_WEIGHT)?.unwrap_or(1);
    let filters = match kind {
        Kind::TLSRoute | Kind::TCPRoute => Default::default(),
        _ => Box::new(filters::filters(&mut fields, kind, false)?),
    };
    Ok(BackendRef { weight, filters, ..reference(fields)? })
}

/// A reference to a backend, without weight and filters.
fn reference(mut fields: Fields<'_>) -> Result<BackendRef, ConvertError> {
    Ok(BackendRef {
        group: group(&mut fields, "")?,
        kind: fields.text("kind", MAX_TEXT)?.unwrap_or_else(|| "Service".into()),
        namespace: fields.text("namespace", MAX_TEXT)?,
        name: fields.required("name", MAX_TEXT)?,
        port: fields.port("port")?,
        weight: 1,
        filters: Default::default(),
    })
}

#[cfg(test)]
mod tests;
