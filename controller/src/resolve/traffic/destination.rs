//! Where a VirtualService sends to.

use crate::index::Index;
use crate::objects::Target;
use crate::resolve::{ResolveConfig, host};
use std::sync::Arc;
use warren_common::model::traffic::Destination;
use warren_common::model::{Service, ServiceName};

/// The services a host can mean to an object of a namespace, the one it means first.
fn service(index: &Index, config: &ResolveConfig, full: &str, own: &str) -> Option<Service> {
    let mut names = index.services_named(full);
    // Its own namespace's before others'; the order of the rest is that of the index.
    names.sort_by_key(|name: &ServiceName| *name.namespace != *own);
    let services = names.iter().filter_map(|name| host::resolve(index, config, name));
    services.into_iter().find(|service| service.is_visible_in(own))
}

/// A destination as an object of the namespace `own` names it, for clients that addressed the port `addressed`.
/// None: that port decides, and is not known.
pub(in crate::resolve) fn target(
    index: &Index,
    config: &ResolveConfig,
    own: &Arc<str>,
    target: &Target,
    addressed: Option<u16>,
) -> Option<Destination> {
    let full = index.full_name(&target.host, own);
    let broken = |why: String| Some(Destination::Broken { wanted: full.clone(), why: why.into() });
    let Some(service) = service(index, config, &full, own) else {
        return broken(format!("no service that {own} knows has this name"));
    };
    let has = |port: u16| service.ports.iter().any(|known| known.service_port == port);
    let ports =
        || service.ports.iter().map(|port| port.service_port.to_string()).collect::<Vec<_>>().join(", ");
    let port = match (target.port, service.ports.as_slice()) {
        (Some(port), _) if has(port) => port,
        (Some(port), _) => return broken(format!("its service has no port {port}, but {}", ports())),
        (None, []) => return broken("its service has no ports".to_owned()),
        (None, [only]) => only.service_port,
        (None, _) => {
            let port = addressed?;
            if !has(port) {
                return broken(format!(
                    "no port is named, and its service has no port {port}, but {}",
                    ports()
                ));
            }
            port
        }
    };
    Some(Destination::Service { service: service.key, port, subset: target.subset.clone() })
}
