//! What the container runtime said of this node's sandboxes: a pod's addresses are known by it before anybody else
//! knows them.
//!
//! ```text
//!            ADD                     DEL of this sandbox
//!   (none) ------> live: its addresses ----------------> gone: the pod is not to be captured
//!                    |                                     |
//!                    '--- the controller tells of other addresses, or of no such pod ---> (none)
//! ```
//!
//! Kept on disk, so that an agent that starts while the API server is away finds the pods that have started since.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use warren_common::model::Workload;

/// Its name in the state directory.
pub(super) const FILE: &str = "sandboxes.json";

/// So many addresses of earlier sandboxes are remembered, the latest first.
const OUTDATED: usize = 16;

/// One pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sandbox {
    container_id: String,
    addresses: Vec<IpAddr>,
    /// Addresses of the pod's earlier sandboxes, which the controller may still tell of, or even hear of only now.
    outdated: Vec<IpAddr>,
    gone: bool,
}

/// The sandboxes by their pods' UIDs.
#[derive(Debug, Default)]
pub(super) struct Sandboxes {
    path: Option<PathBuf>,
    by_pod: BTreeMap<Arc<str>, Sandbox>,
}

impl Sandboxes {
    /// Those that an earlier agent left in `folder`. A damaged file is reported and counts as none.
    pub(super) fn load(folder: Option<PathBuf>) -> Self {
        let path = folder.map(|folder| folder.join(FILE));
        let read = |path: &PathBuf| match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        };
        let by_pod = path.as_ref().map(read).transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, file = FILE, "what was known of this node's sandboxes is lost");
            None
        });
        Self { path, by_pod: by_pod.unwrap_or_default() }
    }

    /// The workload with the addresses that it has, which may not be those that the controller knows. None while it
    /// has none, and after its network has gone.
    pub(super) fn effective(&self, workload: &Arc<Workload>) -> Option<Arc<Workload>> {
        let told = &workload.addresses;
        let sandbox =
            self.by_pod.get(&workload.enrolment.pod_uid).filter(|sandbox| !sandbox.is_older_than(told));
        match sandbox {
            Some(sandbox) if sandbox.gone => None,
            Some(sandbox) if sandbox.addresses == *told => Some(Arc::clone(workload)),
            Some(sandbox) => {
                Some(Arc::new(Workload { addresses: sandbox.addresses.clone(), ..Workload::clone(workload) }))
            }
            None => (!told.is_empty()).then(|| Arc::clone(workload)),
        }
    }

    /// A pod's sandbox has these addresses now.
    pub(super) fn add(&mut self, workload: &Workload, container_id: &str, addresses: &[IpAddr]) {
        let earlier = self.by_pod.get(&workload.enrolment.pod_uid);
        let earlier =
            earlier.into_iter().flat_map(|earlier| earlier.addresses.iter().chain(&earlier.outdated));
        let mut outdated: Vec<IpAddr> = Vec::new();
        for ip in workload.addresses.iter().chain(earlier) {
            if !addresses.contains(ip) && !outdated.contains(ip) && outdated.len() < OUTDATED {
                outdated.push(*ip);
            }
        }
        let sandbox = Sandbox {
            container_id: container_id.to_owned(),
            addresses: addresses.to_vec(),
            outdated,
            gone: false,
        };
        let before = self.by_pod.insert(Arc::clone(&workload.enrolment.pod_uid), sandbox.clone());
        if before != Some(sandbox) {
            self.save();
        }
    }

    /// A sandbox goes. Returns its pod, unless the pod has another sandbox by now.
    pub(super) fn remove(&mut self, container_id: &str) -> Option<Arc<str>> {
        let (uid, sandbox) =
            self.by_pod.iter_mut().find(|(_, sandbox)| sandbox.container_id == container_id)?;
        let uid = Arc::clone(uid);
        if !sandbox.gone {
            sandbox.gone = true;
            self.save();
        }
        Some(uid)
    }

    /// Forgets the pods that are not of this node any more.
    pub(super) fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        let before = self.by_pod.len();
        self.by_pod.retain(|uid, _| exists(uid));
        if self.by_pod.len() != before {
            self.save();
        }
    }

    /// Not flushed to the disk: the sandboxes do not outlive the machine either.
    fn save(&self) {
        let Some(path) = &self.path else { return };
        let written = serde_json::to_vec(&self.by_pod).map_err(io::Error::from).and_then(|bytes| {
            let beside = path.with_extension("new");
            std::fs::write(&beside, bytes)?;
            std::fs::rename(beside, path)
        });
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot note this node's sandboxes");
        }
    }
}

