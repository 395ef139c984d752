//! `networking.istio.io/VirtualService`, with the checks of Istio's validation.

mod http;
mod matches;
pub(super) mod policies;
pub(super) mod values;

use super::Custom;
use super::endpoint::host;
use super::fields::{Fields, Notes, wrong};
use super::visibility::exported_to;
use crate::objects::{self, L4Route, MESH, Object, Weighted};
use crate::source::ConvertError;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest list of rules, and of hosts.
const MAX_RULES: usize = 4096;

/// As the API server hands it out.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(in crate::source) struct VirtualService(Custom<Value>);

impl TryFrom<VirtualService> for Object {
    type Error = ConvertError;

    fn try_from(VirtualService(object): VirtualService) -> Result<Self, ConvertError> {
        let (name, created) = (object.metadata.name()?, object.metadata.created()?);
        let notes = Notes::default();
        let mut service = {
            let mut spec = Fields::of(object.spec.ok_or(ConvertError::Missing("spec"))?, "spec", &notes)?;
            let own = &name.namespace;
            let mut hosts = Vec::new();
            for text in spec.texts("hosts", MAX_RULES, super::MAX_TEXT)? {
                let host = address(&text).map_err(|reason| spec.wrong("hosts", reason))?;
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
            }
            let gateways = gateways(&mut spec, own)?;
            let http = spec.list("http", MAX_RULES, |rule| http::route(rule, own))?;
            let tls = spec.list("tls", MAX_RULES, |rule| l4(rule, own, true))?;
            let tcp = spec.list("tcp", MAX_RULES, |rule| l4(rule, own, false))?;
            objects::VirtualService {
                name: name.clone(),
                created,
                hosts,
                gateways: if gateways.is_empty() { vec![MESH.into()] } else { gateways },
                exported_to: exported_to(&mut spec, own, false)?,
                http,
                tls,
                tcp,
                notes: Vec::new(),
            }
        };
        check(&service)?;
        service.notes = notes.into_inner();
        Ok(Self::VirtualService(Box::new(service)))
    }
}

fn check(service: &objects::VirtualService) -> Result<(), ConvertError> {
    let own = &service.name.namespace;
    if service.http.is_empty() && service.tls.is_empty() && service.tcp.is_empty() {
        return Err(wrong("spec", "it has no rule: http, tls and tcp are all empty"));
    }
    if service.hosts.is_empty() {
        if !service.tls.is_empty() || !service.tcp.is_empty() {
            return Err(wrong("spec.hosts", "it is missing (only http rules can be delegated to)"));
        }
        if service.delegates().next().is_some() {
            return Err(wrong("spec.http", "what is delegated to (it has no hosts) cannot delegate further"));
        }
    }
    for (rule, route) in service.tls.iter().enumerate() {
        for (place, one) in route.matches.iter().enumerate() {
            let names = &mut one.when.server_names.iter();
            if let Some(name) =
                names.find(|name| !service.hosts.iter().any(|host| is_within(name, host, own)))
            {
                let path = format!("spec.tls[{rule}].match[{place}].sniHosts");
                let hosts = service.hosts.join(", ");
                return Err(wrong(path, format_args!("{name} is none of spec.hosts ({hosts})")));
            }
        }
    }
    Ok(())
}

/// Whether a server's name is one of those that a host stands for. A short host is a service of the namespace `own`.
fn is_within(name: &str, host: &str, own: &str) -> bool {
    let rest = |text: &str| name.strip_prefix(text).map(str::to_owned);
    match host.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None if name == host => true,
        None if host.contains('.') => false,
        None => rest(&format!("{host}.{own}")).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

/// A host as clients address it: a name, `*` and a suffix, or an address.
fn address(text: &str) -> Result<Arc<str>, String> {
    if text == "*" || text.parse::<IpAddr>().is_ok() {
        return Ok(text.into());
    }
    let (star, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    let name =
        host(name, "host").map_err(|_| format!("{text:?} is not a DNS name, `*` or `*.` and a name"))?;
    Ok(format!("{star}{name}").into())
}

/// Gateways with their namespaces, and `mesh`.
fn gateways(fields: &mut Fields<'_>, own: &Arc<str>) -> Result<Vec<Arc<str>>, ConvertError> {
    let mut gateways = Vec::new();
    for text in fields.texts("gateways", MAX_RULES, 2 * super::MAX_TEXT)? {
        gateways.push(match text.split_once('/') {
            _ if *text == *MESH => text,
            Some((".", name)) => format!("{own}/{name}").into(),
            Some(_) => text,
            // The form of old: gateway.namespace.svc.cluster.local.
            None if text.contains(".svc.") => {
                let mut parts = text.splitn(3, '.');
                let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                fields.deprecated("gateways", "namespace/name");
                format!("{namespace}/{name}").into()
            }
            None => format!("{own}/{text}").into(),
        });
    }
    Ok(gateways)
}

fn l4(mut rule: Fields<'_>, own: &Arc<str>, tls: bool) -> Result<L4Route, ConvertError> {
    let matches = rule.list("match", MAX_RULES, |entry| matches::connection(entry, own, tls))?;
    if tls && matches.is_empty() {
        return Err(rule.wrong("match", "a rule for TLS needs one, with sniHosts"));
    }
    let backends = backends(&mut rule, false)?;
    if backends.is_empty() {
        return Err(rule.wrong("route", "it is missing"));
    }
    Ok(L4Route { matches, backends })
}

/// `route`: destinations and their weights. Of one alone the weight does not count.
fn backends(rule: &mut Fields<'_>, http: bool) -> Result<Vec<Weighted>, ConvertError> {
    let mut backends = rule.list("route", 1024, |mut entry| {
        let weight = entry.number32("weight", i32::MAX as u32)?.unwrap_or_default();
        let to = entry.fields("destination")?.ok_or_else(|| entry.wrong("destination", "it is missing"))?;
        let to = values::target(to)?;
        let (request_headers, response_headers) = match http {
            true => values::headers(&mut entry)?,
            false => Default::default(),
        };
        Ok(Weighted { to, weight, request_headers, response_headers })
    })?;
    match backends.as_mut_slice() {
        [only] => only.weight = 1,
        several if !several.is_empty() && several.iter().all(|backend| backend.weight == 0) => {
            return Err(rule.wrong("route", "the sum of the weights is 0: nothing could be sent anywhere"));
        }
        _ => {}
    }
    Ok(backends)
}

#[cfg(test)]
mod tests;
