//! The labels of Istio's TCP metrics: the exact set its dashboards and Kiali query.
//!
//! No label holds an address, a port or a pod name, so that the number of series follows the number of
//! workloads that talk to each other, not the number of connections or restarts.

use super::record::{Details, FlowFlag, Peer};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use warren_common::model::admin::{Direction, Transport};
use warren_common::model::{Identity, Service, Workload};

const UNKNOWN: &str = "unknown";

/// A service as metrics name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ServiceLabels {
    pub(super) name: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) hostname: Arc<str>,
}

impl From<&Service> for ServiceLabels {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            namespace: service.key.namespace.clone(),
            hostname: service.key.hostname.clone(),
        }
    }
}

/// One end of a connection as metrics name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct PeerLabels {
    workload: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
    principal: Option<Identity>,
    app: Option<Arc<str>>,
    version: Option<Arc<str>>,
    canonical_service: Option<Arc<str>>,
    canonical_revision: Option<Arc<str>>,
    cluster: Option<Arc<str>>,
}

impl From<&Peer> for PeerLabels {
    fn from(peer: &Peer) -> Self {
        let principal = peer.identity.clone();
        match &peer.workload {
            Some(workload) => Self {
                workload: Some(workload.owner.clone()),
                namespace: Some(workload.namespace.clone()),
                principal,
                app: workload.labels.get("app").cloned(),
                version: workload.labels.get("version").cloned(),
                canonical_service: Some(workload.canonical_name.clone()),
                canonical_revision: Some(workload.canonical_revision.clone()),
                cluster: Some(workload.cluster.clone()),
            },
            // The namespace of a peer that is known by certificate alone comes from its SPIFFE ID.
            None => Self {
                namespace: principal.as_ref().map(|identity| identity.namespace().into()),
                principal,
                ..Self::default()
            },
        }
    }
}

/// A label set. Built once per connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TcpLabels {
    direction: Direction,
    source: PeerLabels,
    destination: PeerLabels,
    service: Option<ServiceLabels>,
    mutual_tls: bool,
    flag: &'static str,
}

impl TcpLabels {
    /// The labels of a connection; with a flag, those of its failure.
    pub(super) fn new(direction: Direction, details: &Details, flag: Option<FlowFlag>) -> Self {
        let Details { source, destination, transport, .. } = details;
        let service = details.service.clone().or_else(|| match (direction, &destination.workload) {
            (Direction::Inbound, Some(workload)) => served(workload, destination.address?.port()),
            _ => None,
        });
        // What stays on the node is authenticated by the kernel instead of by TLS. It counts as mutual_tls
        // only when both identities are proven, so that "encrypted or never on a wire" is what panels show.
        let proven = source.identity.is_some() && destination.identity.is_some();
        Self {
            direction,
            source: source.into(),
            destination: destination.into(),
            service,
            mutual_tls: *transport == Transport::Hbone || (*transport == Transport::SameNode && proven),
            flag: flag.map_or("-", FlowFlag::as_str),
        }
    }

    /// The labels of a request. How it travels is said where it arrives, if there: Istio's clients leave that unknown, and so do
    /// dashboards expect it.
    pub(super) fn of_request(direction: Direction, details: &Details) -> Self {
        let labels = Self::new(direction, details, None);
        let mutual_tls = labels.mutual_tls && direction == Direction::Inbound;
        Self { mutual_tls, ..labels }
    }

    /// Where everything is counted that would exceed the bound on series.
    pub(super) fn overflow(direction: Direction) -> Self {
        Self {
            direction,
            source: PeerLabels::default(),
            destination: PeerLabels::default(),
            service: None,
            mutual_tls: false,
            flag: "-",
        }
    }

    /// What tells most of them apart.
    pub(super) fn hash_names<H: Hasher>(&self, state: &mut H) {
        self.direction.hash(state);
        for peer in [&self.source, &self.destination] {
            (&peer.workload, &peer.namespace).hash(state);
        }
        self.service.as_ref().map(|service| &service.hostname).hash(state);
    }

