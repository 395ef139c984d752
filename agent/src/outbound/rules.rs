//! Which rules are in force for the requests of a pod to a service, compiled once per version of what they are made of.

use super::current;
use crate::context::Context;
use crate::pods::Pod;
use crate::route::http::{ClientView, InForce, Patterns};
use crate::route::service_at;
use crate::store::Mesh;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use warren_common::model::traffic::Traffic;
use warren_common::model::{AppProtocol, Service, ServiceName, Workload, WorkloadUid};

/// Most tables that a worker keeps.
const MAX_TABLES: usize = 4096;

/// One worker's compiled rules.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    patterns: Patterns,
    known: RefCell<HashMap<Key, Known>>,
}

type Key = (WorkloadUid, ServiceName, u16);

#[derive(Debug)]
struct Known {
    traffic: Option<Arc<Traffic>>,
    client: Arc<Workload>,
    rules: InForce,
}

/// A service that requests have rules for.
#[derive(Clone, Debug)]
pub(super) struct Routed {
    pub(super) service: Arc<Service>,
    /// Its address and port.
    pub(super) dialled: SocketAddr,
    /// Whether the port says that HTTP is spoken; else it is to be heard.
    pub(super) declared: bool,
}

/// Whether rules for HTTP are in force for what was dialled.
pub(super) async fn routed(context: &Context, pod: &Pod, dialled: SocketAddr) -> Option<Routed> {
    let (ip, port) = (dialled.ip(), dialled.port());
    if !context.node.store.guard().knows(ip) {
        // Nobody here has talked to it before. If it stays unknown, the connection says so.
        context.node.interest.learn(&context.node.store, ip).await.ok()?;
    }
    let client = current(context, pod);
    let mesh = context.node.store.guard();
    let service = service_at(&mesh, &client, ip)?;
    let declared = service.ports.iter().find(|known| known.service_port == port)?.app_protocol;
    match context.routes.in_force(&mesh, &client, &service.key, port) {
        InForce::Nothing(_) => None,
        InForce::Rules(_) | InForce::Broken(_) => {
            let declared = declared != AppProtocol::Unknown;
            Some(Routed { service: Arc::clone(service), dialled, declared })
        }
    }
}

impl Routes {
    /// What is in force for requests of `client` to `port` of `service`.
    pub(super) fn in_force(
        &self,
        mesh: &Mesh,
        client: &Arc<Workload>,
        service: &ServiceName,
        port: u16,
    ) -> InForce {
        let traffic = mesh.traffic(service);
        if traffic.is_none() && self.known.borrow().is_empty() {
            // The common case of a mesh without any rules keeps nothing.
            return self.compile(None, client, service, port);
        }
        let key = (client.uid.clone(), service.clone(), port);
        if let Some(known) = self.known.borrow().get(&key)
            && known.is_of(traffic, client)
        {
            return known.rules.clone();
        }
        let rules = self.compile(traffic, client, service, port);
        let mut all = self.known.borrow_mut();
        if all.len() >= MAX_TABLES {
            all.clear();
        }
        all.insert(
            key,
            Known { traffic: traffic.cloned(), client: Arc::clone(client), rules: rules.clone() },
        );
        rules
    }

    fn compile(
        &self,
        traffic: Option<&Arc<Traffic>>,
        client: &Workload,
        service: &ServiceName,
        port: u16,
    ) -> InForce {
        let view = ClientView { namespace: &client.namespace, labels: &client.labels };
        InForce::new(traffic.map(|traffic| &**traffic), &view, service, port, &self.patterns)
    }
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
