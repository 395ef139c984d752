//! What happens to the traffic that is sent to a service: routes and policies, as all front ends (VirtualService,
//! DestinationRule, the Gateway API's routes) come to one form.
//!
//! Pure data. What depends on the objects of a cluster alone is settled by whoever makes it: names are full, the order of
//! rules is the order in which they are tried, a broken reference says why it is broken. What depends on who calls stays
//! open: tables, rules and policies name their [`Clients`], and the client's node picks.
//!
//! ```text
//!   Traffic of a service
//!     tables: the first that holds the client and the port decides alone      -> Http / Tls / Tcp rules -> Backend
//!     policies: the first that holds the client is the DestinationRule of it  -> Backend's subset, balancer, pool ...
//! ```

mod http;
mod l4;
mod policy;
#[cfg(feature = "rules")]
pub mod values;

pub use http::{
    Cors, Fault, FaultAbort, FaultDelay, Forward, HeaderChange, HeaderChanges, HeaderMatch, HttpAction,
    HttpMatch, HttpRule, Mirror, PathChange, PathMatch, QueryMatch, Redirect, RedirectPort, Reply, Retries,
    RetryOn, Rewrite, TextMatch,
};
pub use l4::{TcpMatch, TcpRule, TlsMatch, TlsRule};
pub use policy::{
    Balancer, ConnectionPool, HashKey, HashRing, LocalityBalancing, LocalityShare, Outliers, PortPolicy,
    RegionFailover, ScopedPolicy, SimpleBalancer, Subset, TlsMode, TlsOrigination, TrafficPolicy, Warmup,
};

use super::ServiceName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Labels that all have to be there, with these values.
pub type Selector = BTreeMap<Arc<str>, Arc<str>>;

/// Everything that is said about the traffic to one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// The service, as clients address it.
    pub service: ServiceName,
    /// In order: the first that holds the client and the port decides, and no other is asked.
    #[serde(default)]
    pub tables: Vec<RouteTable>,
    /// In order: the first that holds the client is in force for connections to this service, however they were routed to it.
    #[serde(default)]
    pub policies: Vec<ScopedPolicy>,
    /// Why nobody knows what is said: an agent's stand-in for what it cannot read. Nothing goes to the service meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Arc<str>>,
}

impl Traffic {
    /// Everything to which its rules may send, copies included. The same one may come several times.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.tables.iter().flat_map(|table| table.rules.destinations())
    }
}

/// An object of the cluster, for people: `VirtualService shop/reviews`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    /// Kind, as in manifests.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Which clients something is for; the default is for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Clients of these namespaces; none: of every namespace.
    pub namespaces: Option<Vec<Arc<str>>>,
    /// Clients with these labels.
    pub labels: Selector,
}

impl Clients {
    /// Whether a client of this namespace, with these labels, is among them.
    pub fn hold(&self, namespace: &str, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        self.namespaces.as_ref().is_none_or(|all| all.iter().any(|one| **one == *namespace))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Whose rules hold where the front ends differ (reference: VirtualService beside HTTPRoute).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteApi {
    /// A VirtualService: an unknown backend is 503 (`NC`), no rule is 404.
    Istio,
    /// HTTPRoute, GRPCRoute, TLSRoute, TCPRoute: an unknown backend is 500, no rule is 404 (gRPC: UNIMPLEMENTED).
    Gateway,
}

/// Rules of one API for the clients and ports of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// For whom.
    #[serde(default)]
    pub clients: Clients,
    /// For these ports of the service; none: for every port.
    #[serde(default)]
    pub ports: Option<Vec<u16>>,
    /// Whose rules they are.
    pub api: RouteApi,
    /// The objects it was made of.
    pub objects: Vec<ObjectName>,
    /// The rules.
    pub rules: Rules,
}

/// Rules by what has to be understood of a connection to apply them.
///
/// A VirtualService has lists of each kind, of which the port's protocol picks one; a route of the Gateway API has one kind,
/// and its presence makes that the protocol of the port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// For requests, in the order in which they are tried. None: the table says nothing about HTTP.
    pub http: Option<Vec<HttpRule>>,
    /// Whether `http` are rules of GRPCRoutes: what fails is answered in gRPC's own way.
    pub grpc: bool,
    /// For TLS that is passed on as it is, by server name.
    pub tls: Option<Vec<TlsRule>>,
    /// For any connection.
    pub tcp: Option<Vec<TcpRule>>,
}

