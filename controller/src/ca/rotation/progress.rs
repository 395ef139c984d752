//! What agents say of the trust they were told, counted by node. Pure but for the lock.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use warren_common::model::TrustReport;

/// Who is connected to this replica, and what they said last.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    sessions: Arc<Mutex<BTreeMap<u64, Session>>>,
    numbers: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Session {
    node: Arc<str>,
    report: Option<TrustReport>,
}

/// A session's place; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Seat {
    roster: Roster,
    number: u64,
}

impl Roster {
    /// An agent has connected.
    pub(crate) fn join(&self, node: Arc<str>) -> Seat {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.sessions.lock().insert(number, Session { node, report: None });
        Seat { roster: self.clone(), number }
    }

    /// What this replica knows, measured by what it pushes. A node is where we want it when all its sessions are: while
    /// one agent hands over to another it has two.
    pub(crate) fn share(&self, bundle: &str, signer: &str, now: i64) -> Share {
        let mut nodes: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        for session in self.sessions.lock().values() {
            let report = session.report.as_ref();
            let only = |names: &BTreeSet<String>, name: &str| names.iter().all(|one| one == name);
            let has =
                report.is_some_and(|report| only(&report.bundles, bundle) && !report.bundles.is_empty());
            let is_renewed = report.is_some_and(|report| only(&report.signers, signer));
            let node = nodes.entry(session.node.to_string()).or_insert((true, true));
            *node = (node.0 && has, node.1 && is_renewed);
        }
        Share { at: now, bundle: bundle.to_owned(), signer: signer.to_owned(), nodes }
    }
}

impl Seat {
    /// It says how it is.
    pub(crate) fn report(&self, report: TrustReport) {
        if let Some(session) = self.roster.sessions.lock().get_mut(&self.number) {
            session.report = Some(report);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.sessions.lock().remove(&self.number);
    }
}

/// What one replica knows of its agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// Unix seconds.
    pub(crate) at: i64,
    /// What it pushes.
    pub(crate) bundle: String,
    pub(crate) signer: String,
    /// By node: has the bundle, has no certificate but of the signer.
    pub(crate) nodes: BTreeMap<String, (bool, bool)>,
}

/// How far all nodes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Nodes that are connected or have pods of the mesh.
    pub(crate) nodes: usize,
    /// Those that verify peers by the bundle of now, and by nothing else.
    pub(crate) with_bundle: usize,
    /// Those that have no certificate but of the signer of now.
    pub(crate) renewed: usize,
    /// The first few that are not there yet; with why.
    pub(crate) behind: Vec<String>,
}

/// So many nodes that are behind are named.
const NAMED: usize = 10;

impl Progress {
    /// From what replicas say, measured by the leader's bundle and signer; `meshed` are the nodes with pods of the mesh.
    pub(crate) fn gather(shares: &[Share], meshed: &BTreeSet<String>, bundle: &str, signer: &str) -> Self {
        let mut nodes: BTreeMap<&str, (bool, bool, bool)> =
            meshed.iter().map(|node| (node.as_str(), (false, true, true))).collect();
        for share in shares {
            let (same_bundle, same_signer) = (share.bundle == bundle, share.signer == signer);
            for (node, (has, is_renewed)) in &share.nodes {
                let node = nodes.entry(node).or_insert((false, true, true));
                *node = (true, node.1 && *has && same_bundle, node.2 && *is_renewed && same_signer);
            }
        }
        let mut progress = Self { nodes: nodes.len(), ..Self::default() };
        for (node, (is_connected, has, is_renewed)) in nodes {
            progress.with_bundle += usize::from(is_connected && has);
            progress.renewed += usize::from(is_connected && is_renewed);
            if progress.behind.len() < NAMED {
                match (is_connected, has, is_renewed) {
                    (false, ..) => progress.behind.push(format!("{node}: not connected")),
                    (_, false, _) => progress.behind.push(format!("{node}: has other roots")),
                    (_, _, false) => progress.behind.push(format!("{node}: has older certificates")),
                    _ => {}
                }
            }
        }
        progress
    }

    pub(crate) fn all_have_the_bundle(&self) -> bool {
        self.with_bundle == self.nodes
    }

    pub(crate) fn all_are_renewed(&self) -> bool {
        self.renewed == self.nodes
    }
}
