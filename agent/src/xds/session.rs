//! Delta ADS as a state machine: responses in, changes and requests out. It owns no socket and no clock.
//!
//! ```text
//!              on_connect()              on_response()
//!   away ------------------> subscribed -----------------> subscribed
//!    ^    first requests:        |        good resources: changes + new versions
//!    |    interest + versions    |        bad resources: remembered, old version stays
//!    '---------------------------'        answer: ACK, or NACK naming each bad resource
//!            stream ends
//! ```
//!
//! Source: xDS protocol, "Incremental xDS" (envoyproxy.io). A bad resource never costs the good ones of its
//! response (HOUSE 3.14); its version is not recorded, so the controller sends it again after a reconnect.

use crate::store::MeshChange;
use imbl::OrdMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_common::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, Status};
use warren_common::proto::{
    ADDRESS_TYPE_URL, MeshResource, NAMESPACE_TYPE_URL, WireError, decode_address, decode_namespace,
};

/// google.rpc.Code.INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;
/// A NACK names so many resources; the rest it counts. Keeps it far below any limit on messages and headers.
const NAMED_IN_NACK: usize = 20;
/// So many current rejections are remembered; all are counted.
const REMEMBERED: usize = 1000;

/// Resource name to version. Persistent, so that the disk writer gets a snapshot for free.
pub type Versions = OrdMap<Arc<str>, Arc<str>>;

/// Which resources of a type this agent wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// All there are (an empty subscription, which every server takes for the wildcard).
    All,
    /// These.
    Names(BTreeSet<String>),
}

/// What is subscribed to and what is held of one type.
#[derive(Debug)]
struct Subscription {
    type_url: &'static str,
    interest: Interest,
    /// What any response means, be it empty.
    heard: fn() -> Option<MeshChange>,
    decode: fn(&Resource) -> Result<MeshChange, RejectionReason>,
    remove: fn(String) -> MeshChange,
    versions: Versions,
}

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its name on the wire.
    pub resource: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a resource is refused.
#[derive(Debug, thiserror::Error)]
enum RejectionReason {
    #[error("it has no content")]
    Empty,
    #[error("it is of the type {0}, not of the response's")]
    Type(String),
    #[error("its content is that of {0:?}")]
    Name(String),
    #[error(transparent)]
    Content(#[from] WireError),
}

/// What follows from a response.
#[derive(Debug)]
pub struct Outcome {
    /// To apply to the store, in order.
    pub changes: Vec<MeshChange>,
    /// To send: ACK, or NACK if anything was rejected.
    pub request: DeltaDiscoveryRequest,
    /// What was rejected.
    pub rejected: Vec<Rejection>,
}

/// The agent's side of a delta-ADS session. It outlives streams: versions carry over a reconnect.
#[derive(Debug)]
pub struct Session {
    subscriptions: Vec<Subscription>,
    rejections: BTreeMap<String, String>,
    rejected: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that holds nothing yet and wants every address and every enrolled namespace.
    pub fn new() -> Self {
        let addresses = Subscription {
            type_url: ADDRESS_TYPE_URL,
            interest: Interest::All,
            heard: || None,
            decode: decode_mesh,
            remove: MeshChange::Remove,
            versions: Versions::new(),
        };
        let namespaces = Subscription {
            type_url: NAMESPACE_TYPE_URL,
            interest: Interest::All,
            heard: || Some(MeshChange::Namespaces { enrolled: vec![], released: vec![] }),
            decode: decode_enrolled,
            remove: |name| MeshChange::Namespaces { enrolled: vec![], released: vec![name.into()] },
            versions: Versions::new(),
        };
        Self { subscriptions: vec![addresses, namespaces], rejections: BTreeMap::new(), rejected: 0 }
    }

    /// The requests that open a new stream: per type, what is wanted and which versions are held.
    pub fn on_connect(&self) -> Vec<DeltaDiscoveryRequest> {
        let first = |subscription: &Subscription| DeltaDiscoveryRequest {
            type_url: subscription.type_url.to_owned(),
            resource_names_subscribe: match &subscription.interest {
                Interest::All => Vec::new(),
                Interest::Names(names) => names.iter().cloned().collect(),
            },
            initial_resource_versions: subscription
                .versions
                .iter()
                .map(|(name, version)| (name.to_string(), version.to_string()))
                .collect(),
            ..Default::default()
        };
        self.subscriptions.iter().map(first).collect()
    }

