//! Where a connection is to go: to what was dialled, or to the service that a rule or the DestinationRule brings it to; and which
//! endpoint of it is next.

use super::endpoints::{Balanced, Chosen, Load, Picked, Wanted};
use super::rules::{Connections, Routed};
use super::{OutboundError, current, originate};
use crate::context::Context;
use crate::flow::Dialled;
use crate::http::Origination;
use crate::route::l4::{Said, Way, way};
use crate::route::{
    Attempts, Backend, Choice, Doubts, RouteError, Target, resolve, resolve_backend, service_at, target_of,
};
use crate::store::Mesh;
use std::sync::Arc;
use std::time::Instant;
use warren_common::model::admin::FlowRoute;
use warren_common::model::traffic::Destination;
use warren_common::model::{Service, ServiceName, Workload};

/// Where a connection is to go.
#[derive(Clone, Debug)]
pub(super) enum Course {
    /// To what was dialled, as without rules.
    Dialled,
    /// To endpoints of a service, as the DestinationRule says that is in force there.
    Service(Box<Bound>),
}

/// A connection's service.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    service: ServiceName,
    port: u16,
    subset: Option<Arc<str>>,
    /// Whether it was found by its endpoint that was dialled.
    own: bool,
    route: FlowRoute,
}

impl Course {
    /// Of a connection whose client says this first.
    ///
    /// # Errors
    /// Its rules lead nowhere.
    pub(super) fn new(routed: &Routed, said: Said<'_>) -> Result<Self, OutboundError> {
        let Routed { service: called, port, candidates, dialled, connections, .. } = routed;
        let Connections { table, policy } = connections;
        let objects = table.as_ref().map(|table| Arc::clone(table.objects()));
        match way(table.as_deref(), dialled.ip(), said, candidates.len() <= 1) {
            Way::Itself => Ok(match policy {
                None => Self::Dialled,
                Some(objects) => {
                    Self::service(called, called.key.clone(), *port, None, ("".into(), Arc::clone(objects)))
                }
            }),
            Way::Nowhere => Err(OutboundError::NoRule { objects: objects.unwrap_or_default() }),
            Way::Rule(rule) => match rule.pick(rand::random()) {
                Some(Destination::Service { service, port, subset }) => {
                    let rule = (Arc::clone(rule.name()), objects.unwrap_or_default());
                    Ok(Self::service(called, service.clone(), *port, subset.clone(), rule))
                }
                Some(Destination::Broken { wanted, why }) => {
                    Err(OutboundError::LeadsNowhere(format!("{wanted} leads nowhere: {why}")))
                }
                None => Err(OutboundError::LeadsNowhere("no backend of its rule has a share".to_owned())),
            },
        }
    }

    fn service(
        called: &Service,
        service: ServiceName,
        port: u16,
        subset: Option<Arc<str>>,
        (rule, objects): (Arc<str>, Arc<str>),
    ) -> Self {
        let cluster = cluster(&service, port, subset.as_deref());
        let own = called.addresses.is_empty() && called.key == service;
        let route = FlowRoute { rule, objects, cluster };
        Self::Service(Box::new(Bound { service, port, subset, own, route }))
    }

    /// What decided, for people.
    pub(super) fn route(&self) -> Option<&FlowRoute> {
        match self {
            Self::Dialled => None,
            Self::Service(bound) => Some(&bound.route),
        }
    }
}

/// In Envoy's form.
pub(super) fn cluster(service: &ServiceName, port: u16, subset: Option<&str>) -> Arc<str> {
    format!("outbound|{port}|{}|{}", subset.unwrap_or_default(), service.hostname).into()
}

/// What is tried next.
pub(super) struct Next {
    pub(super) target: Target,
    /// Where a DestinationRule counts.
    pub(super) place: Option<Box<Balanced>>,
    /// What is spoken to it, beside the mesh's own TLS.
    pub(super) tls: Option<Arc<Origination>>,
}

