//! The server's side of delta ADS for one client. Sans-IO: requests go in, responses come out.
//!
//! ```text
//!                     request (first of a type)
//!   per type:  unknown ----------------------------> idle
//!              idle --poll: something differs------> in flight (nonce n)
//!              in flight --ACK n / NACK n----------> idle
//!              in flight --any other nonce---------> in flight (only the subscription changes)
//! ```
//!
//! While a response is in flight changes gather in the table; the next response carries their sum. A resource that
//! was rejected counts as sent: it goes out again when it changes, not before.
//!
//! A client subscribes in one of two ways. To *everything*: all there is to remember then is a place in the table's
//! log. Or to what it *selects* by names and aliases, none of them at first; with a service come the workloads behind
//! it, and the pods of the client's own node come unasked (as istiod does for a ztunnel that works on demand). What is
//! asked for and not there is answered as removed, stays subscribed to, and is told of when it appears.

use super::table::{Group, Resource, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_common::proto::{ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, TRAFFIC_TYPE_URL};

mod everything;
mod piece;
mod selected;
mod subscription;

use subscription::Subscription;

/// Types whose tables make up one state. Policies come first, as the order of the names has it: a reader that applies
/// each response by itself knows a policy before a workload names it. Routes come last, after what they lead to.
const ONE_STATE: [&str; 3] = [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL, TRAFFIC_TYPE_URL];
/// Types per client; a client of ours asks for a handful.
const MAX_TYPES: usize = 32;
/// Names per type that a client may ask for.
const MAX_NAMES: usize = 200_000;
/// Longest name (bytes): a uid holds a cluster, a namespace and a pod's name.
const MAX_NAME: usize = 1024;

/// What a client says, free of the wire's types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Type of the resources.
    pub type_url: String,
    /// Names or aliases to follow from now on; "*" is everything.
    pub subscribe: Vec<String>,
    /// Names not to follow any more.
    pub unsubscribe: Vec<String>,
    /// What the client still holds from an earlier connection; only in the first request of a type.
    pub initial_versions: BTreeMap<String, String>,
    /// The response it answers, or empty.
    pub nonce: String,
    /// Why it rejects that response.
    pub error: Option<String>,
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Type of the resources.
    pub type_url: String,
    /// New and changed resources.
    pub resources: Vec<(Arc<str>, Arc<Resource>)>,
    /// Names that are gone, or asked for and not there.
    pub removed: Vec<Arc<str>>,
    /// It is a part: with the next ones, also of other types, it makes a state that the tables were in.
    pub more_follows: bool,
    /// Unique within the session.
    pub nonce: String,
}

/// What a request meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It only changes the subscription.
    Subscription,
    /// The response in flight was taken.
    Ack,
    /// The response in flight was rejected.
    Nack {
        /// The client's reason.
        reason: String,
    },
    /// It answers a response that is not in flight (any more).
    Stale,
}

/// Why a session can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The type is missing.
    #[error("type_url is missing")]
    NoType,
    /// Too much of something.
    #[error("more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// So much was removed since the client last took a response that nobody remembers what.
    #[error("the client is too far behind; connect again, with initial_resource_versions")]
    Behind,
}

/// One client's connection.
#[derive(Debug)]
pub struct Session {
    types: BTreeMap<String, Subscription>,
    nonces: u64,
    max_bytes: usize,
    node: Option<Group>,
}

impl Session {
    /// A session whose responses stay below about `max_bytes` (a single larger resource goes alone).
    pub fn new(max_bytes: usize) -> Self {
        Self { types: BTreeMap::new(), nonces: 0, max_bytes, node: None }
    }

    /// The client is the agent of this node. Before the first request.
    pub fn of_node(&mut self, node: &str) {
        self.node = (!node.is_empty()).then(|| Group::Node(node.into()));
    }

    /// Takes a request in. Call [`Self::poll`] afterwards.
    ///
    /// # Errors
    /// When the client goes beyond what a client needs; the connection should end.
    pub fn on_request(&mut self, request: Request) -> Result<Event, SessionError> {
        if request.type_url.is_empty() {
            return Err(SessionError::NoType);
        }
        let names =
            || request.subscribe.iter().chain(&request.unsubscribe).chain(request.initial_versions.keys());
        if names().chain([&request.type_url]).any(|name| name.len() > MAX_NAME) {
            return Err(SessionError::Limit { what: "bytes in a name", limit: MAX_NAME });
        }
        let known = self.types.len();
        let subscription = match self.types.get_mut(&request.type_url) {
            Some(subscription) => subscription,
            None if known >= MAX_TYPES => {
                return Err(SessionError::Limit { what: "types", limit: MAX_TYPES });
            }
            None => {
                let Request { subscribe, unsubscribe, initial_versions, .. } = request;
                let subscription = Subscription::first(initial_versions, subscribe, unsubscribe);
                let subscription = self.types.entry(request.type_url).or_insert(subscription);
                // Its nonce belongs to an earlier connection.
                return limited(subscription, Event::Subscription);
            }
        };
        let event = match (request.nonce.as_str(), request.error) {
            ("", _) => Event::Subscription,
            (nonce, error) if subscription.answered(nonce) => match error {
                Some(reason) => Event::Nack { reason },
                None => Event::Ack,
            },
            _ => Event::Stale,
        };
        subscription.change(request.subscribe, request.unsubscribe);
        limited(subscription, event)
    }

    /// The next response that is due, if any. `table_of` gives the table of a type; an unknown type is empty.
    ///
    /// # Errors
    /// [`SessionError::Behind`]; the connection should end.
    pub fn poll<'t>(
        &mut self,
        table_of: impl Fn(&str) -> &'t Table,
    ) -> Result<Option<Response>, SessionError> {
        for (type_url, subscription) in &mut self.types {
            let polled = subscription.poll(self.node.as_ref(), table_of(type_url), self.max_bytes)?;
            let Some(piece) = polled else { continue };
            self.nonces += 1;
            let nonce = self.nonces.to_string();
            subscription.sent(nonce.clone());
            let removed = piece.removed.into_iter().collect();
            let type_url = type_url.clone();
            let more_follows = self.more_is_due(&type_url, table_of) | piece.is_full;
            return Ok(Some(Response { type_url, resources: piece.resources, removed, more_follows, nonce }));
        }
        Ok(None)
    }

    /// Whether a response of this type is only a part because another type of its state is due too, which it is then in
    /// any case: policies and the workloads that name them are applied in one step.
    fn more_is_due<'t>(&mut self, type_url: &str, table_of: impl Fn(&str) -> &'t Table) -> bool {
        let others = ONE_STATE.iter().filter(|other| **other != type_url);
        let mut is_due = false;
        for other in others.filter(|_| ONE_STATE.contains(&type_url)) {
            if let Some(subscription) = self.types.get_mut(*other) {
                is_due |= subscription.is_due(table_of(other));
            }
        }
        is_due
    }
}

fn limited(subscription: &Subscription, event: Event) -> Result<Event, SessionError> {
    if subscription.names() > MAX_NAMES {
        return Err(SessionError::Limit { what: "names", limit: MAX_NAMES });
    }
    Ok(event)
}

#[cfg(test)]
mod converge;
#[cfg(test)]
mod tests;
