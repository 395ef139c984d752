//! Which endpoints first, and which shares, by where client and endpoints are (reference 4.5).

use std::sync::Arc;
use warren_common::model::traffic::{LocalityBalancing, LocalityShare, RegionFailover};
use warren_common::model::{Locality, Workload};

/// What locality says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// How far down it is: those of 0 come first.
    Level(usize),
    /// In the part of this index of the shares.
    Part(usize),
    /// It gets nothing.
    Nowhere,
}

/// How the endpoints of a service are ordered for one client.
pub(super) enum Order<'a> {
    /// All alike.
    Flat,
    /// By the client's locality; the region that another one fails over to is nearer than the others.
    Near(&'a [RegionFailover]),
    /// By labels in common.
    Labels(&'a [Arc<str>]),
    /// By shares: the pattern and the percent of each part.
    Shares(Vec<(&'a str, u32)>),
}

impl<'a> Order<'a> {
    /// What a setting means for a client. Failover needs somebody to say that an endpoint has failed: without outlier detection
    /// localities have no order.
    pub(super) fn new(setting: &'a LocalityBalancing, client: &Locality, has_outliers: bool) -> Self {
        if !setting.enabled {
            return Self::Flat;
        }
        let is_from = |share: &&LocalityShare| specificity(&share.from, client).is_some();
        if let Some(share) = setting.distribute.iter().find(is_from) {
            return Self::Shares(share.to.iter().map(|(to, percent)| (&**to, *percent)).collect());
        }
        match (has_outliers, setting.failover_priority.is_empty()) {
            _ if !setting.distribute.is_empty() => Self::Flat,
            (false, _) => Self::Flat,
            (true, false) => Self::Labels(&setting.failover_priority),
            (true, true) => Self::Near(&setting.failover),
        }
    }

    /// The place of an endpoint.
    pub(super) fn place(&self, client: &Workload, endpoint: &Workload) -> Place {
        let (here, there) = (&client.placement.locality, &endpoint.placement.locality);
        match self {
            Self::Flat => Place::Level(0),
            Self::Near(failover) => Place::Level(distance(here, there, failover)),
            Self::Labels(labels) => {
                let shared = labels.iter().take_while(|label| shares(label, client, endpoint)).count();
                Place::Level(labels.len() - shared)
            }
            Self::Shares(parts) => {
                // The most specific pattern of those that hold it.
                let held = parts.iter().enumerate();
                let held = held.filter_map(|(part, (to, _))| Some((specificity(to, there)?, part)));
                held.max().map_or(Place::Nowhere, |(_, part)| Place::Part(part))
            }
        }
    }
}

/// 0 the same subzone, 1 the same zone, 2 the same region, 3 another one; with a failover of the client's region, 4 all others
/// but that.
fn distance(here: &Locality, there: &Locality, failover: &[RegionFailover]) -> usize {
    if here.region != there.region {
        let to = failover.iter().find(|failover| failover.from == here.region);
        return if to.is_none_or(|failover| failover.to == there.region) { 3 } else { 4 };
    }
    match (here.zone == there.zone, here.subzone == there.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// How many parts of a locality a pattern (`region/zone/*`) names, if it holds it.
fn specificity(pattern: &str, locality: &Locality) -> Option<usize> {
    let mut parts = [&*locality.region, &*locality.zone, &*locality.subzone].into_iter();
    let mut named = 0;
    for wanted in pattern.split('/') {
        if wanted == "*" {
            return Some(named);
        }
        if parts.next()? != wanted {
            return None;
        }
        named += 1;
    }
    Some(named)
}

/// Whether an endpoint has a label as `key=value` says, or as the client has it.
fn shares(label: &str, client: &Workload, endpoint: &Workload) -> bool {
    match label.split_once('=') {
        Some((key, value)) => label_of(endpoint, key).unwrap_or_default() == value,
        None => label_of(client, label) == label_of(endpoint, label),
    }
}

/// A pod's label; of those that Istio puts on pods, what stands for them here.
fn label_of<'a>(workload: &'a Workload, key: &str) -> Option<&'a str> {
    let locality = &workload.placement.locality;
    let value = match key {
        "topology.kubernetes.io/region" => &locality.region,
        "topology.kubernetes.io/zone" => &locality.zone,
        "topology.istio.io/subzone" => &locality.subzone,
        "topology.istio.io/network" => &workload.placement.network,
        "topology.istio.io/cluster" => &workload.cluster,
        "kubernetes.io/hostname" => &workload.node,
        _ => workload.labels.get(key)?,
    };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Locality {
        let mut parts = text.split('/').map(Arc::from).chain(std::iter::repeat(Arc::from("")));
        Locality {
            region: parts.next().unwrap(),
            zone: parts.next().unwrap(),
            subzone: parts.next().unwrap(),
        }
    }

    #[test]
    fn patterns_name_the_beginning() {
        for (pattern, locality, expected) in [
            ("*", "r1/z1/s1", Some(0)),
            ("r1/*", "r1/z1/s1", Some(1)),
            ("r1", "r1/z1", Some(1)),
            ("r1/z1/*", "r1/z1/s1", Some(2)),
            ("r1/z1/*", "r1/z2/s1", None),
            ("r1/z1/s1", "r1/z1/s1", Some(3)),
            ("r1/z1/s1", "r1/z1/s2", None),
            ("r1/z1/s1/x", "r1/z1/s1", None),
            ("r2", "r1", None),
        ] {
            assert_eq!(specificity(pattern, &at(locality)), expected, "{pattern} {locality}");
        }
    }

    #[test]
    fn distances() {
        let failover = [RegionFailover { from: "r1".into(), to: "r2".into() }];
        for (there, plain, with_failover) in [
            ("r1/z1/s1", 0, 0),
            ("r1/z1/s2", 1, 1),
            ("r1/z2/s1", 2, 2),
            ("r2/z1/s1", 3, 3),
            ("r3/z1/s1", 3, 4),
        ] {
            let here = at("r1/z1/s1");
            assert_eq!(distance(&here, &at(there), &[]), plain, "{there}");
            assert_eq!(distance(&here, &at(there), &failover), with_failover, "{there}");
        }
    }

    #[test]
    fn what_a_setting_means() {
        let share = |from: &str| LocalityShare { from: from.into(), to: [("r1".into(), 100)].into() };
        let setting = |from: Option<&str>, labels: &[&str]| LocalityBalancing {
            enabled: true,
            distribute: from.map(share).into_iter().collect(),
            failover: vec![],
            failover_priority: labels.iter().map(|label| (*label).into()).collect(),
        };
        let kind = |setting: &LocalityBalancing, outliers| match Order::new(setting, &at("r1/z1"), outliers) {
            Order::Flat => "flat",
            Order::Near(_) => "near",
            Order::Labels(_) => "labels",
            Order::Shares(_) => "shares",
        };
        for (setting, without, with) in [
            (setting(None, &[]), "flat", "near"),
            (setting(None, &["a"]), "flat", "labels"),
            (setting(Some("r1/*"), &[]), "shares", "shares"),
            (setting(Some("r2/*"), &[]), "flat", "flat"),
            (LocalityBalancing::default(), "flat", "flat"),
        ] {
            assert_eq!((kind(&setting, false), kind(&setting, true)), (without, with), "{setting:?}");
        }
    }
}
