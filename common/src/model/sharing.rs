//! Equal parts of workloads, kept once.
//!
//! A mesh has tens of thousands of workloads and a few hundred Deployments: nearly all of a workload but its name and
//! its address is the same as its siblings'.

use super::{Labels, Served, ServiceName, Workload};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// What is in use somewhere, as far as it was met here. What nobody uses any more is dropped now and then.
#[derive(Debug, Default)]
pub struct Sharing {
    texts: Pool<str>,
    labels: Pool<Labels>,
    served: Pool<Served>,
}

impl Sharing {
    /// Replaces what is equal to something met before by just that. The workload stays equal to what it was.
    pub fn share(&mut self, workload: &mut Workload) {
        let Self { texts, labels, served } = self;
        // Not the uid, the name and the pod's UID: nobody else has the same.
        let Workload { namespace, node, owner, canonical_name, canonical_revision, cluster, .. } = workload;
        for text in [namespace, node, owner, canonical_name, canonical_revision, cluster] {
            texts.share(text);
        }
        let locality = &mut workload.placement.locality;
        for text in [&mut locality.region, &mut locality.zone, &mut locality.subzone] {
            texts.share(text);
        }
        for text in workload.identity.parts_mut() {
            texts.share(text);
        }
        texts.share(&mut workload.placement.network);
        labels.share_as(&mut workload.labels, |labels| {
            labels.iter().map(|(key, value)| (texts.shared(key), texts.shared(value))).collect()
        });
        served.share_as(&mut workload.services, |served| {
            let mut name = |name: &ServiceName| ServiceName {
                namespace: texts.shared(&name.namespace),
                hostname: texts.shared(&name.hostname),
            };
            served.iter().map(|(service, ports)| (name(service), ports.clone())).collect()
        });
    }
}

/// Values of one kind.
#[derive(Debug)]
struct Pool<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// At this size what nobody uses is dropped.
    full: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), full: FIRST_SWEEP }
    }
}

/// Few enough that unused ones don't matter.
const FIRST_SWEEP: usize = 1024;

impl<T: Eq + Hash + ?Sized> Pool<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        *value = self.shared(value);
    }

    fn shared(&mut self, value: &Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(&**value) {
            return known.clone();
        }
        self.insert(value.clone());
        value.clone()
    }

    fn insert(&mut self, value: Arc<T>) {
        if self.known.len() >= self.full {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.full = FIRST_SWEEP.max(self.known.len() * 2);
        }
        self.known.insert(value);
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// As `share`; what is met for the first time is made anew of parts that are themselves shared.
    fn share_as(&mut self, value: &mut Arc<T>, make: impl FnOnce(&T) -> T) {
        if !self.known.contains(&**value) {
            self.insert(Arc::new(make(value)));
        }
        self.share(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Enrolment, Health, Identity, PeerAuthentication, Placement, PortMapping, TunnelProtocol,
        WorkloadKind, WorkloadUid,
    };

    fn workload(number: u32, team: &str) -> Workload {
        let service = ServiceName { namespace: team.into(), hostname: "web.team.svc.cluster.local".into() };
        let ports = vec![PortMapping { service_port: 80, target_port: 8080 }];
        let text = |text: &str| Arc::<str>::from(text);
        Workload {
            uid: WorkloadUid(format!("Kubernetes//Pod/{team}/web-{number}").into()),
            name: format!("web-{number}").into(),
            namespace: text(team),
            addresses: vec![],
            identity: Identity::new("cluster.local", team, "web").unwrap(),
            node: text("n1"),
            host_network: false,
            tunnel: TunnelProtocol::Hbone,
            health: Health::Healthy,
            owner: text("web"),
            kind: WorkloadKind::Deployment,
            canonical_name: text("web"),
            canonical_revision: text("v1"),
            cluster: text("Kubernetes"),
            services: Arc::new([(service, ports)].into()),
            labels: Arc::new([(text("team"), text(team))].into()),
            enrolment: Enrolment::default(),
            peer_authentication: PeerAuthentication::default(),
            authorization_policies: vec![],
            placement: Placement::default(),
        }
    }

    #[test]
    fn siblings_share_all_but_their_names_and_stay_what_they_were() {
        let mut sharing = Sharing::default();
        let [mut one, mut two, mut other] = [workload(1, "a"), workload(2, "a"), workload(3, "b")];
        let before = [one.clone(), two.clone(), other.clone()];
        for workload in [&mut one, &mut two, &mut other] {
            sharing.share(workload);
        }
        assert_eq!([&one, &two, &other], [&before[0], &before[1], &before[2]]);
        assert!(Arc::ptr_eq(&one.labels, &two.labels) && Arc::ptr_eq(&one.services, &two.services));
        assert!(Arc::ptr_eq(&one.namespace, &two.namespace) && Arc::ptr_eq(&one.node, &other.node));
        assert!(!Arc::ptr_eq(&one.labels, &other.labels));
        // The maps' own parts too.
        let host = |workload: &Workload| workload.services.keys().next().unwrap().hostname.clone();
        assert!(Arc::ptr_eq(&host(&one), &host(&other)));
        assert!(Arc::ptr_eq(&other.namespace, other.labels.get("team").unwrap()));
    }

    #[test]
    fn what_nobody_uses_goes() {
        let mut pool = Pool::<str>::default();
        let kept: Vec<Arc<str>> =
            (0..100).map(|number| pool.shared(&format!("kept-{number}").into())).collect();
        for number in 0..20 * FIRST_SWEEP {
            pool.shared(&number.to_string().into());
        }
        assert!(pool.known.len() <= FIRST_SWEEP, "{}", pool.known.len());
        assert!(kept.iter().all(|text| Arc::ptr_eq(text, &pool.shared(text))));
    }
}
