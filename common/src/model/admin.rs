//! What the agent's admin socket answers and `warren status|flows|...` prints: the JSON contract.
//!
//! Times are RFC 3339 in UTC, durations milliseconds, sizes bytes. Fields are only ever added.

mod routes;
mod why;

pub use routes::{
    BackendView, DEFAULT_RULES, PolicyInForce, Routes, RoutesOf, RoutesQuestion, RuleView, RulesKind,
    SubsetView,
};
pub use why::{Why, WhyMark, WhyOutcome, WhyQuestion, WhyRow, WhyStep, encoded, parameters};

use super::{AuthorizationPolicy, Identity, PeerAuthentication, PolicyName, Service, Workload};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// Which side of a connection a record was made at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Leaving a pod of this node.
    Outbound,
    /// Entering a pod of this node.
    Inbound,
}

/// How the bytes of a connection travel between the two pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// HTTP CONNECT over mutual TLS.
    Hbone,
    /// Both pods are on this node: authenticated by the kernel, never on a wire.
    SameNode,
    /// To or from what is not in the mesh, as it is.
    Plaintext,
    /// Not decided, because the connection failed before.
    None,
}

/// What was decided about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Permitted.
    Allowed,
    /// Refused by a rule.
    Denied,
    /// Failed before a rule was asked.
    None,
}

/// Whether a connection still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// It runs.
    Open,
    /// It has ended, well or badly.
    Closed,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPeer {
    /// Address and port: the client's own, or the one it asked for (the service's, where it called one).
    pub address: Option<SocketAddr>,
    /// Name of the workload's owner (Deployment ...).
    pub workload: Option<Arc<str>>,
    /// Pod name.
    pub pod: Option<Arc<str>>,
    /// Namespace.
    pub namespace: Option<Arc<str>>,
    /// Identity: proven by certificate or by the kernel (same node), absent for plaintext.
    pub identity: Option<Identity>,
    /// Hostname of the service that was called (destination only).
    pub service: Option<Arc<str>>,
    /// Address of the endpoint that was picked (destination only).
    pub endpoint: Option<SocketAddr>,
}

/// One connection as one agent saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Unique on this agent while it runs.
    pub id: u64,
    /// The agent's node.
    pub node: Arc<str>,
    /// Which side.
    pub direction: Direction,
    /// Whether it still runs.
    pub state: FlowState,
    /// When the agent accepted it, RFC 3339.
    pub start: String,
    /// From accept to end, or to now if it is open.
    pub duration_ms: f64,
    /// The client.
    pub source: FlowPeer,
    /// The server.
    pub destination: FlowPeer,
    /// How it travels.
    pub transport: Transport,
    /// Whether it was permitted.
    pub verdict: Verdict,
    /// The rule that decided.
    pub policy: Option<Arc<str>>,
    /// What would have been decided with the dry-run policies that apply enforced; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<Arc<str>>,
    /// Bytes from client to server.
    pub bytes_sent: u64,
    /// Bytes from server to client.
    pub bytes_received: u64,
    /// `-`, or ztunnel's flags: DENY, CONNECT, TLS_FAILURE, H2_HANDSHAKE_FAILURE, IDENTITY_ERROR ... Of a request Envoy's: UH, UF,
    /// UT, NR ..., joined by commas.
    pub flags: String,
    /// Why it failed, in words.
    pub error: Option<String>,
    /// Which rules decided where it goes, if it is a connection of which rules say something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<FlowRoute>>,
    /// The request, if it is one and not a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<FlowRequest>>,
}

/// What decided where a connection goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowRoute {
    /// The rule that matched, as its object names it; empty: none did, or it has no name.
    pub rule: Arc<str>,
    /// The objects that the rules come from, or the DestinationRule alone.
    pub objects: Arc<str>,
    /// Where it was sent, in Envoy's form: `outbound|port|subset|host`; empty: nowhere.
    pub cluster: Arc<str>,
}

