//! One snapshot of the mesh, and its indexes.

use super::Sought;
use super::claims::ByAddress;
use crate::hash::SharedMap;
use crate::policy::Policies;
use imbl::{HashSet, OrdMap, OrdSet, Vector};
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::Traffic;
use warren_common::model::{Service, ServiceName, TrustBundle, Workload, WorkloadUid};

/// Workloads, services, policies and routes at one point in time.
///
/// Cloning costs a few reference counts; a change copies only the paths to what changed, so old snapshots stay
/// as they are while they are read.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    pub(super) workloads: OrdMap<WorkloadUid, Arc<Workload>>,
    pub(super) services: OrdMap<ServiceName, Arc<Service>>,
    pub(super) workloads_by_ip: ByAddress<Workload>,
    pub(super) services_by_ip: ByAddress<Service>,
    // Both ordered by uid and never empty. A service's workloads may be known before the service is.
    pub(super) endpoints: SharedMap<ServiceName, Vector<Arc<Workload>>>,
    pub(super) by_node: SharedMap<Arc<str>, Vector<Arc<Workload>>>,
    // None until the controller has said.
    pub(super) enrolled_namespaces: Option<OrdSet<Arc<str>>>,
    pub(super) policies: Policies,
    // Also of services that are not known (yet).
    pub(super) traffic: OrdMap<ServiceName, Arc<Traffic>>,
    // Kept on disk by whoever uses it.
    pub(super) trust: Option<Arc<TrustBundle>>,
    pub(super) scope: Scope,
}

/// How much of the mesh this is.
#[derive(Clone, Debug, Default)]
pub(super) enum Scope {
    /// All of it: an address that nothing here has is outside the mesh, and other services than these there are none.
    #[default]
    Everything,
    /// What was asked for.
    Asked {
        /// Of these the controller said that nothing has the address or name.
        absent: HashSet<Sought>,
        /// Of these it said what has it.
        told: HashSet<Sought>,
    },
}

impl Mesh {
    /// The workload of that name.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The pod that `known` is, as it is now. None once it is gone, whoever has its name then.
    pub fn pod(&self, known: &Workload) -> Option<&Arc<Workload>> {
        self.workload(&known.uid).filter(|now| now.enrolment.pod_uid == known.enrolment.pod_uid)
    }

    /// The workload that has `ip`. A pod with an address of its own comes before those that share their node's;
    /// among several of either kind see [`claims`](super).
    pub fn workload_by_ip(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads_by_ip.get(ip)
    }

    /// Every workload that claims `ip`, the one that has it first.
    pub fn workloads_by_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads_by_ip.claimants(ip)
    }

    /// The service that has the virtual address `ip`.
    pub fn service_by_ip(&self, ip: IpAddr) -> Option<&Arc<Service>> {
        self.services_by_ip.get(ip)
    }

    /// Every service that claims the virtual address `ip`, the one that has it first: not every client may know
    /// every service.
    pub fn services_by_ip(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<Service>> {
        self.services_by_ip.claimants(ip)
    }

    /// Whether nothing more is to be learned about who has `ip`: a service or a pod here has it, or nobody in the mesh. Who shares an
    /// address, or was written down for it, may have come without the pod that has it: that is known once it was asked about.
    pub fn knows(&self, ip: IpAddr) -> bool {
        let holder = || self.workload_by_ip(ip);
        self.knows_of_absence(&ip.into())
            || self.service_by_ip(ip).is_some()
            || holder().is_some_and(|holder| holder.has_own_addresses() || self.was_told(&ip.into()))
    }

    /// Whether nothing more is to be learned about the service of that name: it is here, or there is none. One without addresses may
    /// have come with one of its endpoints alone.
    pub fn knows_service(&self, name: &ServiceName) -> bool {
        let is_here =
            |service: &Service| !service.addresses.is_empty() || self.was_told(&name.clone().into());
        self.service(name).is_some_and(|service| is_here(service))
            || self.knows_of_absence(&name.clone().into())
    }

    /// [`Self::knows`] or [`Self::knows_service`].
    pub fn tells(&self, sought: &Sought) -> bool {
        match sought {
            Sought::Address(ip) => self.knows(*ip),
            Sought::Service(name) => self.knows_service(name),
        }
    }

    /// Whether what is not here is not there either.
    fn knows_of_absence(&self, sought: &Sought) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Asked { absent, .. } => absent.contains(sought),
        }
    }

    fn was_told(&self, sought: &Sought) -> bool {
        match &self.scope {
            Scope::Everything => true,
            Scope::Asked { told, .. } => told.contains(sought),
        }
    }

    /// What was asked about and does not exist.
    pub fn absent(&self) -> impl Iterator<Item = &Sought> {
        let absent = match &self.scope {
            Scope::Everything => None,
            Scope::Asked { absent, .. } => Some(absent),
        };
        absent.into_iter().flatten()
    }

    /// The service of that name.
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Every workload that stands behind a service, healthy or not, ordered by uid. The length is known.
    pub fn endpoints(&self, name: &ServiceName) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        match self.endpoints.get(name) {
            Some(list) => Members::Some(list.iter()),
            None => Members::None,
        }
    }

    /// The endpoint at place `index` of [`Self::endpoints`], in O(log n).
    pub fn endpoint_at(&self, name: &ServiceName, index: usize) -> Option<&Arc<Workload>> {
        self.endpoints.get(name)?.get(index)
    }

    /// Every workload, ordered by uid.
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// Every service, ordered by namespace and hostname.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Every workload that runs on `node`, enrolled or not, host network included, ordered by uid.
    pub fn pods_of_node(&self, node: &str) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        match self.by_node.get(node) {
            Some(list) => Members::Some(list.iter()),
            None => Members::None,
        }
    }

    /// The namespaces that enrol their pods; none until the controller has said which, which a configuration from
    /// disk does not.
    pub fn enrolled_namespaces(&self) -> Option<&OrdSet<Arc<str>>> {
        self.enrolled_namespaces.as_ref()
    }

    /// Routes and policies of the traffic to a service; none: connections go to its endpoints as they are.
    pub fn traffic(&self, service: &ServiceName) -> Option<&Arc<Traffic>> {
        self.traffic.get(service)
    }

    /// All routes and policies, ordered by the services that they are of.
    pub fn all_traffic(&self) -> impl ExactSizeIterator<Item = &Arc<Traffic>> {
        self.traffic.values()
    }

    /// Whom to trust, as the controller last said since the agent started.
    pub fn trust(&self) -> Option<&Arc<TrustBundle>> {
        self.trust.as_ref()
    }

    /// The policies.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }
}

/// The members of a list that may not exist.
enum Members<I> {
    Some(I),
    None,
}

impl<I: ExactSizeIterator> Iterator for Members<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        match self {
            Self::Some(list) => list.next(),
            Self::None => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Some(list) => list.size_hint(),
            Self::None => (0, Some(0)),
        }
    }
}

impl<I: ExactSizeIterator> ExactSizeIterator for Members<I> {}
