//! `networking.istio.io/ServiceEntry`.

use super::endpoint::{Endpoint, host, port};
use super::{Custom, MAX_TEXT, selector_labels};
use crate::objects::{self, EntryAddress, EntryEndpoint, EntryEndpoints, EntryPort, Object, Resolution};
use crate::source::ConvertError;
use crate::source::convert::invalid;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const MAX_LIST: usize = 256;
const MAX_ENDPOINTS: usize = 4096;

/// As the API server hands it out.
pub(in crate::source) type ServiceEntry = Custom<Spec>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct Spec {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    ports: Vec<Port>,
    #[serde(default)]
    location: Location,
    #[serde(default)]
    resolution: WireResolution,
    endpoints: Option<Vec<Endpoint>>,
    workload_selector: Option<Selector>,
    #[serde(default)]
    export_to: Vec<String>,
    #[serde(default)]
    subject_alt_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Port {
    number: u32,
    name: String,
    protocol: Option<String>,
    target_port: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Location {
    #[default]
    MeshExternal,
    MeshInternal,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum WireResolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

impl TryFrom<ServiceEntry> for Object {
    type Error = ConvertError;

    fn try_from(object: ServiceEntry) -> Result<Self, ConvertError> {
        let (name, created) = (object.metadata.name()?, object.metadata.created()?);
        let spec = object.spec.ok_or(ConvertError::Missing("spec"))?;
        for (field, length) in [
            ("spec.hosts", spec.hosts.len()),
            ("spec.addresses", spec.addresses.len()),
            ("spec.ports", spec.ports.len()),
            ("spec.exportTo", spec.export_to.len()),
            ("spec.subjectAltNames", spec.subject_alt_names.len()),
        ] {
            if length > MAX_LIST {
                return Err(invalid(field, &length.to_string(), "a list of at most 256 entries"));
            }
        }
        let resolution = match spec.resolution {
            WireResolution::None => Resolution::None,
            WireResolution::Static => Resolution::Static,
            WireResolution::Dns | WireResolution::DnsRoundRobin => Resolution::Dns,
            WireResolution::DynamicDns => {
                return Err(ConvertError::Contradiction(
                    "spec.resolution: DYNAMIC_DNS is not supported: names are known from requests only",
                ));
            }
        };
        let (hosts, wildcard) = hosts(&spec.hosts)?;
        let (addresses, ranges) = addresses(&spec.addresses)?;
        let external = spec.location == Location::MeshExternal;
        let lone = matches!(spec.resolution, WireResolution::DnsRoundRobin);
        let endpoints = endpoints(spec.endpoints, spec.workload_selector, external)?;
        check(resolution, lone, wildcard, !ranges.is_empty(), &endpoints)?;
        Ok(Self::ServiceEntry(objects::ServiceEntry {
            created,
            hosts,
            addresses,
            ranges,
            ports: ports(spec.ports)?,
            resolution,
            endpoints,
            exported_to: exported_to(&spec.export_to, &name.namespace)?,
            subject_alt_names: short(spec.subject_alt_names, "spec.subjectAltNames")?,
            name,
        }))
    }
}

/// The hosts, and whether one is a wildcard.
fn hosts(texts: &[String]) -> Result<(Vec<Arc<str>>, bool), ConvertError> {
    const FIELD: &str = "spec.hosts";
    let mut hosts = Vec::with_capacity(texts.len());
    let mut wildcard = false;
    for text in texts {
        let name = match text.strip_prefix("*.") {
            Some(suffix) => {
                wildcard = true;
                format!("*.{}", host(suffix, FIELD)?).into()
            }
            None => host(text, FIELD)?,
        };
        if !hosts.contains(&name) {
            hosts.push(name);
        }
    }
    if hosts.is_empty() { Err(ConvertError::Missing(FIELD)) } else { Ok((hosts, wildcard)) }
}

/// Single addresses, and ranges.
fn addresses(texts: &[String]) -> Result<(Vec<IpAddr>, Vec<Arc<str>>), ConvertError> {
    let (mut addresses, mut ranges) = (Vec::new(), Vec::new());
    for text in texts {
        let error = || invalid("spec.addresses", text, "an address or a range of addresses (CIDR)");
        let (ip, length) = text.split_once('/').map_or((text.as_str(), None), |(ip, l)| (ip, Some(l)));
        let ip: IpAddr = ip.parse().map_err(|_| error())?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let length: u8 = length.map_or(Ok(whole), str::parse).map_err(|_| error())?;
        match length.cmp(&whole) {
            std::cmp::Ordering::Equal => addresses.push(ip),
            std::cmp::Ordering::Less => ranges.push(text.as_str().into()),
            std::cmp::Ordering::Greater => return Err(error()),
        }
    }
    Ok((addresses, ranges))
}

/// Ports of other protocols than TCP are left out, as those of Services are.
fn ports(wire: Vec<Port>) -> Result<Vec<EntryPort>, ConvertError> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::with_capacity(wire.len());
    for entry in wire {
        let number = port(entry.number, "spec.ports.number")?;
        let target = entry.target_port.map(|target| port(target, "spec.ports.targetPort")).transpose()?;
        let texts = short([entry.name].into_iter().chain(entry.protocol), "spec.ports")?;
        let mut texts = texts.into_iter();
        let (name, protocol) = (texts.next().unwrap_or_default(), texts.next());
        if !names.insert(name.clone()) || !numbers.insert(number) {
            return Err(invalid("spec.ports", &format!("{name} {number}"), "unique by name and by number"));
        }
        if name.is_empty() {
            return Err(ConvertError::Missing("spec.ports.name"));
        }
        if protocol.as_deref().is_none_or(|protocol| !protocol.eq_ignore_ascii_case("udp")) {
            ports.push(EntryPort { name, number, protocol, target });
        }
    }
    Ok(ports)
}

fn endpoints(
    listed: Option<Vec<Endpoint>>,
    selector: Option<Selector>,
    external: bool,
) -> Result<EntryEndpoints, ConvertError> {
    match (listed, selector) {
        (Some(_), Some(_)) => {
            Err(ConvertError::Contradiction("spec.endpoints and spec.workloadSelector exclude each other"))
        }
        (_, Some(selector)) if selector.labels.is_empty() => {
            Err(ConvertError::Missing("spec.workloadSelector.labels"))
        }
        (_, Some(_)) if external => {
            Err(ConvertError::Contradiction("spec.workloadSelector needs location MESH_INTERNAL"))
        }
        (_, Some(selector)) => {
            Ok(EntryEndpoints::Selected(selector_labels(selector.labels, "spec.workloadSelector.labels")?))
        }
        (listed, None) => {
            let listed = listed.unwrap_or_default();
            if listed.len() > MAX_ENDPOINTS {
                return Err(invalid("spec.endpoints", &listed.len().to_string(), "at most 4096 endpoints"));
            }
            let checked = listed.into_iter().map(|endpoint| endpoint.checked("spec.endpoints"));
            Ok(EntryEndpoints::Listed(checked.collect::<Result<_, _>>()?))
        }
    }
}

/// What excludes what, as Istio's validation has it.
fn check(
    resolution: Resolution,
    lone: bool,
    wildcard: bool,
    ranges: bool,
    endpoints: &EntryEndpoints,
) -> Result<(), ConvertError> {
    let (count, named) = match endpoints {
        EntryEndpoints::Listed(listed) => {
            let named = |endpoint: &EntryEndpoint| matches!(endpoint.address, EntryAddress::Name(_));
            (Some(listed.len()), listed.iter().any(named))
        }
        EntryEndpoints::Selected(_) => (None, false),
    };
    let wrong = match resolution {
        Resolution::None if count != Some(0) => "spec.resolution: NONE takes no endpoints",
        Resolution::Static if count == Some(0) => {
            "spec.resolution: STATIC needs endpoints or a workloadSelector"
        }
        Resolution::Static if named => "spec.endpoints: with STATIC an endpoint's address is an IP address",
        Resolution::Dns if ranges => "spec.addresses: ranges (CIDR) go with NONE and STATIC only",
        Resolution::Dns if wildcard && count == Some(0) => {
            "spec.hosts: a wildcard cannot be looked up; DNS needs endpoints then"
        }
        Resolution::Dns if lone && count.is_some_and(|count| count > 1) => {
            "spec.endpoints: DNS_ROUND_ROBIN takes at most one"
        }
        _ => return Ok(()),
    };
    Err(ConvertError::Contradiction(wrong))
}

fn exported_to(texts: &[String], own: &Arc<str>) -> Result<Option<Vec<Arc<str>>>, ConvertError> {
    const FIELD: &str = "spec.exportTo";
    let mut namespaces: Vec<Arc<str>> = Vec::new();
    for text in texts {
        match text.as_str() {
            "*" | "~" if texts.len() > 1 => {
                return Err(invalid(FIELD, text, "the only entry, as it must be"));
            }
            "*" => return Ok(None),
            "~" => return Ok(Some(Vec::new())),
            "." => namespaces.push(own.clone()),
            name if !name.is_empty() && name.len() <= 63 && !name.contains(['*', '/', '.']) => {
                namespaces.push(name.into());
            }
            other => return Err(invalid(FIELD, other, "a namespace, \".\", \"*\" or \"~\"")),
        }
    }
    Ok((!namespaces.is_empty()).then_some(namespaces))
}

fn short(
    texts: impl IntoIterator<Item = String>,
    field: &'static str,
) -> Result<Vec<Arc<str>>, ConvertError> {
    let checked = texts.into_iter().map(|text| {
        if text.len() > MAX_TEXT {
            Err(invalid(field, &text, "short enough (256 bytes)"))
        } else {
            Ok(text.into())
        }
    });
    checked.collect()
}