/// A request that was routed, and its response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowRequest {
    /// `HTTP/1.1`, `HTTP/2` ..., as the client spoke.
    pub protocol: Arc<str>,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// Method.
    pub method: Arc<str>,
    /// Path and query as the client asked for them.
    pub path: Arc<str>,
    /// `:authority` or `Host`.
    pub authority: Arc<str>,
    /// `x-request-id`.
    pub request_id: Option<Arc<str>>,
    /// `user-agent`.
    pub user_agent: Option<Arc<str>>,
    /// `x-forwarded-for`.
    pub forwarded_for: Option<Arc<str>>,
    /// The rule that matched, as its object names it; absent when none did.
    pub route: Option<Arc<str>>,
    /// The objects that the rules come from.
    pub objects: Option<Arc<str>>,
    /// Where the rule sent it, in Envoy's form: `outbound|port|subset|host`.
    pub cluster: Option<Arc<str>>,
    /// How often it was sent to an endpoint.
    pub attempts: u32,
    /// Status of the response; 0: the client got none.
    pub status: u16,
    /// `grpc-status`.
    pub grpc_status: Option<u16>,
    /// Envoy's `response_code_details`: where the response came from.
    pub details: Arc<str>,
    /// Milliseconds from sending the request to the head of its response.
    pub upstream_ms: Option<u64>,
}

/// `GET /v1/flows`: the newest closed flows and all open ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flows {
    /// Oldest first.
    pub flows: Vec<Flow>,
    /// Closed flows that fell out of the ring since the agent started.
    pub evicted: u64,
}

/// A line of `GET /v1/flows?follow=true` (newline-delimited JSON).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FlowEvent {
    /// A flow ended (or, with `open=true`, began).
    Flow(Box<Flow>),
    /// The reader was too slow; so many flows were not sent.
    Lost {
        /// How many.
        count: u64,
    },
}

/// A pod of this node as the agent holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// `metadata.uid`.
    pub pod_uid: Arc<str>,
    /// `enrolled`, or `pending` with the reason.
    pub state: PodState,
    /// Why it is pending.
    pub reason: Option<String>,
    /// Cookie of its network namespace, once known.
    pub netns_cookie: Option<u64>,
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodState {
    /// Its traffic is captured.
    Enrolled,
    /// It should be captured and is not yet.
    Pending,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The agent's node.
    pub node: Arc<str>,
    /// warren's version.
    pub version: String,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Ready to carry traffic.
    pub ready: bool,
    /// What readiness still waits for.
    pub waiting_for: Vec<String>,
    /// The controller's session.
    pub controller: ControllerStatus,
    /// Pods of this node.
    pub pods: Vec<PodStatus>,
    /// Known workloads in the mesh.
    pub workloads: usize,
    /// Known services in the mesh.
    pub services: usize,
    /// Open connections.
    pub open_flows: u64,
    /// What the kernel programs counted, by name.
    pub kernel: std::collections::BTreeMap<String, u64>,
    /// Open tunnels to other nodes.
    pub tunnels: u64,
    /// Whose connections to pods are probes.
    #[serde(default)]
    pub kubelet: Kubelet,
}

/// Which cgroup's connections to pods are the kubelet's probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubelet {
    /// Its directory, as the agent sees it.
    pub cgroup: Option<String>,
    /// Why none is known: probes are captured as any other connection.
    pub problem: Option<String>,
}

/// The agent's session with its controller.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// Where it is.
    pub url: String,
    /// A session stands.
    pub connected: bool,
    /// The configuration in use came from disk; the controller has not answered since the start.
    pub from_disk: bool,
    /// Why there is no session.
    pub last_error: Option<String>,
    /// Resources refused since the start.
    pub rejected: u64,
    /// How many addresses and services the agent asks about; absent when it subscribes to everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed: Option<usize>,
}

/// A certificate of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose it is.
    pub identity: Identity,
    /// `ready`, or why it is not.
    pub state: String,
    /// Hexadecimal serial number.
    pub serial: Option<String>,
    /// RFC 3339.
    pub not_before: Option<String>,
    /// RFC 3339.
    pub not_after: Option<String>,
    /// When it will be renewed, RFC 3339.
    pub renew_at: Option<String>,
}

