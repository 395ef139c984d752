//! The mesh's root for agents: a ConfigMap, and its repair.

use crate::kubernetes::{CallError, Cluster};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

const NAME: &str = "warren-ca-root";
const KEY: &str = "root-cert.pem";

/// Makes the ConfigMap say what it should. Somebody who is faster is told apart at the next round.
pub(super) async fn ensure(cluster: &Cluster, root: &str) -> Result<(), CallError> {
    let namespace = cluster.namespace();
    let data = BTreeMap::from([(KEY.to_owned(), root.to_owned())]);
    let written = match cluster.get::<ConfigMap>(namespace, NAME).await {
        Ok(map) if map.data.as_ref() == Some(&data) => return Ok(()),
        Ok(map) => {
            tracing::warn!(config_map = NAME, "not what it should be; repaired");
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
