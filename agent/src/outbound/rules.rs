//! Which rules are in force for the connections and requests of a pod to a service, compiled once per version of what they are
//! made of.

use super::current;
use crate::balance::{Effective, effective};
use crate::context::Context;
use crate::hash::FastMap;
use crate::interest::{Interest, Unlearned};
use crate::pods::Pod;
use crate::route::http::{ClientView, InForce, Patterns};
use crate::route::l4::L4Table;
use crate::route::{Through, headless_at, service_at};
use crate::store::{Mesh, Store};
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use warren_common::model::traffic::Traffic;
use warren_common::model::{AppProtocol, Service, ServiceName, Workload, WorkloadUid};

/// Most tables that a worker keeps.
const MAX_TABLES: usize = 4096;

/// One worker's compiled rules.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    patterns: Patterns,
    known: RefCell<FastMap<Key, Known>>,
}

type Key = (WorkloadUid, ServiceName, u16);

#[derive(Debug)]
struct Known {
    traffic: Option<Arc<Traffic>>,
    client: Arc<Workload>,
    rules: InForce,
    connections: Connections,
    // Whether the DestinationRule says something of requests.
    about_requests: bool,
}

/// What is in force for connections of a client that carry no requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    /// Their rules; none: they go to the service's own endpoints.
    pub(super) table: Option<Arc<L4Table>>,
    /// The DestinationRule of those endpoints, for people; none: it says nothing of them.
    pub(super) policy: Option<Arc<str>>,
}

/// A service of which something is said to this client.
#[derive(Clone, Debug)]
pub(super) struct Routed {
    pub(super) service: Arc<Service>,
    /// Its port: the one that was dialled, or of a service without an address the one that leads there.
    pub(super) port: u16,
    /// All services without an address that may be meant; empty: there is no other.
    pub(super) candidates: Vec<Through>,
    /// What was dialled: the service's own address, or of one that has none an endpoint's.
    pub(super) dialled: SocketAddr,
    /// Whether something is said of requests.
    pub(super) requests: Spoken,
    pub(super) connections: Connections,
}

/// Whether requests are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// They are not.
    Unheard,
    /// The port says that HTTP is spoken.
    Declared,
    /// It is to be heard whether it is.
    Undeclared,
}

impl Spoken {
    /// Of two services of which either may be meant.
    fn or_heard(self, other: Self) -> Self {
        if self == other { self } else { Self::Undeclared }
    }
}

/// What is said of connections to what was dialled; none: nothing, and nobody looks into them.
///
/// # Errors
/// Nobody here knows what was dialled, nor so whether something is said of it.
pub(super) async fn routed(
    context: &Context,
    pod: &Pod,
    dialled: SocketAddr,
) -> Result<Option<Routed>, Unlearned> {
    known(&context.node.interest, &context.node.store, dialled.ip()).await?;
    Ok(said(context, pod, dialled))
}

/// Asks who is there if nobody here has talked to it before. It is in use from now on, and so are the services that its rules
/// lead to.
async fn known(interest: &Interest, store: &Store, ip: IpAddr) -> Result<(), Unlearned> {
    interest.used(ip);
    let is_known = store.guard().knows(ip);
    if is_known { Ok(()) } else { interest.learn(store, ip).await }
}

fn said(context: &Context, pod: &Pod, dialled: SocketAddr) -> Option<Routed> {
    let client = current(context, pod);
    let mesh = context.node.store.guard();
    context.routes.said(&mesh, &client, dialled)
}

impl Routes {
    /// What is said of what was dialled.
    fn said(&self, mesh: &Mesh, client: &Arc<Workload>, dialled: SocketAddr) -> Option<Routed> {
        if let Some(service) = service_at(mesh, client, dialled.ip()) {
            return self.said_of(mesh, client, service, dialled.port(), dialled);
        }
        let said_of = |one: Through| self.said_of(mesh, client, &one.service, one.port, dialled);
        let mut each = headless_at(mesh, client, dialled).filter_map(said_of);
        let mut first = each.next()?;
        // Of several that may be meant the first decides, unless a request's host tells which it is.
        let heard = each.fold(first.requests, |all, one| all.or_heard(one.requests));
        let candidates: Vec<_> = headless_at(mesh, client, dialled).collect();
        if candidates.len() > 1 {
            (first.requests, first.candidates) = (heard, candidates);
        }
        Some(first)
    }