impl Sandbox {
    /// Whether what the controller tells is of a later sandbox than this, one that nobody announced here.
    fn is_older_than(&self, told: &[IpAddr]) -> bool {
        // The kubelet may report one address of two.
        !told.iter().all(|ip| self.addresses.contains(ip) || self.outdated.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn told(addresses: &[u8]) -> Arc<Workload> {
        pod("web", "u1", &addresses.iter().map(|last| ip(*last)).collect::<Vec<_>>(), true)
    }

    fn addresses(sandboxes: &Sandboxes, of: &[u8]) -> Option<Vec<IpAddr>> {
        sandboxes.effective(&told(of)).map(|workload| workload.addresses.clone())
    }

    #[test]
    fn without_a_sandbox_the_controllers_word_counts() {
        let none = Sandboxes::default();
        assert_eq!(addresses(&none, &[]), None);
        assert_eq!(addresses(&none, &[1]), Some(vec![ip(1)]));
    }

    #[test]
    fn a_sandbox_is_ahead_of_the_controller_until_it_is_behind() {
        let mut sandboxes = Sandboxes::default();
        sandboxes.add(&told(&[]), "c1", &[ip(1), ip(2)]);
        for (of, expected) in [
            (&[][..], Some(vec![ip(1), ip(2)])),
            (&[1, 2], Some(vec![ip(1), ip(2)])),
            // The kubelet reports one of two.
            (&[1], Some(vec![ip(1), ip(2)])),
            // A sandbox that nobody announced.
            (&[3], Some(vec![ip(3)])),
        ] {
            assert_eq!(addresses(&sandboxes, of), expected, "{of:?}");
        }
        // Made again, while the controller still tells of the first.
        sandboxes.add(&told(&[1, 2]), "c2", &[ip(4)]);
        assert_eq!(addresses(&sandboxes, &[1, 2]), Some(vec![ip(4)]));
        assert_eq!(addresses(&sandboxes, &[4]), Some(vec![ip(4)]));
        assert_eq!(addresses(&sandboxes, &[5]), Some(vec![ip(5)]));
    }

    #[test]
    fn late_news_of_an_earlier_sandbox_is_none() {
        let mut sandboxes = Sandboxes::default();
        sandboxes.add(&told(&[]), "c1", &[ip(1)]);
        sandboxes.add(&told(&[]), "c2", &[ip(2)]);
        sandboxes.add(&told(&[1]), "c3", &[ip(3)]);
        for of in [&[][..], &[1], &[2], &[3]] {
            assert_eq!(addresses(&sandboxes, of), Some(vec![ip(3)]), "{of:?}");
        }
        assert_eq!(addresses(&sandboxes, &[4]), Some(vec![ip(4)]));
    }

    #[test]
    fn only_the_sandbox_that_goes_takes_its_pod_along() {
        let mut sandboxes = Sandboxes::default();
        sandboxes.add(&told(&[]), "c1", &[ip(1)]);
        sandboxes.add(&told(&[1]), "c2", &[ip(2)]);
        assert_eq!(sandboxes.remove("c1"), None, "an earlier one");
        assert_eq!(sandboxes.remove("c2").as_deref(), Some("u1"));
        assert_eq!(addresses(&sandboxes, &[2]), None);
        assert_eq!(addresses(&sandboxes, &[3]), Some(vec![ip(3)]), "a later one that nobody announced");
        sandboxes.add(&told(&[2]), "c3", &[ip(2)]);
        assert_eq!(addresses(&sandboxes, &[2]), Some(vec![ip(2)]));
    }

    #[test]
    fn they_survive_the_agent_and_damage_is_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Sandboxes::load(Some(folder.path().to_owned()));
        let mut sandboxes = load();
        sandboxes.add(&told(&[]), "c1", &[ip(1)]);
        assert_eq!(addresses(&load(), &[]), Some(vec![ip(1)]));
        sandboxes.retain(|uid| uid != "u1");
        assert_eq!(addresses(&load(), &[]), None);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(addresses(&load(), &[]), None);
    }
}