impl Rules {
    fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let forwards = self.http.iter().flatten().filter_map(|rule| match &rule.action {
            HttpAction::Forward(forward) => Some(forward),
            HttpAction::Redirect(_) | HttpAction::Reply(_) => None,
        });
        let of_http = forwards.flat_map(|forward| {
            let of_backends = forward.backends.iter().flat_map(|backend| backend.mirrors.iter());
            let copies = forward.mirrors.iter().chain(of_backends).map(|mirror| &mirror.to);
            forward.backends.iter().map(|backend| &backend.to).chain(copies)
        });
        let of_tls = self.tls.iter().flatten().flat_map(|rule| rule.backends.iter());
        let of_tcp = self.tcp.iter().flatten().flat_map(|rule| rule.backends.iter());
        of_http.chain(of_tls.chain(of_tcp).map(|backend| &backend.to))
    }
}

/// One way out of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Where to.
    pub to: Destination,
    /// Its share of the sum of all weights of the rule. The only backend of an Istio rule has weight 1 whatever it says.
    pub weight: u32,
    /// Changes of the request, after the rule's own (HTTP only).
    #[serde(default)]
    pub request_headers: HeaderChanges,
    /// Changes of the response, after the rule's own (HTTP only).
    #[serde(default)]
    pub response_headers: HeaderChanges,
    /// Instead of the rule's (HTTP only, Gateway API).
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    /// Instead of forwarding (HTTP only, Gateway API: a redirect among a backend's filters).
    #[serde(default)]
    pub redirect: Option<Redirect>,
    /// Beside the rule's (HTTP only, Gateway API).
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
}

/// A service as the target of a route, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Destination {
    /// The endpoints of a service. Its own routes are not asked again.
    Service {
        /// The service.
        service: ServiceName,
        /// The service's port.
        port: u16,
        /// The subset of the destination's policy (DestinationRule), if one is named. That it exists for the client is seen when
        /// it is used: policies depend on the client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subset: Option<Arc<str>>,
    },
    /// A reference to nothing: its share of requests fails (500, Istio: 503).
    Broken {
        /// What was named, for people.
        wanted: Arc<str>,
        /// Why it leads nowhere, for people.
        why: Arc<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_destination_of_every_kind_of_rule_is_named() {
        use serde_json::{Value, json};
        let service = |name: &str| json!({ "namespace": "shop", "hostname": name });
        let to = |name: &str| json!({ "service": { "service": service(name), "port": 80 } });
        let backend = |name: &str| json!({ "to": to(name), "weight": 1 });
        let mirror = |name: &str| json!({ "to": to(name), "per_million": 1 });
        let mut copied = backend("backend");
        copied["mirrors"] = json!([mirror("its-mirror")]);
        let forward = json!({ "forward": { "backends": [copied], "mirrors": [mirror("mirror")] } });
        let reply = json!({ "reply": { "status": 299 } });
        let http = json!([{ "name": "r", "action": forward }, { "name": "r", "action": reply }]);
        let tls = json!([{ "matches": [], "backends": [backend("tls")] }]);
        let broken = json!({ "to": { "broken": { "wanted": "x", "why": "y" } }, "weight": 1 });
        let tcp = json!([{ "backends": [backend("tcp"), broken] }]);
        let table = |rules: &Value| json!({ "api": "istio", "objects": [], "rules": rules });
        let tables = [table(&json!({ "http": http })), table(&json!({ "tls": tls, "tcp": tcp }))];
        let traffic = json!({ "service": service("web"), "tables": tables });
        let traffic: Traffic = serde_json::from_value(traffic).unwrap();
        let names: Vec<&str> = traffic
            .destinations()
            .map(|to| match to {
                Destination::Service { service, .. } => &*service.hostname,
                Destination::Broken { wanted, .. } => &**wanted,
            })
            .collect();
        assert_eq!(names, ["backend", "mirror", "its-mirror", "tls", "tcp", "x"]);
    }

    #[test]
    fn clients_are_held_by_namespace_and_labels() {
        let labels = BTreeMap::from([("app".into(), "web".into()), ("tier".into(), "front".into())]);
        assert!(Clients::default().hold("shop", &labels));
        let of_shop = Clients { namespaces: Some(vec!["shop".into()]), ..Clients::default() };
        assert!(of_shop.hold("shop", &labels) && !of_shop.hold("bank", &labels));
        let web = Clients { labels: BTreeMap::from([("app".into(), "web".into())]), ..of_shop };
        assert!(web.hold("shop", &labels) && !web.hold("shop", &BTreeMap::new()));
        let nobody = Clients { namespaces: Some(vec![]), ..Clients::default() };
        assert!(!nobody.hold("shop", &labels));
    }
}