    fn service_name(&self) -> &str {
        match (&self.service, self.direction) {
            (Some(service), _) => text(Some(&service.name)),
            (None, _) if self.destination.workload.is_some() => UNKNOWN,
            (None, Direction::Outbound) => "PassthroughCluster",
            (None, Direction::Inbound) => "InboundPassthroughCluster",
        }
    }
}

/// The service that an inbound connection most likely came for: the server's side does not see the service's
/// name, but knows which of the workload's services lead to this port. ztunnel guesses the same way.
fn served(workload: &Workload, port: u16) -> Option<ServiceLabels> {
    let leads_here =
        |ports: &[warren_common::model::PortMapping]| ports.iter().any(|p| p.target_port == port);
    let (key, _) = workload.services.iter().find(|(_, ports)| leads_here(ports))?;
    let name = key.hostname.split('.').next().unwrap_or_default();
    Some(ServiceLabels {
        name: name.into(),
        namespace: key.namespace.clone(),
        hostname: key.hostname.clone(),
    })
}

fn text(value: Option<&Arc<str>>) -> &str {
    value.map(AsRef::as_ref).filter(|value: &&str| !value.is_empty()).unwrap_or(UNKNOWN)
}

fn revision(value: Option<&Arc<str>>) -> &str {
    value.map(AsRef::as_ref).filter(|value: &&str| !value.is_empty()).unwrap_or("latest")
}

fn principal(identity: Option<&Identity>) -> Cow<'static, str> {
    identity.map_or(Cow::Borrowed(UNKNOWN), |identity| Cow::Owned(identity.to_string()))
}

/// The text format's escapes; the library writes values as they are.
pub(super) fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        Cow::Owned(value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
    } else {
        Cow::Borrowed(value)
    }
}

impl EncodeLabelSet for TcpLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.encode_as("tcp", self.flag, encoder)
    }
}

impl TcpLabels {
    /// Writes the labels with this protocol and these flags.
    pub(super) fn encode_as(
        &self,
        protocol: &str,
        flags: &str,
        encoder: &mut LabelSetEncoder<'_>,
    ) -> fmt::Result {
        let Self { source: src, destination: dst, service, .. } = self;
        let reporter = reporter(self.direction);
        let mut label =
            |name: &str, value: &str| (name, escaped(value).as_ref()).encode(encoder.encode_label());
        label("reporter", reporter)?;
        label("source_workload", text(src.workload.as_ref()))?;
        label("source_canonical_service", text(src.canonical_service.as_ref()))?;
        label("source_canonical_revision", revision(src.canonical_revision.as_ref()))?;
        label("source_workload_namespace", text(src.namespace.as_ref()))?;
        label("source_principal", &principal(src.principal.as_ref()))?;
        label("source_app", text(src.app.as_ref()))?;
        label("source_version", text(src.version.as_ref()))?;
        label("source_cluster", text(src.cluster.as_ref()))?;
        label("destination_workload", text(dst.workload.as_ref()))?;
        label("destination_workload_namespace", text(dst.namespace.as_ref()))?;
        label("destination_principal", &principal(dst.principal.as_ref()))?;
        label("destination_app", text(dst.app.as_ref()))?;
        label("destination_version", text(dst.version.as_ref()))?;
        label("destination_service", text(service.as_ref().map(|s| &s.hostname)))?;
        label("destination_canonical_service", text(dst.canonical_service.as_ref()))?;
        label("destination_canonical_revision", revision(dst.canonical_revision.as_ref()))?;
        label("destination_service_name", self.service_name())?;
        label("destination_service_namespace", text(service.as_ref().map(|s| &s.namespace)))?;
        label("destination_cluster", text(dst.cluster.as_ref()))?;
        label("request_protocol", protocol)?;
        label("response_flags", flags)?;
        label("connection_security_policy", if self.mutual_tls { "mutual_tls" } else { UNKNOWN })
    }
}

/// Who reports: the client's node or the server's.
pub(super) const fn reporter(direction: Direction) -> &'static str {
    match direction {
        Direction::Outbound => "source",
        Direction::Inbound => "destination",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
        assert!(matches!(escaped("plain"), Cow::Borrowed("plain")));
    }
}
