//! VirtualServices and DestinationRules, as they are written: names are not full yet, references not resolved.

use super::{Created, FieldNote, Map, Name};
use std::sync::Arc;
use warren_common::model::traffic::{
    Cors, Fault, HeaderChanges, HttpMatch, Redirect, Reply, Retries, Rewrite, Subset, TlsMatch, TrafficPolicy,
};

/// The gateway that means every client of the mesh.
pub const MESH: &str = "mesh";

/// A `networking.istio.io/VirtualService`.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Namespace and name.
    pub name: Name,
    /// Of several for one host, the oldest counts.
    pub created: Created,
    /// Names that clients address, in lower case; none: other VirtualServices delegate to it.
    pub hosts: Vec<Arc<str>>,
    /// Where the rules apply: `mesh`, or `namespace/name` of gateways.
    pub gateways: Vec<Arc<str>>,
    /// Namespaces that it is for; none: all of them.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// For requests.
    pub http: Vec<HttpRoute>,
    /// For TLS that is passed on.
    pub tls: Vec<L4Route>,
    /// For connections.
    pub tcp: Vec<L4Route>,
    /// What is to be said about its fields.
    pub notes: Vec<FieldNote>,
}

/// A rule of `spec.http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// Its name, may be empty.
    pub name: Arc<str>,
    /// Alternatives; none: every request.
    pub matches: Vec<Matching<HttpMatch>>,
    /// What happens.
    pub action: RouteAction,
    /// What the request asks for there.
    pub rewrite: Option<Rewrite>,
    /// Milliseconds.
    pub timeout_ms: Option<u64>,
    /// Which requests are tried again.
    pub retries: Option<Retries>,
    /// Trouble made on purpose.
    pub fault: Option<Fault>,
    /// Copies.
    pub mirrors: Mirrors,
    /// Who may read the response in a browser.
    pub cors: Option<Cors>,
    /// Changes of headers; none: the rule says nothing of them.
    pub headers: Option<Headers>,
}

/// `headers` of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Changes of the request.
    pub request: HeaderChanges,
    /// Changes of the response.
    pub response: HeaderChanges,
}

/// `mirror`, `mirrorPercentage` and `mirrors`: what a delegate does not say of them, each for itself, is its root's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// `mirror`: where to.
    pub one: Option<Target>,
    /// `mirrorPercentage`: for how many of a million; none: for all.
    pub share: Option<u32>,
    /// `mirrors`: where to, and for how many of a million.
    pub several: Vec<(Target, u32)>,
}

impl Mirrors {
    /// Every request, in parts of a million.
    pub const ALL: u32 = 1_000_000;

    /// Where copies go to, and for how many of a million requests: never none.
    pub fn sent(&self) -> impl Iterator<Item = (&Target, u32)> {
        let share = self.share.unwrap_or(Self::ALL);
        let one = self.one.iter().map(move |to| (to, share));
        let several = self.several.iter().map(|(to, share)| (to, *share));
        one.chain(several).filter(|(_, share)| *share > 0)
    }

    /// Every destination that is named.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.one.iter().chain(self.several.iter().map(|(to, _)| to))
    }

    /// The same, to be changed.
    pub fn targets_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        self.one.iter_mut().chain(self.several.iter_mut().map(|(to, _)| to))
    }
}

/// A match and the gateways that it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching<M> {
    /// As of the VirtualService, which it replaces; empty: that one's.
    pub gateways: Vec<Arc<str>>,
    /// The conditions.
    pub when: M,
    /// It asks for what cannot be known here, and never holds.
    pub never: bool,
}

/// What a rule of `spec.http` does.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteAction {
    /// It sends on.
    Forward(Vec<Weighted>),
    /// It sends the client elsewhere.
    Redirect(Redirect),
    /// It answers.
    Reply(Reply),
    /// Another VirtualService has the rules.
    Delegate(Name),
}

/// A rule of `spec.tls` or `spec.tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct L4Route {
    /// Alternatives; none: every connection. Server names are of TLS only.
    pub matches: Vec<Matching<TlsMatch>>,
    /// Where to.
    pub backends: Vec<Weighted>,
}

/// A destination and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Where to.
    pub to: Target,
    /// Its share of the sum.
    pub weight: u32,
    /// Changes of the request.
    pub request_headers: HeaderChanges,
    /// Changes of the response.
    pub response_headers: HeaderChanges,
}

/// A destination as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A host, short or full, in lower case.
    pub host: Arc<str>,
    /// A subset of its DestinationRule.
    pub subset: Option<Arc<str>>,
    /// A port of its service; none: the only one, or the one that the client addressed.
    pub port: Option<u16>,
}

/// A `networking.istio.io/DestinationRule`.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// Namespace and name.
    pub name: Name,
    /// Of several for one host, the oldest counts.
    pub created: Created,
    /// The host that it is for: short, full, or `*` and a suffix; in lower case.
    pub host: Arc<str>,
    /// Namespaces that it is for; none: all of them.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// Labels of its namespace's clients that it is for; none: it is not about clients.
    pub clients: Option<Map>,
    /// Of the whole host; none: it says nothing.
    pub policy: Option<TrafficPolicy>,
    /// Parts of the endpoints.
    pub subsets: Vec<Subset>,
    /// What is to be said about its fields.
    pub notes: Vec<FieldNote>,
}

impl VirtualService {
    /// Whether it is for clients in the mesh, and not for gateways alone.
    pub fn is_of_mesh(&self) -> bool {
        self.gateways.iter().any(|gateway| **gateway == *MESH)
    }

    /// Every destination that it names, mirrors included.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let http = self.http.iter().flat_map(|route| {
            let backends = match &route.action {
                RouteAction::Forward(backends) => backends.as_slice(),
                _ => &[],
            };
            backends.iter().map(|backend| &backend.to).chain(route.mirrors.targets())
        });
        let l4 = self.tls.iter().chain(&self.tcp).flat_map(|route| &route.backends);
        http.chain(l4.map(|backend| &backend.to))
    }

    /// The VirtualServices that its rules delegate to.
    pub fn delegates(&self) -> impl Iterator<Item = &Name> {
        self.http.iter().filter_map(|route| match &route.action {
            RouteAction::Delegate(name) => Some(name),
            _ => None,
        })
    }
}