    fn said_of(
        &self,
        mesh: &Mesh,
        client: &Arc<Workload>,
        service: &Arc<Service>,
        port: u16,
        dialled: SocketAddr,
    ) -> Option<Routed> {
        mesh.traffic(&service.key)?;
        let protocol = service.ports.iter().find(|known| known.service_port == port)?.app_protocol;
        let declared = protocol != AppProtocol::Unknown;
        let (rules, connections, about_requests) = self.look(mesh, client, &service.key, port, |known| {
            (known.rules.clone(), known.connections.clone(), known.about_requests)
        });
        let requests = match rules {
            InForce::Rules(_) | InForce::Broken(_) if declared => Spoken::Declared,
            InForce::Rules(_) | InForce::Broken(_) => Spoken::Undeclared,
            // A route of connections makes them the protocol of the port; nobody guesses for the sake of a DestinationRule alone.
            InForce::Nothing(_) if declared && about_requests && connections.table.is_none() => {
                Spoken::Declared
            }
            InForce::Nothing(_) => Spoken::Unheard,
        };
        let says_something =
            requests != Spoken::Unheard || connections.table.is_some() || connections.policy.is_some();
        let (service, candidates) = (Arc::clone(service), Vec::new());
        says_something.then_some(Routed { service, port, candidates, dialled, requests, connections })
    }

    /// What is in force for requests of `client` to `port` of `service`.
    pub(super) fn in_force(
        &self,
        mesh: &Mesh,
        client: &Arc<Workload>,
        service: &ServiceName,
        port: u16,
    ) -> InForce {
        self.look(mesh, client, service, port, |known| known.rules.clone())
    }

    /// The same of everything, compiled if it is not yet.
    fn look<T>(
        &self,
        mesh: &Mesh,
        client: &Arc<Workload>,
        service: &ServiceName,
        port: u16,
        seen: impl FnOnce(&Known) -> T,
    ) -> T {
        let traffic = mesh.traffic(service);
        let key = (client.uid.clone(), service.clone(), port);
        if let Some(known) = self.known.borrow().get(&key)
            && known.is_of(traffic, client)
        {
            return seen(known);
        }
        let policy = policy(traffic, client, port);
        let known = Known {
            traffic: traffic.cloned(),
            client: Arc::clone(client),
            rules: self.requests(traffic, client, service, port),
            connections: connections(traffic, client, port, &policy),
            about_requests: policy.is_about_requests(),
        };
        let result = seen(&known);
        let mut all = self.known.borrow_mut();
        if all.len() >= MAX_TABLES {
            all.clear();
        }
        all.insert(key, known);
        result
    }

    fn requests(
        &self,
        traffic: Option<&Arc<Traffic>>,
        client: &Workload,
        service: &ServiceName,
        port: u16,
    ) -> InForce {
        InForce::new(traffic.map(|traffic| &**traffic), &view(client), service, port, &self.patterns)
    }
}

fn view(client: &Workload) -> ClientView<'_> {
    ClientView { namespace: &client.namespace, labels: &client.labels }
}

fn connections(
    traffic: Option<&Arc<Traffic>>,
    client: &Workload,
    port: u16,
    policy: &Effective,
) -> Connections {
    let names = || policy.objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Connections {
        table: traffic.and_then(|traffic| L4Table::compile(traffic, &view(client), port)).map(Arc::new),
        policy: match traffic.and_then(|traffic| traffic.refused.as_ref()) {
            // Where endpoints are picked it is said why there is none.
            Some(_) => Some("".into()),
            None => (!policy.is_nothing()).then(|| names().into()),
        },
    }
}

/// The DestinationRule of the service's own endpoints.
fn policy(traffic: Option<&Arc<Traffic>>, client: &Workload, port: u16) -> Effective {
    // Without a subset nothing can be missing.
    let found = traffic.and_then(|traffic| effective(traffic, &view(client), port, None).ok());
    found.unwrap_or_default()
}

