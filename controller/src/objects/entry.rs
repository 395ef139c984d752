//! ServiceEntries and WorkloadEntries: services and workloads that Kubernetes does not know.

use super::{Created, FieldNote, Map, Name};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How a ServiceEntry's endpoints are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// The client's own address is the endpoint.
    #[default]
    None,
    /// The endpoints have addresses.
    Static,
    /// Names are looked up; every address that is found counts (`DNS`), or one of them (`DNS_ROUND_ROBIN`).
    Dns,
}

/// One TCP port of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPort {
    /// Name, by which endpoints may map it.
    pub name: Arc<str>,
    /// The port clients dial.
    pub number: u16,
    /// What is spoken, as Istio names it.
    pub protocol: Option<Arc<str>>,
    /// The endpoints' port; none: the same.
    pub target: Option<u16>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryAddress {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, looked up at the client's node.
    Name(Arc<str>),
}

impl std::fmt::Display for EntryAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// `spec` of a WorkloadEntry, and an endpoint of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEndpoint {
    /// Where it is.
    pub address: EntryAddress,
    /// Its own ports by the names of the service's.
    pub ports: BTreeMap<Arc<str>, u16>,
    /// Labels.
    pub labels: Map,
    /// Network, empty for the pods'.
    pub network: Arc<str>,
    /// Region, zone, subzone.
    pub locality: [Arc<str>; 3],
    /// Relative share of connections, at least 1.
    pub weight: u32,
    /// Service account of its identity.
    pub service_account: Arc<str>,
}

/// A `networking.istio.io/WorkloadEntry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// Namespace and name.
    pub name: Name,
    /// What it is.
    pub endpoint: EntryEndpoint,
    /// What is to be said about its fields.
    pub notes: Vec<FieldNote>,
}

/// Who stands behind a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryEndpoints {
    /// Those it lists; with DNS and none, its own hosts.
    Listed(Vec<EntryEndpoint>),
    /// Pods and WorkloadEntries of its namespace with these labels.
    Selected(Map),
}

/// A `networking.istio.io/ServiceEntry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Namespace and name.
    pub name: Name,
    /// Of several with the same host in a namespace, the oldest counts.
    pub created: Created,
    /// Its names, lower-case.
    pub hosts: Vec<Arc<str>>,
    /// Virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Address ranges, which are not captured.
    pub ranges: Vec<Arc<str>>,
    /// TCP ports.
    pub ports: Vec<EntryPort>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Who they are.
    pub endpoints: EntryEndpoints,
    /// Namespaces that know it; none: all of them.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// Identities that may answer for it.
    pub subject_alt_names: Vec<Arc<str>>,
    /// What is to be said about its fields.
    pub notes: Vec<FieldNote>,
}

impl ServiceEntry {
    /// The endpoints that it lists, those that it makes of its hosts included, with the hosts they stand behind.
    pub fn listed(&self) -> Vec<(EntryEndpoint, Vec<Arc<str>>)> {
        let EntryEndpoints::Listed(endpoints) = &self.endpoints else { return Vec::new() };
        if endpoints.is_empty() && self.resolution == Resolution::Dns {
            let named = |host: &Arc<str>| (EntryEndpoint::named(host.clone()), vec![host.clone()]);
            return self.hosts.iter().map(named).collect();
        }
        endpoints.iter().map(|endpoint| (endpoint.clone(), self.hosts.clone())).collect()
    }

    /// Whether it selects a workload of its namespace with these labels.
    pub fn selects(&self, labels: &Map) -> bool {
        match &self.endpoints {
            EntryEndpoints::Selected(selector) => super::matches(selector, labels),
            EntryEndpoints::Listed(_) => false,
        }
    }
}

impl EntryEndpoint {
    /// A DNS name and nothing more.
    fn named(name: Arc<str>) -> Self {
        Self {
            address: EntryAddress::Name(name),
            ports: BTreeMap::new(),
            labels: Map::new(),
            network: Arc::default(),
            locality: Default::default(),
            weight: 1,
            service_account: "default".into(),
        }
    }
}
