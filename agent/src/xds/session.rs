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
//!
//! By interest, addresses are asked for by the alias `/10.0.0.1` (`network/address`; ours is the empty network), and services
//! by their own name, `namespace/hostname`. Each is unanswered until a resource with that alias or name comes, or word that
//! there is none; it stays subscribed to until it is left. After a reconnect the answered ones are resumed and the others
//! asked for again.

use crate::policy::Refused;
use crate::route::http::{Checks, TableError, check};
use crate::store::{MeshChange, Sought};
use imbl::{OrdMap, OrdSet};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::Traffic;
use warren_common::model::{PolicyName, ServiceName, Sharing};
use warren_common::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, Status};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MeshResource, NAMESPACE_TYPE_URL, REVOCATIONS,
    REVOCATIONS_TYPE_URL, TRAFFIC_TYPE_URL, TRUST, TRUST_TYPE_URL, WireError, decode_address,
    decode_authorization, decode_envelope, decode_namespace, decode_revocations, decode_traffic,
    decode_trust, scope_of_authorization, traffic_name,
};

/// google.rpc.Code.INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;
/// A NACK names so many resources; the rest it counts. Keeps it far below any limit on messages and headers.
const NAMED_IN_NACK: usize = 20;
/// So many current rejections are remembered; all are counted.
const REMEMBERED: usize = 1000;
/// What a resource is called whose name cannot be read.
const NAMELESS: &str = "(a resource that cannot be read)";

/// Resource name to version. Persistent, so that the disk writer gets a snapshot for free.
pub type Versions = OrdMap<Arc<str>, Arc<str>>;

/// The name of everything.
const WILDCARD: &str = "*";

/// Which resources of a type this agent wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Wanted {
    /// All there are (an empty subscription, which every server takes for the wildcard).
    #[default]
    Everything,
    /// What has these addresses and names, and what comes along with that.
    Asked {
        /// The controller has said what there is to say.
        answered: OrdSet<Sought>,
        /// It has not yet.
        unanswered: BTreeSet<Sought>,
    },
}

/// What is subscribed to and what is held of one type.
#[derive(Debug)]
struct Subscription {
    type_url: &'static str,
    wanted: Wanted,
    /// What any response means, be it empty.
    heard: fn() -> Option<MeshChange>,
    decode: fn(&Resource) -> Result<MeshChange, RejectionReason>,
    /// What a resource means that is rejected.
    refuse: fn(&Resource, &str) -> Option<MeshChange>,
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
    #[error(transparent)]
    Rules(#[from] TableError),
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
    /// What was asked for and whose resource was rejected, with the reason.
    pub refused: Vec<(Sought, String)>,
}

/// The agent's side of a delta-ADS session. It outlives streams: versions carry over a reconnect.
#[derive(Debug)]
pub struct Session {
    subscriptions: Vec<Subscription>,
    rejections: BTreeMap<String, String>,
    rejected: u64,
    sharing: Sharing,
    checks: Checks,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that holds nothing yet and wants every address, enrolled namespace, policy, revocation, route and root.
    pub fn new() -> Self {
        Self::wanting(Wanted::Everything)
    }

    /// A session that holds nothing yet and asks for no address and no service yet; of the rest it wants everything.
    pub fn by_interest() -> Self {
        Self::wanting(Wanted::Asked { answered: OrdSet::new(), unanswered: BTreeSet::new() })
    }

