//! The status of the Gateway API's routes, written where it differs from what stands there.

mod merge;

use crate::index::Index;
use crate::kubernetes::{CallError, Cluster};
use crate::objects::{Kind, Name, Route};
use crate::resolve::{ParentStatus, ResolveConfig, route_status};
use crate::source::{CUSTOM_KINDS, ServedKind};
use k8s_openapi::jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many routes are looked at in one round; the others have theirs in the next.
const PER_ROUND: usize = 20;

/// Every route with what is written about it, in the form of its object; without since when, which only what stands
/// there can tell.
pub(crate) fn list(index: &Index, config: &ResolveConfig) -> Vec<Value> {
    let object = |route: &Route| {
        let status = route_status(index, config, route);
        let parents = merge::parents(&Value::Null, &status, Timestamp::UNIX_EPOCH);
        let mut parents = parents.unwrap_or_default();
        let entries = parents.iter_mut().filter_map(|entry| entry["conditions"].as_array_mut());
        for condition in entries.flatten().filter_map(Value::as_object_mut) {
            condition.remove("lastTransitionTime");
        }
        let Name { namespace, name } = &route.name;
        json!({
            "kind": route.kind.as_str(),
            "metadata": {"namespace": **namespace, "name": **name, "generation": route.generation},
            "status": {"parents": parents},
        })
    };
    index.routes().map(object).collect()
}

/// What is written about a route.
type Written = Vec<ParentStatus>;

/// Writes for the time of one term.
#[derive(Debug)]
pub(super) struct RouteStatus {
    index: Arc<RwLock<Index>>,
    config: ResolveConfig,
    written: BTreeMap<(Kind, Name), Written>,
}

impl RouteStatus {
    pub(super) fn new(index: Arc<RwLock<Index>>, config: ResolveConfig) -> Self {
        Self { index, config, written: BTreeMap::new() }
    }

    /// One round, as long as `leads` says so. What fails is tried again in the next.
    pub(super) async fn write(
        &mut self,
        cluster: &Cluster,
        leads: impl Fn() -> bool,
    ) -> Result<(), CallError> {
        let mut first = Ok(());
        for (key, wanted) in self.due() {
            if !leads() {
                break;
            }
            match write(cluster, key.0, &key.1, &wanted).await {
                // Somebody was faster, or it is gone: the next round sees what is there then.
                Err(CallError::Conflict) => {}
                Err(CallError::NotFound) | Ok(()) => drop(self.written.insert(key, wanted)),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Routes of which something else is to be said than was.
    fn due(&mut self) -> Vec<((Kind, Name), Written)> {
        let index = self.index.read();
        self.written.retain(|(kind, name), _| index.route(*kind, name).is_some());
        let mut due = Vec::new();
        for route in index.routes() {
            let wanted = route_status(&index, &self.config, route);
            let key = key(route);
            if self.written.get(&key) != Some(&wanted) {
                due.push((key, wanted));
            }
            if due.len() >= PER_ROUND {
                break;
            }
        }
        due
    }
}

fn key(route: &Route) -> (Kind, Name) {
    (route.kind, route.name.clone())
}

async fn write(cluster: &Cluster, kind: Kind, name: &Name, wanted: &[ParentStatus]) -> Result<(), CallError> {
    let served = CUSTOM_KINDS.iter().find(|served| served.kind == kind).ok_or(CallError::NotFound)?;
    let (path, object) = read(cluster, served, name).await?;
    let parents = merge::parents(&object["status"]["parents"], wanted, Timestamp::now());
    let Some(parents) = parents else { return Ok(()) };
    let members = json!({
        // Somebody else's change in between is not overwritten.
        "metadata": {"resourceVersion": object["metadata"]["resourceVersion"]},
        "status": {"parents": parents},
    });
    cluster.patch_status(&path, &name.name, members).await
}

/// The object in the best version that the cluster serves, and where it is.
async fn read(cluster: &Cluster, served: &ServedKind, name: &Name) -> Result<(String, Value), CallError> {
    for version in served.versions {
        let path =
            format!("/apis/{}/{version}/namespaces/{}/{}", served.group, name.namespace, served.plural);
        match cluster.get_at(&path, &name.name).await {
            Err(CallError::NotFound) => {}
            Err(error) => return Err(error),
            Ok(object) => return Ok((path, object)),
        }
    }
    Err(CallError::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::tests::{config, index};

    #[test]
    fn routes_are_listed_with_what_a_cluster_would_be_told() {
        let index = index(
            "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop, generation: 7}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}, {name: edge}]
  rules: [{backendRefs: [{name: none, port: 80}]}]
",
        );
        let listed = list(&index, &config());
        let said = |kind: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": 7,
            })
        };
        assert_eq!(
            listed,
            [json!({
                "kind": "HTTPRoute",
                "metadata": {"namespace": "shop", "name": "r", "generation": 7},
                "status": {"parents": [{
                    "parentRef": {"group": "", "kind": "Service", "name": "web", "port": 80},
                    "controllerName": "warren.dev/controller",
                    "conditions": [
                        said("Accepted", "True", "Accepted", "agents apply it"),
                        said("ResolvedRefs", "False", "BackendNotFound", "there is no Service shop/none"),
                    ],
                }]},
            })]
        );
    }
}
