//! The Gateway API's routes, as they are written.

use super::{Created, FieldNote, Kind, Name};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};
use warren_common::model::traffic::{Cors, HeaderChanges, HttpMatch, Redirect, Retries, Rewrite};

/// An HTTPRoute, GRPCRoute, TLSRoute or TCPRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which of them.
    pub kind: Kind,
    /// Namespace and name.
    pub name: Name,
    /// Among equals, the oldest comes first.
    pub created: Created,
    /// `metadata.generation`, for status.
    pub generation: i64,
    /// What it is attached to.
    pub parents: Vec<ParentRef>,
    /// Only for gateways: in the mesh, the service is the name. TLSRoutes need some.
    pub hostnames: Vec<Arc<str>>,
    /// The rules; none: what stands here is only who it is for, the rest can't be used.
    pub rules: Vec<RouteRule>,
    /// A value that is not known, or can't be used: the route is not accepted.
    pub unsupported: Option<String>,
    /// A newer version of it, which can't be used: this one stays.
    pub newer: Option<Refused>,
    /// What is to be said about its fields.
    pub notes: Vec<FieldNote>,
}

/// A version of an object that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its `metadata.generation`.
    pub generation: i64,
    /// Why.
    pub why: String,
}

/// A reference to what a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// API group, empty for the core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// As it is written; none: the route's own.
    pub namespace: Option<Arc<str>>,
    /// Name.
    pub name: Arc<str>,
    /// The name of a listener, or of a service's port.
    pub section: Option<Arc<str>>,
    /// The number of a port.
    pub port: Option<u16>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteRule {
    /// Its name, may be empty.
    pub name: Arc<str>,
    /// Alternatives; none: everything. HTTP and gRPC only.
    pub matches: Vec<RankedMatch>,
    /// What happens beside forwarding.
    pub filters: Filters,
    /// Where to.
    pub backends: Vec<BackendRef>,
    /// Milliseconds for everything.
    pub timeout_ms: Option<u64>,
    /// Milliseconds for one try.
    pub per_try_ms: Option<u64>,
    /// Which requests are tried again.
    pub retries: Option<Retries>,
}

/// A match and its rank: where it stands among all matches of all routes of a service, higher ones first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankedMatch {
    /// The conditions.
    pub when: HttpMatch,
    /// Compared from left to right.
    pub rank: [usize; 5],
}

/// A match and where it is written.
#[derive(Clone, Copy, Debug)]
pub struct PlacedMatch<'a> {
    /// The place of its rule in the route.
    pub rule: usize,
    /// Its place in the rule; none: the rule is written without matches.
    pub place: Option<usize>,
    /// The match.
    pub ranked: &'a RankedMatch,
}

/// Filters of a rule or of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    /// Changes of the request.
    pub request_headers: HeaderChanges,
    /// Changes of the response.
    pub response_headers: HeaderChanges,
    /// Another host and path.
    pub rewrite: Option<Rewrite>,
    /// Instead of forwarding.
    pub redirect: Option<Redirect>,
    /// Copies: where to, of how many of a million.
    pub mirrors: Vec<(BackendRef, u32)>,
    /// Who may read the response in a browser.
    pub cors: Option<Cors>,
    /// A filter that cannot be applied: what it is for fails.
    pub broken: Option<String>,
}

/// A reference to where traffic goes.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendRef {
    /// API group, empty for the core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// None: the route's own.
    pub namespace: Option<Arc<str>>,
    /// Name.
    pub name: Arc<str>,
    /// A port of the service.
    pub port: Option<u16>,
    /// Its share of the sum.
    pub weight: u32,
    /// Filters of its own.
    pub filters: Box<Filters>,
}

/// Objects that may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// API group, empty for the core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// API group, empty for the core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// None: all of them.
    pub name: Option<Arc<str>>,
}

/// A `gateway.networking.k8s.io/ReferenceGrant`: who may refer to objects of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Namespace and name.
    pub name: Name,
    /// Those who refer.
    pub from: Vec<GrantFrom>,
    /// What they refer to.
    pub to: Vec<GrantTo>,
    /// What is to be said about its fields.
    pub notes: Vec<FieldNote>,
}

