//! The session against tables; the client and the disk against a controller on loopback.

mod client;
mod interest;
mod session;

use std::sync::Arc;
use warren_common::model::traffic::{
    Clients, HeaderChange, HeaderChanges, HttpAction, HttpRule, ObjectName, RouteApi, RouteTable, Rules,
    Traffic,
};
use warren_common::model::{AuthorizationPolicy, PolicyAction, PolicyScope};
use warren_common::model::{Service, ServiceName, ServiceOrigin, Steering};
use warren_common::proto::discovery::{DeltaDiscoveryResponse, Resource};
use warren_common::proto::{
    ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL, MeshResource, NAMESPACE_TYPE_URL, TRAFFIC_TYPE_URL,
    encode_address, encode_authorization, encode_envelope, encode_namespace, encode_traffic,
};

fn key(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: name.into() }
}

fn service(name: &str) -> Service {
    Service {
        name: name.into(),
        key: key(name),
        addresses: vec![],
        ports: vec![],
        publish_not_ready: false,
        steering: Steering::default(),
        origin: ServiceOrigin::default(),
    }
}

/// A good resource: the service `shop/<name>`.
fn good(name: &str, version: &str) -> Resource {
    let value = encode_address(&MeshResource::Service(Box::new(service(name))));
    Resource {
        name: format!("shop/{name}"),
        version: version.to_owned(),
        resource: Some(prost_types::Any { type_url: ADDRESS_TYPE_URL.to_owned(), value }),
        aliases: vec![],
    }
}

/// The same, spoiled.
fn bad(name: &str, spoil: impl FnOnce(&mut Resource)) -> Resource {
    let mut resource = good(name, "bad");
    spoil(&mut resource);
    resource
}

fn response(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: ADDRESS_TYPE_URL.to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.into_iter().map(|resource| encode_envelope(&resource)).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// Namespaces that enrol their pods, and those that do not any more.
fn enrolled(nonce: &str, names: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |name: &&str| Resource {
        name: (*name).to_owned(),
        version: "1".to_owned(),
        resource: Some(prost_types::Any {
            type_url: NAMESPACE_TYPE_URL.to_owned(),
            value: encode_namespace(name),
        }),
        aliases: vec![],
    };
    DeltaDiscoveryResponse {
        type_url: NAMESPACE_TYPE_URL.to_owned(),
        ..response(nonce, names.iter().map(resource).collect(), removed)
    }
}

/// Nothing, said about the traffic to `shop/<name>`.
fn no_traffic(name: &str) -> Traffic {
    Traffic { service: key(name), tables: vec![], policies: vec![], refused: None }
}

/// A good resource of it.
fn traffic(name: &str, version: &str) -> Resource {
    let value = encode_traffic(&no_traffic(name));
    Resource {
        name: format!("shop/{name}"),
        version: version.to_owned(),
        resource: Some(prost_types::Any { type_url: TRAFFIC_TYPE_URL.to_owned(), value }),
        aliases: vec![],
    }
}

/// The same with one rule, which gives every request the header `x`.
fn traffic_with(name: &str, version: &str, x: &str) -> Resource {
    let rule = HttpRule {
        name: "all".into(),
        matches: vec![],
        action: HttpAction::Forward(Box::default()),
        request_headers: HeaderChanges {
            set: vec![HeaderChange { name: "x".into(), value: x.into() }],
            ..HeaderChanges::default()
        },
        response_headers: HeaderChanges::default(),
        cors: None,
    };
    let table = RouteTable {
        clients: Clients::default(),
        ports: None,
        api: RouteApi::Istio,
        objects: vec![ObjectName {
            kind: "VirtualService".into(),
            namespace: "shop".into(),
            name: name.into(),
        }],
        rules: Rules { http: Some(vec![rule]), ..Rules::default() },
    };
    let value = encode_traffic(&Traffic { tables: vec![table], ..no_traffic(name) });
    Resource {
        resource: Some(prost_types::Any { type_url: TRAFFIC_TYPE_URL.to_owned(), value }),
        ..traffic(name, version)
    }
}

fn routes(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: TRAFFIC_TYPE_URL.to_owned(), ..response(nonce, resources, removed) }
}

fn arc(name: &str) -> Arc<Service> {
    Arc::new(service(name))
}

/// A policy of the namespace `shop` that denies everything or, as an ALLOW without rules, permits nothing.
fn policy(name: &str, action: PolicyAction) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: format!("shop/{name}").parse().unwrap(),
        scope: PolicyScope::Namespace,
        action,
        dry_run: false,
        only_ports: None,
        rules: vec![],
    }
}

/// A good policy.
fn good_policy(name: &str, version: &str) -> Resource {
    let value = encode_authorization(&policy(name, PolicyAction::Allow));
    Resource {
        name: format!("shop/{name}"),
        version: version.to_owned(),
        resource: Some(prost_types::Any { type_url: AUTHORIZATION_TYPE_URL.to_owned(), value }),
        aliases: vec![],
    }
}

fn policies(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: AUTHORIZATION_TYPE_URL.to_owned(),
        ..response(nonce, resources, removed)
    }
}