/// The endpoint that is tried next.
pub(super) fn next(
    context: &Context,
    dialled: &Dialled<'_>,
    course: &Course,
    attempts: &Attempts,
    is_guess: bool,
) -> Result<Next, OutboundError> {
    let client = current(context, &dialled.pod);
    match course {
        Course::Dialled => {
            let mesh = context.node.store.guard();
            let affine = service_at(&mesh, &client, dialled.destination.ip());
            let target = chosen(context, &client, affine.map(|service| &**service), attempts, |choice| {
                resolve(&mesh, &client, dialled.destination, choice)
            })?;
            Ok(Next { target, place: None, tls: None })
        }
        Course::Service(bound) => {
            let failed = attempts.failed();
            let load = if is_guess { Load::Guess(failed) } else { Load::Connection(failed) };
            balanced(context, dialled, &client, bound, (attempts, load))
        }
    }
}

fn balanced(
    context: &Context,
    dialled: &Dialled<'_>,
    client: &Arc<Workload>,
    bound: &Bound,
    (attempts, load): (&Attempts, Load<'_>),
) -> Result<Next, OutboundError> {
    let Bound { service: name, port, subset, own, .. } = bound;
    // Before the snapshot: what is made of it may be older than it says, and never newer.
    let generation = context.node.store.generation();
    let mesh = context.node.store.guard();
    let service = mesh.service(name).ok_or_else(|| nowhere(&mesh, name))?;
    let (port, like) = (*port, dialled.destination.ip());
    let wanted = Wanted {
        mesh: &mesh,
        generation,
        client,
        service,
        port,
        subset: subset.as_ref(),
        address: dialled.client.ip(),
        dialled: dialled.destination,
        own: *own,
    };
    match context.node.balances.pick(&wanted, load)? {
        Chosen::One(Picked { endpoint, place, .. }) => {
            if attempts.failed().contains(&endpoint.workload.uid) {
                // All others have failed, too, or it is the only one for this client.
                let known = mesh.endpoints(name).len();
                let hostname = Arc::clone(&name.hostname);
                return Err(RouteError::NoHealthyEndpoint { service: hostname, port, known }.into());
            }
            let target = target_of(&mesh, client, service, &endpoint.workload, endpoint.port, like)?;
            if let Err(error) = originate::named(place.policy(), &target, Some(service)) {
                if matches!(load, Load::Connection(_)) {
                    place.connected(false);
                }
                return Err(error.into());
            }
            let tls = originate::wanted(place.policy(), &target.hop, &name.hostname, Some(service));
            Ok(Next { target, place: Some(Box::new(place)), tls })
        }
        Chosen::Any(effective, place) => {
            let backend = Backend { service, port, subset: Some(&effective.labels), own: *own };
            let target = chosen(context, client, Some(service), attempts, |choice| {
                resolve_backend(&mesh, client, &backend, dialled.destination, choice)
            })?;
            originate::named(&effective.policy, &target, Some(service))?;
            let tls = originate::wanted(&effective.policy, &target.hop, &name.hostname, Some(service));
            Ok(Next { target, place: place.map(Box::new), tls })
        }
    }
}

/// Why a service that rules lead to is not here.
fn nowhere(mesh: &Mesh, name: &ServiceName) -> OutboundError {
    match mesh.knows_service(name) {
        true => OutboundError::LeadsNowhere(format!("there is no service {name}")),
        false => RouteError::NotAsked(name.clone().into()).into(),
    }
}

/// A choice where no DestinationRule says which: not who has failed, the one that a client of a service with affinity had last.
fn chosen(
    context: &Context,
    client: &Workload,
    service: Option<&Service>,
    attempts: &Attempts,
    resolve: impl FnOnce(&Choice<'_>) -> Result<Target, RouteError>,
) -> Result<Target, RouteError> {
    let affine = service.filter(|service| service.steering.affinity_s.is_some());
    let sticky = affine.and_then(|service| {
        let affinity = context.node.affinity.lock();
        affinity.last(client, &service.key, Instant::now()).cloned()
    });
    let now = Instant::now();
    let mut failing = context.node.failing.lock();
    let choice = Choice {
        entropy: rand::random(),
        avoid: attempts.failed(),
        sticky: sticky.as_ref(),
        doubts: Doubts { silent_nodes: attempts.silent_nodes(), failing: Some((&failing, now)) },
    };
    let target = resolve(&choice)?;
    if let (Some(workload), 1..) = (&target.workload, target.endpoints) {
        failing.chosen(workload, target.address.port(), now);
    }
    Ok(target)
}