    fn wanting(wanted: Wanted) -> Self {
        let addresses = Subscription {
            type_url: ADDRESS_TYPE_URL,
            wanted,
            heard: || None,
            decode: decode_mesh,
            refuse: |_, _| None,
            remove: |name| match sought(&name) {
                Some(address @ Sought::Address(_)) => MeshChange::Absent(address),
                Some(Sought::Service(_)) | None => MeshChange::Remove(name),
            },
            versions: Versions::new(),
        };
        let namespaces = Subscription {
            type_url: NAMESPACE_TYPE_URL,
            wanted: Wanted::Everything,
            heard: || Some(MeshChange::Namespaces { enrolled: vec![], released: vec![] }),
            decode: decode_enrolled,
            refuse: |_, _| None,
            remove: |name| MeshChange::Namespaces { enrolled: vec![], released: vec![name.into()] },
            versions: Versions::new(),
        };
        let policies = Subscription {
            type_url: AUTHORIZATION_TYPE_URL,
            wanted: Wanted::Everything,
            heard: || Some(MeshChange::Policies),
            decode: decode_policy,
            refuse: refuse_policy,
            // What is no policy's name never was one of ours.
            remove: |name| name.parse().map_or(MeshChange::Policies, MeshChange::PolicyGone),
            versions: Versions::new(),
        };
        let revocations = Subscription {
            type_url: REVOCATIONS_TYPE_URL,
            wanted: Wanted::Everything,
            heard: || None,
            decode: decode_revoked,
            refuse: |_, _| None,
            remove: |_| MeshChange::Revoked(OrdSet::new()),
            versions: Versions::new(),
        };
        let traffic = Subscription {
            type_url: TRAFFIC_TYPE_URL,
            wanted: Wanted::Everything,
            heard: || None,
            decode: decode_routes,
            refuse: refuse_routes,
            remove: MeshChange::TrafficGone,
            versions: Versions::new(),
        };
        let trust = Subscription {
            type_url: TRUST_TYPE_URL,
            wanted: Wanted::Everything,
            heard: || None,
            decode: decode_trusted,
            refuse: |_, _| None,
            // A controller that says nothing of it changes nothing.
            remove: MeshChange::Remove,
            versions: Versions::new(),
        };
        // Routes before addresses: a server answers in this order, and whoever knows a service knows its rules then, though
        // nobody waits for a server that has none.
        Self {
            subscriptions: vec![traffic, addresses, namespaces, policies, revocations, trust],
            rejections: BTreeMap::new(),
            rejected: 0,
            sharing: Sharing::default(),
            checks: Checks::default(),
        }
    }

    /// The requests that open a new stream: per type, what is wanted and which versions are held.
    pub fn on_connect(&self) -> Vec<DeltaDiscoveryRequest> {
        self.subscriptions.iter().flat_map(Subscription::first_requests).collect()
    }

    /// Asks for what has these addresses and names. The request to send; none when everything is wanted anyhow.
    pub fn ask(&mut self, all: &[Sought]) -> Option<DeltaDiscoveryRequest> {
        let (answered, unanswered) = self.asked_mut()?;
        for one in all {
            answered.remove(one);
            unanswered.insert(one.clone());
        }
        Some(request(ADDRESS_TYPE_URL, all.iter().map(name_of).collect(), Vec::new()))
    }

    /// Asks for these no more. The request to send.
    pub fn leave(&mut self, all: &[Sought]) -> Option<DeltaDiscoveryRequest> {
        let (answered, unanswered) = self.asked_mut()?;
        for one in all {
            answered.remove(one);
            unanswered.remove(one);
        }
        Some(request(ADDRESS_TYPE_URL, Vec::new(), all.iter().map(name_of).collect()))
    }

    /// What the controller has answered for; None when everything is wanted.
    pub fn answered(&self) -> Option<&OrdSet<Sought>> {
        self.subscriptions.iter().find_map(|subscription| match &subscription.wanted {
            Wanted::Asked { answered, .. } => Some(answered),
            Wanted::Everything => None,
        })
    }

    /// Takes in what an earlier run of the agent had saved: also what was asked for stands in there.
    pub fn on_saved(&mut self, saved: DeltaDiscoveryResponse) -> Outcome {
        if let Some((answered, _)) = self.asked_mut() {
            let aliases = saved.resources.iter().filter_map(|bytes| decode_envelope(bytes.clone()).ok());
            let aliases = aliases.flat_map(|resource| resource.aliases);
            answered.extend(aliases.chain(saved.removed_resources.clone()).filter_map(|name| sought(&name)));
        }
        self.on_response(saved)
    }

