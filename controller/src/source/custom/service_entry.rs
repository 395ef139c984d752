//! `networking.istio.io/ServiceEntry`, with the checks of Istio's validation.

use super::endpoint::{endpoint, host};
use super::fields::{Fields, Notes, wrong};
use super::visibility::exported_to;
use super::{Custom, MAX_TEXT};
use crate::objects::{
    self, EntryAddress, EntryEndpoint, EntryEndpoints, EntryPort, NoteKind, Object, Resolution,
};
use crate::source::ConvertError;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

const MAX_LIST: usize = 256;
const MAX_ENDPOINTS: usize = 4096;

/// As the API server hands it out.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(in crate::source) struct ServiceEntry(Custom<Value>);

/// `resolution`, in the order of its numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wire {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

impl TryFrom<ServiceEntry> for Object {
    type Error = ConvertError;

    fn try_from(ServiceEntry(object): ServiceEntry) -> Result<Self, ConvertError> {
        let (name, created) = (object.metadata.name()?, object.metadata.created()?);
        let notes = Notes::default();
        let spec = Fields::of(object.spec.ok_or(ConvertError::Missing("spec"))?, "spec", &notes)?;
        let mut entry = entry(spec, name, created)?;
        entry.notes = notes.into_inner();
        Ok(Self::ServiceEntry(entry))
    }
}

fn entry(
    mut spec: Fields<'_>,
    name: objects::Name,
    created: objects::Created,
) -> Result<objects::ServiceEntry, ConvertError> {
    let (hosts, wildcard) = hosts(&mut spec)?;
    let (addresses, ranges) = addresses(&mut spec)?;
    let ports = ports(&mut spec)?;
    let locations = [("MESH_EXTERNAL", true), ("MESH_INTERNAL", false)];
    let external = spec.choice("location", &locations)?.unwrap_or(true);
    let resolutions = [
        ("NONE", Wire::None),
        ("STATIC", Wire::Static),
        ("DNS", Wire::Dns),
        ("DNS_ROUND_ROBIN", Wire::DnsRoundRobin),
        ("DYNAMIC_DNS", Wire::DynamicDns),
    ];
    let wire = spec.choice("resolution", &resolutions)?.unwrap_or_default();
    let resolution = match wire {
        Wire::None => Resolution::None,
        Wire::Static => Resolution::Static,
        Wire::Dns | Wire::DnsRoundRobin => Resolution::Dns,
        Wire::DynamicDns => {
            let reason = "DYNAMIC_DNS is not supported: names are known from requests only";
            return Err(spec.wrong("resolution", reason));
        }
    };
    let endpoints = endpoints(&mut spec, external)?;
    let entry = objects::ServiceEntry {
        created,
        hosts,
        addresses,
        ranges,
        ports,
        resolution,
        endpoints,
        exported_to: exported_to(&mut spec, &name.namespace, false)?,
        subject_alt_names: spec.texts("subjectAltNames", MAX_LIST, MAX_TEXT)?,
        notes: Vec::new(),
        name,
    };
    check(&entry, wire == Wire::DnsRoundRobin, wildcard)?;
    Ok(entry)
}

/// The hosts, and whether one is a wildcard.
fn hosts(spec: &mut Fields<'_>) -> Result<(Vec<Arc<str>>, bool), ConvertError> {
    const FIELD: &str = "spec.hosts";
    let mut hosts = Vec::new();
    let mut wildcard = false;
    for text in spec.texts("hosts", MAX_LIST, MAX_TEXT)? {
        let name = match text.strip_prefix("*.") {
            Some(suffix) => {
                wildcard = true;
                format!("*.{}", host(suffix, FIELD)?).into()
            }
            None => host(&text, FIELD)?,
        };
        if !hosts.contains(&name) {
            hosts.push(name);
        }
    }
    if hosts.is_empty() { Err(ConvertError::Missing(FIELD)) } else { Ok((hosts, wildcard)) }
}

/// Single addresses, and ranges.
fn addresses(spec: &mut Fields<'_>) -> Result<(Vec<IpAddr>, Vec<Arc<str>>), ConvertError> {
    let (mut addresses, mut ranges) = (Vec::new(), Vec::new());
    for text in spec.texts("addresses", MAX_LIST, MAX_TEXT)? {
        let error = || {
            let reason = format!("{text:?} is not an address or a range of addresses (CIDR)");
            spec.wrong("addresses", reason)
        };
        let (ip, length) = text.split_once('/').map_or((&*text, None), |(ip, l)| (ip, Some(l)));
        let ip: IpAddr = ip.parse().map_err(|_| error())?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let length: u8 = length.map_or(Ok(whole), str::parse).map_err(|_| error())?;
        match length.cmp(&whole) {
            std::cmp::Ordering::Equal => addresses.push(ip),
            std::cmp::Ordering::Less => ranges.push(text),
            std::cmp::Ordering::Greater => return Err(error()),
        }
    }
    Ok((addresses, ranges))
}

