//! Who is inside, by pod, and what they were judged by.

use super::{TunnelId, Visitor};
use crate::policy::{Connection, Decision, Denial, Effective, Policies};
use crate::store::Mesh;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::oneshot;
use warren_common::model::Workload;

/// All that came through one gate and has not left.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// By `metadata.uid`: a name may be another pod's by now.
    pods: HashMap<Arc<str>, Pod>,
    next: u64,
}

/// Where everybody is to be judged again.
#[derive(Debug)]
pub(super) struct Stale {
    pub(super) pods: Vec<Arc<str>>,
    /// There are others, of which it is better known in a moment.
    pub(super) unsettled: bool,
}

#[derive(Debug)]
struct Pod {
    /// As it was enrolled: counts while the mesh does not know it.
    enrolled: Arc<Workload>,
    /// What `effective` was made of.
    workload: Arc<Workload>,
    policies: Policies,
    effective: Effective,
    /// Who is inside was judged by another `effective`.
    is_stale: bool,
    visits: BTreeMap<u64, Visit>,
}

#[derive(Debug)]
struct Visit {
    visitor: Visitor,
    evict: oneshot::Sender<Denial>,
}

impl Pod {
    fn new(mesh: &Mesh, enrolled: &Arc<Workload>) -> Self {
        let workload = mesh.pod(enrolled).unwrap_or(enrolled);
        Self {
            enrolled: Arc::clone(enrolled),
            workload: Arc::clone(workload),
            policies: mesh.policies().clone(),
            effective: Effective::new(mesh.policies(), workload),
            is_stale: false,
            visits: BTreeMap::new(),
        }
    }

    /// Takes up what the mesh says now.
    fn refresh(&mut self, mesh: &Mesh) {
        let workload = mesh.pod(&self.enrolled).unwrap_or(&self.enrolled);
        if Arc::ptr_eq(workload, &self.workload) && mesh.policies().is_same(&self.policies) {
            return;
        }
        let effective = Effective::new(mesh.policies(), workload);
        self.is_stale |= !effective.is_same(&self.effective);
        self.effective = effective;
        self.workload = Arc::clone(workload);
        self.policies = mesh.policies().clone();
    }
}

impl Inside {
    /// Judges who wants to enter `pod`, by what the mesh says now; and whether that hinges on the server name.
    pub(super) fn judge(
        &mut self,
        mesh: &Mesh,
        pod: &Arc<Workload>,
        connection: &Connection<'_>,
    ) -> (Decision, bool) {
        // The key is cloned only for a pod that nobody has entered yet.
        let uid = &pod.enrolment.pod_uid;
        if !self.pods.contains_key(uid) {
            self.pods.insert(Arc::clone(uid), Pod::new(mesh, pod));
        }
        let judge = |effective: &Effective| {
            (effective.judge(connection), effective.hinges_on_server_name(connection))
        };
        match self.pods.get_mut(uid) {
            Some(known) => {
                known.refresh(mesh);
                judge(&known.effective)
            }
            None => judge(&Effective::new(mesh.policies(), pod)),
        }
    }

    /// The place of somebody who was just judged, and where their eviction will be told.
    pub(super) fn take_place(
        &mut self,
        pod: &Arc<str>,
        visitor: Visitor,
    ) -> (u64, oneshot::Receiver<Denial>) {
        let (evict, evicted) = oneshot::channel();
        let place = self.next_number();
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.visits.insert(place, Visit { visitor, evict });
        }
        (place, evicted)
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn evict(&mut self, pod: &Arc<str>, tunnel: TunnelId, denial: &Denial) -> usize {
        let Some(pod) = self.pods.get_mut(pod) else { return 0 };
        let through = pod.visits.extract_if(.., |_, visit| visit.visitor.tunnel == Some(tunnel));
        let mut evicted = 0;
        for (_, visit) in through {
            evicted += 1;
            // Who is not there to hear it has gone already.
            let _ = visit.evict.send(denial.clone());
        }
        evicted
    }

    /// The pod as it was enrolled, and who has this place.
    pub(super) fn visit(&self, pod: &Arc<str>, place: u64) -> Option<(Arc<Workload>, Visitor)> {
        let pod = self.pods.get(pod)?;
        Some((Arc::clone(&pod.enrolled), pod.visits.get(&place)?.visitor.clone()))
    }

    pub(super) fn leave(&mut self, pod: &Arc<str>, place: u64) {
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.visits.remove(&place);
        }
    }

    /// Takes up what the mesh says now. Pods that are empty and gone are forgotten; with `patience_is_over` none is left
    /// unsettled.
    pub(super) fn refresh(&mut self, mesh: &Mesh, patience_is_over: bool) -> Stale {
        self.pods.retain(|_, pod| !pod.visits.is_empty() || mesh.pod(&pod.enrolled).is_some());
        let mut stale = Stale { pods: Vec::new(), unsettled: false };
        for (uid, pod) in &mut self.pods {
            pod.refresh(mesh);
            if pod.is_stale && pod.effective.may_settle() && !patience_is_over {
                stale.unsettled = true;
            } else if std::mem::take(&mut pod.is_stale) {
                stale.pods.push(Arc::clone(uid));
            }
        }
        stale
    }

    /// Everybody inside a pod.
    pub(super) fn places(&self, pod: &Arc<str>) -> Vec<u64> {
        self.pods.get(pod).map(|pod| pod.visits.keys().copied().collect()).unwrap_or_default()
    }

    /// Judges those of `places` who are still there; how many had to go.
    pub(super) fn judge_again(&mut self, pod: &Arc<str>, places: &[u64]) -> usize {
        let Some(Pod { effective, visits, .. }) = self.pods.get_mut(pod) else { return 0 };
        let mut evicted = 0;
        for place in places {
            let Some(visit) = visits.get(place) else { continue };
            if let Err(denial) = effective.judge(&visit.visitor.connection()).verdict
                && let Some(visit) = visits.remove(place)
            {
                evicted += 1;
                // Who is not there to hear it has gone already.
                let _ = visit.evict.send(denial);
            }
        }
        evicted
    }
}