    /// Takes a response in and says what to apply and what to answer.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let mut changes = Vec::with_capacity(resources.len() + removed_resources.len());
        let mut rejected = Vec::new();
        let subscription =
            self.subscriptions.iter_mut().find(|subscription| subscription.type_url == type_url);
        if let Some(subscription) = subscription {
            changes.extend((subscription.heard)());
            for resource in resources {
                match (subscription.decode)(&resource) {
                    Ok(change) => {
                        changes.push(change);
                        self.rejections.remove(&resource.name);
                        subscription.versions.insert(resource.name.into(), resource.version.into());
                    }
                    Err(reason) => {
                        rejected.push(Rejection { resource: resource.name, reason: reason.to_string() });
                    }
                }
            }
            for name in removed_resources {
                self.rejections.remove(&name);
                subscription.versions.remove(name.as_str());
                changes.push((subscription.remove)(name));
            }
        } else {
            let reason = format!("{type_url:?} was not subscribed to");
            rejected.extend(
                resources.into_iter().map(|r| Rejection { resource: r.name, reason: reason.clone() }),
            );
        }
        self.remember(&rejected);
        let request = DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail: nack(&rejected),
            ..Default::default()
        };
        Outcome { changes, request, rejected }
    }

    /// The version of each held resource of a type.
    pub fn versions(&self, type_url: &str) -> Option<&Versions> {
        let subscription = self.subscriptions.iter().find(|subscription| subscription.type_url == type_url);
        subscription.map(|subscription| &subscription.versions)
    }

    /// Marks everything held as outdated: the next stream asks for all of it again, and, because the names are
    /// still told, hears which of them are gone.
    pub fn outdate_versions(&mut self) {
        for subscription in &mut self.subscriptions {
            let names: Vec<_> = subscription.versions.keys().cloned().collect();
            subscription.versions = names.into_iter().map(|name| (name, Arc::from(""))).collect();
        }
    }

    /// Resources that were refused and have not been replaced or removed since, with the reason; at most 1000.
    pub fn rejections(&self) -> &BTreeMap<String, String> {
        &self.rejections
    }

    /// How many resources were refused since the start.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    fn remember(&mut self, rejected: &[Rejection]) {
        for rejection in rejected {
            self.rejected += 1;
            if self.rejections.len() < REMEMBERED || self.rejections.contains_key(&rejection.resource) {
                self.rejections.insert(rejection.resource.clone(), rejection.reason.clone());
            }
        }
    }
}

fn nack(rejected: &[Rejection]) -> Option<Status> {
    if rejected.is_empty() {
        return None;
    }
    let shorten = |text: &str| text.chars().take(300).collect::<String>();
    let named = rejected
        .iter()
        .take(NAMED_IN_NACK)
        .map(|r| format!("{}: {}", shorten(&r.resource), shorten(&r.reason)));
    let mut message = named.collect::<Vec<_>>().join("; ");
    if rejected.len() > NAMED_IN_NACK {
        message += &format!("; and {} more", rejected.len() - NAMED_IN_NACK);
    }
    Some(Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

/// The bytes of a resource that must be of the type.
fn content<'a>(resource: &'a Resource, type_url: &str) -> Result<&'a [u8], RejectionReason> {
    let content = resource.resource.as_ref().ok_or(RejectionReason::Empty)?;
    if content.type_url != type_url {
        return Err(RejectionReason::Type(content.type_url.chars().take(200).collect()));
    }
    Ok(&content.value)
}

fn decode_enrolled(resource: &Resource) -> Result<MeshChange, RejectionReason> {
    let name = decode_namespace(content(resource, NAMESPACE_TYPE_URL)?)?;
    if *name != *resource.name {
        return Err(RejectionReason::Name(name.to_string()));
    }
    Ok(MeshChange::Namespaces { enrolled: vec![name], released: vec![] })
}

fn decode_mesh(resource: &Resource) -> Result<MeshChange, RejectionReason> {
    let decoded = decode_address(content(resource, ADDRESS_TYPE_URL)?)?;
    // A resource is removed by the name on its envelope: that must be its own.
    let name = decoded.name();
    if name != resource.name {
        return Err(RejectionReason::Name(name));
    }
    Ok(match decoded {
        MeshResource::Workload(workload) => MeshChange::Workload(Arc::from(workload)),
        MeshResource::Service(service) => MeshChange::Service(Arc::from(service)),
    })
}