impl Known {
    fn is_of(&self, traffic: Option<&Arc<Traffic>>, client: &Arc<Workload>) -> bool {
        let same = match (&self.traffic, traffic) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (None, None) => true,
            _ => false,
        };
        same && Arc::ptr_eq(&self.client, client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;
    use crate::store::MeshChange;

    #[tokio::test(start_paused = true)]
    async fn rules_that_nobody_knows_are_not_taken_for_none() {
        let (interest, store) = (Interest::asking(), Store::by_interest());
        let ip = IpAddr::from([10, 0, 0, 1]);
        assert!(known(&interest, &store, ip).await.is_err(), "nobody has answered");
        store.apply(vec![MeshChange::Absent(ip.into())]);
        known(&interest, &store, ip).await.unwrap();
    }

    #[test]
    fn what_is_not_understood_is_something() {
        let service = ServiceName { namespace: "shop".into(), hostname: "web".into() };
        let refused = Some("from the future".into());
        let traffic =
            Arc::new(Traffic { service: service.clone(), tables: vec![], policies: vec![], refused });
        let client = pod("client", "client", &[], true);
        let policy = policy(Some(&traffic), &client, 80);
        let patterns = Patterns::default();
        let requests = InForce::new(Some(&traffic), &view(&client), &service, 80, &patterns);
        assert!(matches!(requests, InForce::Broken(_)), "{requests:?}");
        assert!(connections(Some(&traffic), &client, 80, &policy).policy.is_some());
    }

    /// What is said of a service.
    #[derive(Clone, Copy, PartialEq)]
    enum Said {
        Nothing,
        Requests,
        Bytes,
    }

    fn name(short: &str) -> ServiceName {
        ServiceName { namespace: "shop".into(), hostname: format!("{short}.shop.svc.cluster.local").into() }
    }

    /// A pod at 10.0.0.1 whose port 8080 is that of these services: their names, addresses, ports and what is said of them.
    fn mesh(services: &[(&str, &str, u16, Said)]) -> Mesh {
        let mut mesh = Mesh::default();
        let mut served = std::collections::BTreeMap::new();
        for (short, address, port, said) in services {
            let addresses: Vec<&str> = Some(*address).filter(|ip| !ip.is_empty()).into_iter().collect();
            let service = serde_json::json!({
                "name": short, "key": name(short), "addresses": addresses, "publish_not_ready": false,
                "ports": [{"service_port": port, "target_port": 8080, "target_port_name": null, "app_protocol": "unknown"}],
            });
            mesh.apply([MeshChange::Service(Arc::new(serde_json::from_value(service).unwrap()))]);
            let rule = serde_json::json!({"name": "r", "action": {"reply": {"status": 299}}});
            let http = serde_json::json!([{"api": "istio", "objects": [], "ports": [port], "rules": {"http": [rule]}}]);
            let pool = serde_json::json!([{"objects": [], "subsets": [], "policy": {"all": {"pool": {"max_connections": 1}}}}]);
            let none = serde_json::json!([]);
            let (tables, policies) = match said {
                Said::Nothing => (&none, &none),
                Said::Requests => (&http, &none),
                Said::Bytes => (&none, &pool),
            };
            let traffic = serde_json::json!({"service": name(short), "tables": tables, "policies": policies});
            mesh.apply([MeshChange::Traffic(Arc::new(serde_json::from_value(traffic).unwrap()))]);
            let mapping = warren_common::model::PortMapping { service_port: *port, target_port: 8080 };
            served.insert(name(short), vec![mapping]);
        }
        let server = Workload {
            services: Arc::new(served),
            ..Workload::clone(&pod("db-0", "db-0", &[IpAddr::from([10, 0, 0, 1])], true))
        };
        mesh.apply([MeshChange::Workload(Arc::new(server))]);
        mesh
    }

    #[test]
    fn an_endpoint_that_is_dialled_shows_the_services_without_addresses() {
        let client = pod("client", "client", &[], true);
        for (services, dialled, expected) in [
            (&[("db", "", 80, Said::Requests)][..], "10.0.0.1:8080", Some(("db", 80, Spoken::Undeclared, 0))),
            (&[("db", "", 80, Said::Bytes)], "10.0.0.1:8080", Some(("db", 80, Spoken::Unheard, 0))),
            (&[("db", "", 80, Said::Nothing)], "10.0.0.1:8080", None),
            (&[("db", "", 80, Said::Requests)], "10.0.0.1:80", None),
            // Who dials a pod has passed the others over.
            (&[("db", "10.96.0.1", 80, Said::Requests)], "10.0.0.1:8080", None),
            (
                &[("db", "10.96.0.1", 80, Said::Requests)],
                "10.96.0.1:80",
                Some(("db", 80, Spoken::Undeclared, 0)),
            ),
            (
                &[("a", "10.96.0.1", 80, Said::Requests), ("b", "", 81, Said::Bytes)],
                "10.0.0.1:8080",
                Some(("b", 81, Spoken::Unheard, 0)),
            ),
            // Of several the first of which something is said; requests are looked for if they may be another's.
            (
                &[("a", "", 80, Said::Nothing), ("b", "", 81, Said::Bytes), ("c", "", 82, Said::Requests)],
                "10.0.0.1:8080",
                Some(("b", 81, Spoken::Undeclared, 3)),
            ),
            (
                &[("a", "", 80, Said::Bytes), ("b", "", 81, Said::Nothing)],
                "10.0.0.1:8080",
                Some(("a", 80, Spoken::Unheard, 2)),
            ),
        ] {
            let found = Routes::default().said(&mesh(services), &client, dialled.parse().unwrap());
            let found = found
                .as_ref()
                .map(|routed| (&*routed.service.name, routed.port, routed.requests, routed.candidates.len()));
            assert_eq!(found, expected, "{dialled}");
        }
    }
}
