//! Objects of a cluster that are for a mesh and that the controller does not read.

use super::{Cluster, ClusterError};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::discovery::{ApiGroup, Discovery, verbs};
use kube::{Api, ResourceExt};
use warren_controller::source::{CUSTOM_KINDS, MESH_GROUPS};

/// So many of a kind are named.
const MOST: u32 = 100;

/// One of them, or all of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unread {
    /// `Kind namespace/name`, or the kind alone.
    pub(crate) object: String,
    /// What is so.
    pub(crate) text: String,
}

/// All of them. Whatever the API server serves of the groups of a mesh counts, so that no kind is forgotten here.
///
/// # Errors
/// [`ClusterError::Api`], when the kinds or their objects can't be listed.
pub(super) async fn unread(cluster: &Cluster) -> Result<Vec<Unread>, ClusterError> {
    let discovery = Discovery::new(cluster.client.clone()).filter(&MESH_GROUPS).run().await;
    let discovery = discovery.map_err(ClusterError::doing("asking which kinds there are"))?;
    let mut found = Vec::new();
    for (kind, can) in discovery.groups().flat_map(ApiGroup::resources_by_stability) {
        if is_read(&kind) || !can.supports_operation(verbs::LIST) {
            continue;
        }
        let of_kind = |text: &str| Unread {
            object: kind.kind.clone(),
            text: format!("{text} of this kind ({})", kind.api_version),
        };
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
        let listed = match api.list_metadata(&ListParams::default().limit(MOST)).await {
            Err(kube::Error::Api(status)) if status.code == 403 => {
                found.push(of_kind("nobody has looked for objects"));
                continue;
            }
            listed => listed.map_err(ClusterError::doing(format!("listing {}", kind.plural)))?,
        };
        if listed.metadata.continue_.is_some_and(|token| !token.is_empty()) {
            found.push(of_kind("there are more objects"));
        }
        found.extend(listed.items.iter().map(|object| {
            let namespace = object.namespace().map_or(String::new(), |namespace| format!("{namespace}/"));
            Unread {
                object: format!("{} {namespace}{}", kind.kind, object.name_any()),
                text: format!(
                    "warren does not apply objects of this kind ({}) yet; another controller may",
                    kind.api_version
                ),
            }
        }));
    }
    found.sort();
    Ok(found)
}

fn is_read(kind: &ApiResource) -> bool {
    CUSTOM_KINDS.iter().any(|served| served.group == kind.group && served.plural == kind.plural)
}