/// `GET /v1/certs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Certificates {
    /// One per identity with a pod on this node.
    pub certificates: Vec<Certificate>,
    /// Subjects and ends of the roots that peers are verified against.
    pub roots: Vec<RootCertificate>,
}

/// A trusted root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCertificate {
    /// Subject.
    pub subject: String,
    /// Hexadecimal serial number.
    pub serial: String,
    /// RFC 3339.
    pub not_after: String,
}

/// `GET /v1/workloads`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Workloads {
    /// Ordered by namespace and name.
    pub workloads: Vec<Arc<Workload>>,
}

/// `GET /v1/services`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Services {
    /// Ordered by namespace and name.
    pub services: Vec<ServiceView>,
}

/// A service and who stands behind it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceView {
    /// The service.
    pub service: Arc<Service>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// A workload behind a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointView {
    /// Pod name.
    pub workload: Arc<str>,
    /// Node.
    pub node: Arc<str>,
    /// Addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Gets traffic.
    pub health: super::Health,
    /// For whom it gets none for a while nevertheless, and why (outlier detection).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Arc<str>>,
}

/// `GET /v1/policies`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policies {
    /// Whether it is known which policies there are; until then nobody may enter a pod.
    pub known: bool,
    /// Ordered by namespace and name.
    pub policies: Vec<PolicyView>,
    /// The enrolled pods of this node and what guards each.
    pub pods: Vec<GuardedPod>,
}

/// A policy as the agent holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Namespace and name.
    pub name: PolicyName,
    /// The last version that was understood; absent when none ever was: then nobody may enter what it may be for.
    pub policy: Option<Arc<AuthorizationPolicy>>,
    /// Why the newest version is not in use.
    pub refused: Option<String>,
}

/// A pod and what guards it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedPod {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Its owner.
    pub workload: Arc<str>,
    /// Which plaintext may enter it.
    pub peer_authentication: PeerAuthentication,
    /// The policies that apply to it, those that cannot be had included.
    pub policies: Vec<PolicyName>,
}

/// `GET /v1/ca` of the controller: its certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// End of the root, RFC 3339; while a new one is being distributed, of that.
    pub root_not_after: String,
    /// End of the certificate that signs, or of its chain if that ends before, RFC 3339; as above.
    pub signing_not_after: String,
    /// Where somebody plugged the CA in; absent when it is warren's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugged_in: Option<String>,
    /// Every root that agents know, the one that signs first.
    pub roots: Vec<CaRoot>,
    /// How far the rotation is, or the last one was.
    pub rotation: CaRotation,
    /// What ends soon, and what to do about it.
    #[serde(default)]
    pub alarms: Vec<CaAlarm>,
    /// Identities that nobody may use any more, ordered.
    pub revoked: Vec<Identity>,
}

/// A root of the CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRoot {
    /// Subject and serial number.
    #[serde(flatten)]
    pub certificate: RootCertificate,
    /// `trusted`, or `retired`: it vouches for open connections alone.
    pub state: String,
}

/// How far a rotation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaRotation {
    /// `steady`, `distributing`, `renewing` or `dropping`.
    pub phase: String,
    /// What is, or was last, replaced: `signer` or `root`.
    pub kind: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When the phase ends at the latest, RFC 3339; absent when nothing is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// SHA-256 of the certificate that signs, hexadecimal.
    pub signer: String,
    /// Nodes that are connected or have pods of the mesh.
    pub nodes: usize,
    /// Those that verify peers by the roots of now and by no others.
    pub with_roots: usize,
    /// Those that have no certificate but of the one that signs now.
    pub renewed: usize,
    /// Some of those that are not there yet, with why.
    pub behind: Vec<String>,
}

/// Something of the CA that ends soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaAlarm {
    /// What ends in how long.
    pub what: String,
    /// What to do.
    pub todo: String,
    /// Very soon.
    pub urgent: bool,
}

/// Any error the admin socket answers with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdminError {
    /// What happened and what to do next.
    pub error: String,
}