impl Route {
    /// Whether nothing of it can be used.
    pub fn is_unread(&self) -> bool {
        self.rules.is_empty()
    }

    /// Services of Kubernetes that it is attached to.
    pub fn services(&self) -> impl Iterator<Item = (Name, &ParentRef)> {
        let services = self.parents.iter().filter(|parent| parent.is_service());
        services.map(|parent| (parent.service(&self.name.namespace), parent))
    }

    /// Every match of a route of requests, in the order in which they are written. A rule without matches has one for everything.
    pub fn matches(&self) -> impl Iterator<Item = PlacedMatch<'_>> {
        let kind = self.kind;
        let is_of_requests = matches!(kind, Kind::HTTPRoute | Kind::GRPCRoute);
        let rules = self.rules.iter().enumerate().filter(move |_| is_of_requests);
        rules.flat_map(move |(rule, RouteRule { matches, .. })| {
            let written = matches.iter().enumerate();
            let written =
                written.map(move |(place, ranked)| PlacedMatch { rule, place: Some(place), ranked });
            let everything = PlacedMatch { rule, place: None, ranked: RankedMatch::everything(kind) };
            written.chain(matches.is_empty().then_some(everything))
        })
    }

    /// Every reference to where traffic goes, mirrors included.
    pub fn targets(&self) -> impl Iterator<Item = &BackendRef> {
        self.rules.iter().flat_map(|rule| {
            let of_backends = rule.backends.iter().flat_map(|backend| &backend.filters.mirrors);
            let mirrors = rule.filters.mirrors.iter().chain(of_backends).map(|(to, _)| to);
            rule.backends.iter().chain(mirrors)
        })
    }
}

impl PlacedMatch<'_> {
    /// The field that it stands in.
    pub fn path(&self) -> String {
        let Self { rule, place, .. } = self;
        match place {
            None => format!("spec.rules[{rule}]"),
            Some(place) => format!("spec.rules[{rule}].matches[{place}]"),
        }
    }
}

/// An HTTPRoute's default is the prefix `/`.
static EVERYTHING_OF_HTTP: LazyLock<RankedMatch> =
    LazyLock::new(|| RankedMatch { rank: [1, 1, 0, 0, 0], ..RankedMatch::default() });
static EVERYTHING_OF_GRPC: LazyLock<RankedMatch> = LazyLock::new(RankedMatch::default);

impl RankedMatch {
    /// What a rule without matches has.
    pub fn everything(kind: Kind) -> &'static Self {
        match kind {
            Kind::GRPCRoute => &EVERYTHING_OF_GRPC,
            _ => &EVERYTHING_OF_HTTP,
        }
    }

    /// Whether it holds the same requests, with the same rank. The order of headers and of parameters does not count.
    pub fn is_same(&self, other: &Self) -> bool {
        // Most differ in these already.
        let is_alike = self.rank == other.rank && self.when.path == other.when.path;
        is_alike && self.ordered() == other.ordered()
    }

    /// Equal for what is the same, and hardly ever for anything else.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.rank.hash(&mut hasher);
        self.ordered().hash(&mut hasher);
        hasher.finish()
    }

    /// The conditions in an order that does not hinge on how they are written; no name is there twice.
    fn ordered(&self) -> HttpMatch {
        let mut when = self.when.clone();
        when.headers.sort_by(|one, other| one.name.cmp(&other.name));
        when.query.sort_by(|one, other| one.name.cmp(&other.name));
        when
    }
}

impl ParentRef {
    /// Whether it means a service of Kubernetes.
    pub fn is_service(&self) -> bool {
        self.group.is_empty() && *self.kind == *"Service"
    }

    /// The service it means, in a route of the namespace `own`.
    pub fn service(&self, own: &Arc<str>) -> Name {
        Name::new(self.namespace.as_ref().unwrap_or(own).clone(), self.name.clone())
    }
}

impl BackendRef {
    /// The service it means, in a route of the namespace `own`; none when it is of another kind.
    pub fn service(&self, own: &Arc<str>) -> Option<Name> {
        let is_service = self.group.is_empty() && *self.kind == *"Service";
        is_service.then(|| Name::new(self.namespace.as_ref().unwrap_or(own).clone(), self.name.clone()))
    }
}
