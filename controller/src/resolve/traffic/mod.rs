//! Routes and policies of the traffic to one service: what VirtualServices, DestinationRules and the Gateway API's routes
//! say about it, in one form.
//!
//! ```text
//!   routes of the client's namespace (consumer)      first table that holds client and port decides
//!   routes of the service's namespace (producer)
//!   VirtualServices, by host, visibility and age
//! ```

mod delegate;
mod destination;
mod destination_rule;
pub(super) mod route;
mod virtual_service;

pub(super) use delegate::{Conflict, conflicts, contributed, flattened, usable};
pub(super) use destination::target;
pub(super) use destination_rule::policies;
pub(super) use virtual_service::candidates;

use super::{ResolveConfig, host};
use crate::index::Index;
use crate::objects::{Created, Name};
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::model::traffic::{ObjectName, RouteTable, Traffic};

/// What is said about the traffic to a service; none when nothing is, or there is no such service.
pub(super) fn traffic(index: &Index, config: &ResolveConfig, name: &ServiceName) -> Option<Traffic> {
    let tables = compiled(index, config, name)?;
    let policies = policies(index, name);
    let is_said = !tables.is_empty() || !policies.is_empty();
    is_said.then(|| Traffic { service: name.clone(), tables, policies, refused: None })
}

/// Whether there are rules for requests to a service, for whatever client.
pub(super) fn is_ruled(index: &Index, config: &ResolveConfig, name: &ServiceName) -> bool {
    compiled(index, config, name).is_some_and(|tables| tables.iter().any(|table| table.rules.http.is_some()))
}

/// Every table of a service; none when there is no such service.
fn compiled(index: &Index, config: &ResolveConfig, name: &ServiceName) -> Option<Vec<RouteTable>> {
    let service = host::resolve(index, config, name)?;
    let of_kubernetes = index.kubernetes_service_name(name).and_then(|name| index.service(&name));
    let mut tables = of_kubernetes.map_or_else(Vec::new, |service| route::tables(index, config, service));
    tables.extend(virtual_service::tables(index, config, &service));
    Some(tables)
}

fn object_name(kind: &str, name: &Name) -> ObjectName {
    ObjectName { kind: kind.into(), namespace: name.namespace.clone(), name: name.name.clone() }
}

/// The oldest first; files have no age and come first. Among equals the name decides, then the namespace.
fn age(created: Created, name: &Name) -> (Created, Arc<str>, Arc<str>) {
    (created, name.name.clone(), name.namespace.clone())
}

/// Whether an object that is exported so is for clients of a namespace.
fn is_for(exported_to: Option<&Vec<Arc<str>>>, namespace: &str) -> bool {
    exported_to.is_none_or(|namespaces| namespaces.iter().any(|one| **one == *namespace))
}

#[cfg(test)]
mod tests;
