//! The mesh's root for agents: a ConfigMap, and its repair.

use crate::ca::revocations::{Revocations, encode, map};
use crate::kubernetes::{CallError, Cluster};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

const NAME: &str = "warren-ca-root";
const KEY: &str = "root-cert.pem";

/// Makes the ConfigMap say what it should. Somebody who is faster is told apart at the next round. The list of revoked
/// identities stays as it is there; where somebody has deleted it, it is what was last known.
pub(super) async fn ensure(cluster: &Cluster, root: &str, revoked: &Revocations) -> Result<(), CallError> {
    let namespace = cluster.namespace();
    let mut data = BTreeMap::from([(KEY.to_owned(), root.to_owned())]);
    let read = cluster.get::<ConfigMap>(namespace, NAME).await;
    let kept = read.as_ref().ok().and_then(|map| map.data.as_ref()?.get(map::KEY).cloned());
    let known = revoked.list();
    let kept = kept.or_else(|| (!known.is_empty()).then(|| encode(&known)));
    data.extend(kept.map(|list| (map::KEY.to_owned(), list)));
    let written = match read {
        Ok(map) if map.data.as_ref() == Some(&data) => return Ok(()),
        Ok(map) => {
            tracing::warn!(
                config_map = NAME,
                "not what it should be (or the roots are others now); written again"
            );
            let map = ConfigMap { data: Some(data), binary_data: None, ..map };
            cluster.replace(namespace, NAME, &map).await
        }
        Err(CallError::NotFound) => {
            let labels = [("app.kubernetes.io/part-of".to_owned(), "warren".to_owned())];
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            cluster.create(Some(namespace), &map).await
        }
        Err(error) => return Err(error),
    };
    match written {
        Ok(_) => tracing::info!(config_map = NAME, "root written"),
        Err(CallError::Conflict) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
