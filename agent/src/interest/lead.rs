//! Where rules lead from what pods dial. Pure.

use crate::store::{Mesh, Sought};
use warren_common::model::traffic::{Destination, Traffic};
use warren_common::model::{Service, ServiceName};

/// What pods dial to reach a service: its own addresses, or of one that has none those of its endpoints.
pub(super) fn dialled<'m>(mesh: &'m Mesh, service: &'m Service) -> impl Iterator<Item = Sought> {
    let headless = Some(service).filter(|service| service.addresses.is_empty());
    let endpoints = headless.into_iter().flat_map(move |service| mesh.endpoints(&service.key));
    let theirs = endpoints.flat_map(|workload| workload.addresses.iter());
    service.addresses.iter().chain(theirs).map(|address| Sought::from(*address))
}

/// The services to which the rules of a service may send and that do not come along with it.
pub(super) fn elsewhere<'m>(
    service: &'m Service,
    traffic: &'m Traffic,
) -> impl Iterator<Item = &'m ServiceName> {
    traffic.destinations().filter_map(move |to| match to {
        Destination::Service { service: name, subset, .. } => {
            // All its endpoints come with its address. Of one without, those come that are dialled, and others are chosen for
            // a subset alone.
            let comes_along = *name == service.key && (subset.is_none() || !service.addresses.is_empty());
            (!comes_along).then_some(name)
        }
        Destination::Broken { .. } => None,
    })
}
