//! The list in the ConfigMap of the root: whoever may change that may decide whom agents trust anyhow.

use super::{RevocationError, decode, encode};
use crate::kubernetes::{CallError, Cluster};
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeSet;
use warren_common::model::Identity;

/// Of the list in the ConfigMap.
pub(crate) const KEY: &str = "revoked.json";
const NAME: &str = "warren-ca-root";

/// None when nobody has said anything, or somebody deleted what was said.
pub(super) async fn read(cluster: &Cluster) -> Result<Option<BTreeSet<Identity>>, RevocationError> {
    let map: ConfigMap = match cluster.get(cluster.namespace(), NAME).await {
        Ok(map) => map,
        Err(CallError::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = map.data.as_ref().and_then(|data| data.get(KEY));
    text.map(|text| decode(&format!("{KEY} of the ConfigMap {NAME}"), text)).transpose()
}

/// Replaces `before` by `list`; a conflict when another list is there. The leader makes the ConfigMap; until then the list
/// can't be written.
pub(super) async fn write(
    cluster: &Cluster,
    before: &BTreeSet<Identity>,
    list: &BTreeSet<Identity>,
) -> Result<(), CallError> {
    let mut map: ConfigMap = cluster.get(cluster.namespace(), NAME).await?;
    let data = map.data.get_or_insert_default();
    let place = || format!("{KEY} of the ConfigMap {NAME}");
    if data.get(KEY).is_some_and(|text| decode(&place(), text).ok().as_ref() != Some(before)) {
        return Err(CallError::Conflict);
    }
    data.insert(KEY.to_owned(), encode(list));
    cluster.replace(cluster.namespace(), NAME, &map).await.map(drop)
}