    /// Takes a response in and says what to apply and what to answer.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Outcome {
        let DeltaDiscoveryResponse { resources, type_url, nonce, removed_resources, .. } = response;
        let mut changes = Vec::with_capacity(resources.len() + removed_resources.len());
        let (mut rejected, mut refused) = (Vec::new(), Vec::new());
        let subscription =
            self.subscriptions.iter_mut().find(|subscription| subscription.type_url == type_url);
        if let Some(subscription) = subscription {
            changes.extend((subscription.heard)());
            for resource in resources {
                let resource = match decode_envelope(resource) {
                    Ok(resource) => resource,
                    Err(error) => {
                        rejected.push(Rejection { resource: NAMELESS.to_owned(), reason: error.to_string() });
                        continue;
                    }
                };
                let decoded = (subscription.decode)(&resource)
                    .and_then(|change| usable(change, &self.checks))
                    .map_err(|reason| reason.to_string());
                let names = resource.aliases.iter().chain([&resource.name]);
                let asked = subscription.answers(names, decoded.is_ok());
                for one in &asked {
                    if let Err(reason) = &decoded {
                        let one = one.clone();
                        // Something has it: that nothing had it is over.
                        changes.push(MeshChange::Forget(one.clone()));
                        refused.push((one, reason.clone()));
                    }
                }
                match decoded {
                    Ok(mut change) => {
                        self.rejections.remove(&resource.name);
                        let name =
                            share(&mut change, &mut self.sharing).unwrap_or_else(|| resource.name.into());
                        subscription.versions.insert(name, resource.version.into());
                        changes.push(change);
                        changes.extend(asked.into_iter().map(MeshChange::Told));
                    }
                    Err(reason) => {
                        changes.extend((subscription.refuse)(&resource, &reason));
                        rejected.push(Rejection { resource: resource.name, reason });
                    }
                }
            }
            for name in removed_resources {
                self.rejections.remove(&name);
                subscription.versions.remove(name.as_str());
                let asked = subscription.answers([&name], true);
                let change = (subscription.remove)(name);
                // Not followed any more when the word came: whoever gets the address later will not be told.
                let is_stale = matches!(change, MeshChange::Absent(_)) && asked.is_empty();
                changes.extend(Some(change).filter(|_| !is_stale));
                // What was asked for by its own name is gone with the resource, and that is the answer.
                let services = asked.into_iter().filter(|one| matches!(one, Sought::Service(_)));
                changes.extend(services.map(MeshChange::Absent));
            }
        } else {
            let reason = format!("{type_url:?} was not subscribed to");
            rejected.extend(resources.into_iter().map(|resource| Rejection {
                resource: decode_envelope(resource).map_or_else(|_| NAMELESS.to_owned(), |r| r.name),
                reason: reason.clone(),
            }));
        }
        self.remember(&rejected);
        let request = DeltaDiscoveryRequest {
            type_url,
            response_nonce: nonce,
            error_detail: nack(&rejected),
            ..Default::default()
        };
        Outcome { changes, request, rejected, refused }
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

    fn asked_mut(&mut self) -> Option<(&mut OrdSet<Sought>, &mut BTreeSet<Sought>)> {
        self.subscriptions.iter_mut().find_map(|subscription| match &mut subscription.wanted {
            Wanted::Asked { answered, unanswered } => Some((answered, unanswered)),
            Wanted::Everything => None,
        })
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

impl Subscription {
    fn first_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        let (subscribe, unsubscribe, then) = match &self.wanted {
            Wanted::Everything => (Vec::new(), Vec::new(), None),
            Wanted::Asked { answered, unanswered } => {
                let names: Vec<_> = answered.iter().map(name_of).collect();
                let then: Vec<_> = unanswered.iter().map(name_of).collect();
                let then = (!then.is_empty()).then(|| request(self.type_url, then, Vec::new()));
                // There are no words for "nothing yet"; this is how ztunnel says it.
                let nothing = || vec![WILDCARD.to_owned()];
                if names.is_empty() { (nothing(), nothing(), then) } else { (names, Vec::new(), then) }
            }
        };
        let versions = self.versions.iter().map(|(name, version)| (name.to_string(), version.to_string()));
        let first = DeltaDiscoveryRequest {
            initial_resource_versions: versions.collect(),
            ..request(self.type_url, subscribe, unsubscribe)
        };
        std::iter::once(first).chain(then).collect()
    }

    /// What was asked for among these names; with a good resource it is answered.
    fn answers<'n>(&mut self, names: impl IntoIterator<Item = &'n String>, good: bool) -> Vec<Sought> {
        let Wanted::Asked { answered, unanswered } = &mut self.wanted else { return Vec::new() };
        let asked: Vec<Sought> = names
            .into_iter()
            .filter_map(|name| sought(name))
            .filter(|one| answered.contains(one) || unanswered.contains(one))
            .collect();
        for one in &asked {
            if good {
                unanswered.remove(one);
                answered.insert(one.clone());
            } else {
                answered.remove(one);
                unanswered.insert(one.clone());
            }
        }
        asked
    }
}

/// What can be read can be applied, too: rules that cannot be compiled are found here, while the last good ones are in force.
fn usable(change: MeshChange, checks: &Checks) -> Result<MeshChange, RejectionReason> {
    if let MeshChange::Traffic(traffic) = &change {
        check(traffic, checks)?;
    }
    Ok(change)
}

/// Keeps once what a workload has in common with others, and its name, which the versions need too.
fn share(change: &mut MeshChange, sharing: &mut Sharing) -> Option<Arc<str>> {
    let MeshChange::Workload(workload) = change else { return None };
    if let Some(workload) = Arc::get_mut(workload) {
        sharing.share(workload);
    }
    Some(workload.uid.0.clone())
}

fn request(type_url: &str, subscribe: Vec<String>, unsubscribe: Vec<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: subscribe,
        resource_names_unsubscribe: unsubscribe,
        ..Default::default()
    }
}

