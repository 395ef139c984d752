//! Where nodes and workloads are.

use crate::index::Index;
use crate::objects::Pod;
use std::sync::Arc;
use warren_common::model::Locality;

/// Where a node is, by its labels.
pub(super) fn of_node(index: &Index, node: &str) -> Locality {
    let label =
        |key: &str| index.node_labels(node).and_then(|labels| labels.get(key)).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        subzone: label("topology.istio.io/subzone"),
    }
}

/// Where a pod is: as its label says, with dots for slashes, else where its node is.
pub(super) fn of_pod(index: &Index, pod: &Pod) -> Locality {
    match pod.labels.get("istio-locality").filter(|label| !label.is_empty()) {
        None => of_node(index, &pod.node),
        Some(label) => {
            let mut parts = label.splitn(3, '.').map(Arc::from);
            let mut next = || parts.next().unwrap_or_default();
            of_parts(&[next(), next(), next()])
        }
    }
}

/// `region/zone/subzone`.
pub(super) fn of_parts([region, zone, subzone]: &[Arc<str>; 3]) -> Locality {
    Locality { region: region.clone(), zone: zone.clone(), subzone: subzone.clone() }
}