/// Ports of other protocols than TCP are left out, as those of Services are.
fn ports(spec: &mut Fields<'_>) -> Result<Vec<EntryPort>, ConvertError> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let ports = spec.list("ports", MAX_LIST, |mut port| {
        let number = port.port("number")?.ok_or_else(|| port.wrong("number", "it is missing"))?;
        let name = port.required("name", MAX_TEXT)?;
        let (protocol, target) = (port.text("protocol", MAX_TEXT)?, port.port("targetPort")?);
        if !names.insert(name.clone()) || !numbers.insert(number) {
            let reason = format!("{name} {number} is there already: names and numbers are unique");
            return Err(wrong(port.path(), reason));
        }
        if protocol.as_deref().is_some_and(|protocol| protocol.eq_ignore_ascii_case("udp")) {
            let why = "UDP is not captured; it goes on as without this port";
            port.note(port.at("protocol"), NoteKind::Unsupported(why));
            return Ok(None);
        }
        Ok(Some(EntryPort { name, number, protocol, target }))
    })?;
    Ok(ports.into_iter().flatten().collect())
}

fn endpoints(spec: &mut Fields<'_>, external: bool) -> Result<EntryEndpoints, ConvertError> {
    let listed = spec.list("endpoints", MAX_ENDPOINTS, endpoint)?;
    let Some(mut selector) = spec.fields("workloadSelector")? else {
        return Ok(EntryEndpoints::Listed(listed));
    };
    if !listed.is_empty() {
        return Err(wrong(spec.path(), "endpoints and workloadSelector exclude each other"));
    }
    let labels = selector.labels("labels")?;
    if labels.is_empty() {
        return Err(selector.wrong("labels", "it is missing"));
    }
    if let Some(value) = labels.values().find(|value| value.contains('*')) {
        let reason = format!("{value:?} is not the value of a label (wildcards are not allowed)");
        return Err(selector.wrong("labels", reason));
    }
    if external {
        return Err(wrong(selector.path(), "it needs location MESH_INTERNAL"));
    }
    Ok(EntryEndpoints::Selected(labels))
}

/// What excludes what.
fn check(entry: &objects::ServiceEntry, lone: bool, wildcard: bool) -> Result<(), ConvertError> {
    let (count, named) = match &entry.endpoints {
        EntryEndpoints::Listed(listed) => {
            let named = |endpoint: &EntryEndpoint| matches!(endpoint.address, EntryAddress::Name(_));
            (Some(listed.len()), listed.iter().any(named))
        }
        EntryEndpoints::Selected(_) => (None, false),
    };
    let (path, reason) = match entry.resolution {
        Resolution::None if count != Some(0) => ("spec.resolution", "NONE takes no endpoints"),
        Resolution::Static if count == Some(0) => {
            ("spec.resolution", "STATIC needs endpoints or a workloadSelector")
        }
        Resolution::Static if named => {
            ("spec.endpoints", "with STATIC an endpoint's address is an IP address")
        }
        Resolution::Dns if !entry.ranges.is_empty() => {
            ("spec.addresses", "ranges (CIDR) go with NONE and STATIC only")
        }
        Resolution::Dns if wildcard && count == Some(0) => {
            ("spec.hosts", "a wildcard cannot be looked up; DNS needs endpoints then")
        }
        Resolution::Dns if lone && count.is_some_and(|count| count > 1) => {
            ("spec.endpoints", "DNS_ROUND_ROBIN takes at most one")
        }
        Resolution::Static | Resolution::Dns if entry.hosts.len() > 1 && is_plain_tcp(&entry.ports) => {
            ("spec.hosts", "there is one at most where all ports are of plain TCP, which names no host")
        }
        _ => return Ok(()),
    };
    Err(wrong(path, reason))
}

/// Whether no port has a protocol that says which host is meant (HTTP, TLS), nor one that may.
fn is_plain_tcp(ports: &[EntryPort]) -> bool {
    const PLAIN: [&str; 4] = ["tcp", "mongo", "redis", "mysql"];
    let is_plain = |port: &EntryPort| {
        let first = port.protocol.as_deref().and_then(|protocol| protocol.split('-').next());
        first.is_some_and(|word| PLAIN.iter().any(|plain| word.eq_ignore_ascii_case(plain)))
    };
    !ports.is_empty() && ports.iter().all(is_plain)
}