/// The name by which something is asked for: an alias of what has an address of our network, or a service's own.
pub(super) fn name_of(sought: &Sought) -> String {
    match sought {
        Sought::Address(ip) => format!("/{ip}"),
        Sought::Service(name) => name.to_string(),
    }
}

/// What may be asked for by that name. A workload's name looks like a service's, and nobody asks for one.
fn sought(name: &str) -> Option<Sought> {
    match name.split_once('/')? {
        ("", ip) => Some(ip.parse::<IpAddr>().ok()?.into()),
        (namespace, hostname) => {
            Some(ServiceName { namespace: namespace.into(), hostname: hostname.into() }.into())
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

fn decode_policy(resource: &Resource) -> Result<MeshChange, RejectionReason> {
    let policy = decode_authorization(content(resource, AUTHORIZATION_TYPE_URL)?)?;
    let name = policy.name.to_string();
    if name != resource.name {
        return Err(RejectionReason::Name(name));
    }
    Ok(MeshChange::Policy(Arc::new(policy)))
}

fn decode_revoked(resource: &Resource) -> Result<MeshChange, RejectionReason> {
    if resource.name != REVOCATIONS {
        return Err(RejectionReason::Name(REVOCATIONS.to_owned()));
    }
    let revoked = decode_revocations(content(resource, REVOCATIONS_TYPE_URL)?)?;
    Ok(MeshChange::Revoked(revoked.into_iter().collect()))
}

fn decode_routes(resource: &Resource) -> Result<MeshChange, RejectionReason> {
    let traffic = decode_traffic(content(resource, TRAFFIC_TYPE_URL)?)?;
    let name = traffic_name(&traffic.service);
    if name != resource.name {
        return Err(RejectionReason::Name(name));
    }
    Ok(MeshChange::Traffic(Arc::new(traffic)))
}

fn decode_trusted(resource: &Resource) -> Result<MeshChange, RejectionReason> {
    if resource.name != TRUST {
        return Err(RejectionReason::Name(TRUST.to_owned()));
    }
    Ok(MeshChange::Trust(Arc::new(decode_trust(content(resource, TRUST_TYPE_URL)?)?)))
}

/// A policy that is not understood may be one that forbids: its place is kept.
fn refuse_policy(resource: &Resource, why: &str) -> Option<MeshChange> {
    let name: PolicyName = resource.name.parse().ok()?;
    let content = content(resource, AUTHORIZATION_TYPE_URL).unwrap_or_default();
    // No bytes at all would read as a policy for everybody.
    let scope = scope_of_authorization(content).filter(|_| !content.is_empty());
    Some(MeshChange::PolicyRefused(name, Refused { scope, why: why.into(), content: content.into() }))
}

/// Rules that are not understood may ask for TLS, or forbid: nothing goes to their service until they are.
fn refuse_routes(resource: &Resource, why: &str) -> Option<MeshChange> {
    let (namespace, hostname) = resource.name.split_once('/')?;
    let service = ServiceName { namespace: namespace.into(), hostname: hostname.into() };
    let refused = Some(why.into());
    Some(MeshChange::TrafficRefused(Arc::new(Traffic { service, tables: vec![], policies: vec![], refused })))
}
