//! Whether a pod is in the mesh, and what of its traffic is left alone.

use crate::index::Index;
use crate::objects::{Map, Pod};
use crate::source::Problem;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use warren_common::model::Enrolment;

const MESH: &str = "warren.dev/mesh";
/// What ambient users have on their namespaces already.
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
const EXCLUDE_OUTBOUND_PORTS: &str = "warren.dev/exclude-outbound-ports";
const EXCLUDE_INBOUND_PORTS: &str = "warren.dev/exclude-inbound-ports";
const EXCLUDE_OUTBOUND_CIDRS: &str = "warren.dev/exclude-outbound-cidrs";

pub(super) fn enrolment(index: &Index, pod: &Pod, problems: &mut Vec<Problem>) -> Enrolment {
    let place = format!("Pod {}", pod.name);
    let mut report = |reason| problems.push(Problem { place: place.clone(), line: None, reason });
    let of_pod = decision(&pod.labels, &mut report);
    // What is wrong with the namespace's labels is said once, of the namespace.
    let of_namespace = || decision(index.namespace_labels(&pod.name.namespace)?, &mut |_| {});
    let enrolled = of_pod.or_else(of_namespace);
    Enrolment {
        pod_uid: pod.uid.clone(),
        // A host-network pod has no network namespace of its own to capture in.
        enrolled: enrolled.unwrap_or(false) && !pod.host_network,
        exclude_outbound_ports: list(&pod.annotations, EXCLUDE_OUTBOUND_PORTS, "a port", port, &mut report),
        exclude_inbound_ports: list(&pod.annotations, EXCLUDE_INBOUND_PORTS, "a port", port, &mut report),
        exclude_outbound_cidrs: list(&pod.annotations, EXCLUDE_OUTBOUND_CIDRS, "a CIDR", cidr, &mut report),
    }
}

/// The nodes that have pods of the mesh.
pub(crate) fn meshed_nodes(index: &Index) -> BTreeSet<String> {
    let is_meshed = |pod: &&Pod| {
        let of_namespace = || decision(index.namespace_labels(&pod.name.namespace)?, &mut |_| {});
        let enrolled = decision(&pod.labels, &mut |_| {}).or_else(of_namespace).unwrap_or(false);
        enrolled && !pod.host_network && pod.is_live() && !pod.node.is_empty()
    };
    index.pods().filter(is_meshed).map(|pod| pod.node.to_string()).collect()
}

/// Whether a namespace's label enrols the pods in it.
pub(super) fn namespace(index: &Index, name: &str, problems: &mut Vec<Problem>) -> bool {
    let place = format!("Namespace {name}");
    let mut report = |reason| problems.push(Problem { place: place.clone(), line: None, reason });
    index.namespace_labels(name).and_then(|labels| decision(labels, &mut report)).unwrap_or(false)
}

/// warren's label decides; only without it the alias does. A value that neither knows decides nothing.
fn decision(labels: &Map, report: &mut impl FnMut(String)) -> Option<bool> {
    for (label, yes, no) in [(MESH, "enabled", "disabled"), (DATAPLANE_MODE, "ambient", "none")] {
        match labels.get(label).map(AsRef::as_ref) {
            None => {}
            Some(value) if value == yes => return Some(true),
            Some(value) if value == no => return Some(false),
            Some(value) => report(format!("label {label}: {value:?} is neither {yes:?} nor {no:?}")),
        }
    }
    None
}

/// A comma-separated annotation. What does not parse is reported, the rest counts.
fn list<T: Ord>(
    annotations: &Map,
    key: &str,
    expected: &str,
    parse: fn(&str) -> Option<T>,
    report: &mut impl FnMut(String),
) -> Vec<T> {
    let items = annotations.get(key).map_or("", AsRef::as_ref).split(',').map(str::trim);
    let mut values = Vec::new();
    for item in items.filter(|item| !item.is_empty()) {
        match parse(item) {
            Some(value) => values.push(value),
            None => report(format!("annotation {key}: {item:?} is not {expected}")),
        }
    }
    values.sort();
    values.dedup();
    values
}

fn port(text: &str) -> Option<u16> {
    u16::from_str(text).ok().filter(|port| *port != 0)
}

/// The network address: bits beyond the prefix are cleared. An address alone is a prefix of full length.
fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip.parse().ok()?, Some(length.parse::<u8>().ok()?)),
        None => (text.parse().ok()?, None),
    };
    match ip {
        IpAddr::V4(v4) => {
            let length = length.unwrap_or(32);
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).unwrap_or(0);
            Some((IpAddr::V4((v4.to_bits() & mask).into()), length))
        }
        IpAddr::V6(v6) => {
            let length = length.unwrap_or(128);
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(length.into())?).unwrap_or(0);
            Some((IpAddr::V6((v6.to_bits() & mask).into()), length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs() {
        for (text, expected) in [
            ("10.1.2.3/8", Some(("10.0.0.0", 8))),
            ("10.1.2.3", Some(("10.1.2.3", 32))),
            ("0.0.0.0/0", Some(("0.0.0.0", 0))),
            ("fd00::1/64", Some(("fd00::", 64))),
            ("::/0", Some(("::", 0))),
            ("10.0.0.0/33", None),
            ("fd00::/129", None),
            ("10.0.0.0/-1", None),
            ("web/8", None),
        ] {
            let expected = expected.map(|(ip, length)| (ip.parse().unwrap(), length));
            assert_eq!(cidr(text), expected, "{text}");
        }
    }

    #[test]
    fn the_good_entries_of_a_list_count() {
        let annotations: Map = [("k".into(), "80, x,443,,80,0,70000".into())].into();
        let mut reasons = Vec::new();
        let ports = list(&annotations, "k", "a port", port, &mut |reason| reasons.push(reason));
        assert_eq!(ports, [80, 443]);
        assert_eq!(reasons.len(), 3);
    }

    #[test]
    fn labels_decide_in_order() {
        for (labels, expected) in [
            (&[][..], None),
            (&[(MESH, "enabled")], Some(true)),
            (&[(MESH, "disabled"), (DATAPLANE_MODE, "ambient")], Some(false)),
            (&[(DATAPLANE_MODE, "ambient")], Some(true)),
            (&[(DATAPLANE_MODE, "none")], Some(false)),
            (&[(MESH, "yes"), (DATAPLANE_MODE, "ambient")], Some(true)),
        ] {
            let labels: Map = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            assert_eq!(decision(&labels, &mut |_| {}), expected, "{labels:?}");
        }
    }
}
