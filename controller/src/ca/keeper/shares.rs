//! What every replica knows of its agents, where the leader finds it: a ConfigMap with an entry per replica.

use crate::ca::rotation::Share;
use crate::kubernetes::{CallError, Cluster};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAME: &str = "warren-ca-progress";
/// What is older than this (seconds) is of a replica that is gone: its agents are connected to others by now.
pub(super) const FRESH_S: i64 = 90;

/// What all replicas said lately.
pub(super) async fn read(cluster: &Cluster, now: i64) -> Result<Vec<Share>, CallError> {
    let map: ConfigMap = match cluster.get(cluster.namespace(), NAME).await {
        Ok(map) => map,
        Err(CallError::NotFound) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let shares = map.data.unwrap_or_default().into_values();
    Ok(shares.filter_map(|text| fresh(&text, now)).collect())
}

/// Says what this replica knows. Somebody who is faster is told apart at the next round.
pub(super) async fn write(cluster: &Cluster, share: &Share) -> Result<(), CallError> {
    // Texts and numbers: writing them can't fail.
    let text = serde_json::to_string(share).unwrap_or_default();
    let written = match cluster.get::<ConfigMap>(cluster.namespace(), NAME).await {
        Ok(mut map) => {
            let data = map.data.get_or_insert_default();
            data.retain(|_, text| fresh(text, share.at).is_some());
            data.insert(cluster.instance().to_string(), text);
            cluster.replace(cluster.namespace(), NAME, &map).await
        }
        Err(CallError::NotFound) => {
            let labels = [("app.kubernetes.io/part-of".to_owned(), "warren".to_owned())];
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            };
            let data = [(cluster.instance().to_string(), text)];
            let map = ConfigMap { metadata, data: Some(data.into()), ..ConfigMap::default() };
            cluster.create(Some(cluster.namespace()), &map).await
        }
        Err(error) => return Err(error),
    };
    match written {
        Ok(_) | Err(CallError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

fn fresh(text: &str, now: i64) -> Option<Share> {
    let share: Share = serde_json::from_str(text).ok()?;
    (share.at + FRESH_S >= now).then_some(share)
}
