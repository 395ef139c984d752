//! Changes to the mesh. Pure: a snapshot and changes in, the next snapshot out.

use super::Sought;
use super::mesh::{Mesh, Scope};
use crate::hash::SharedMap;
use crate::policy::Refused;
use imbl::{OrdSet, Vector};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::Traffic;
use warren_common::model::{
    AuthorizationPolicy, Identity, PolicyName, Service, ServiceName, TrustBundle, Workload, WorkloadUid,
};

/// One change to the mesh.
#[derive(Clone, Debug, PartialEq)]
pub enum MeshChange {
    /// A workload is new or changed.
    Workload(Arc<Workload>),
    /// A service is new or changed.
    Service(Arc<Service>),
    /// The resource of this name is gone: a workload's uid, or a service's `namespace/hostname`.
    Remove(String),
    /// These namespaces enrol their pods from now on, and those do not any more. Empty at first: none does.
    Namespaces {
        /// Their label says so now.
        enrolled: Vec<Arc<str>>,
        /// It does not any more.
        released: Vec<Arc<str>>,
    },
    /// Which policies there are is being told, be it that there are none.
    Policies,
    /// A policy is new or changed.
    Policy(Arc<AuthorizationPolicy>),
    /// A policy is not understood: its last good version stays, and without one nobody enters what it may be for.
    PolicyRefused(PolicyName, Refused),
    /// A policy is gone.
    PolicyGone(PolicyName),
    /// These identities, and no others, are revoked.
    Revoked(OrdSet<Identity>),
    /// Routes and policies of a service are new or changed.
    Traffic(Arc<Traffic>),
    /// What is said of a service is not understood: what was known of it stays, and without it this stands in.
    TrafficRefused(Arc<Traffic>),
    /// Nothing is said any more about the traffic to the service of this name, `namespace/hostname`.
    TrafficGone(String),
    /// The controller says whom to trust.
    Trust(Arc<TrustBundle>),
    /// This was asked about, and nothing has that address or name.
    Absent(Sought),
    /// This was asked about, and all that has that address or name is here.
    Told(Sought),
    /// This is not asked about any more: what has it will not be told.
    Forget(Sought),
}

impl Mesh {
    /// Applies `changes` in their order and tells whether any of them changed anything.
    ///
    /// Resources share one space of names, as on the wire: a service replaces a workload of the same name.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = MeshChange>) -> bool {
        let (mut changed, mut judged_otherwise) = (false, false);
        for change in changes {
            changed |= match change {
                MeshChange::Workload(workload) => {
                    let replaced =
                        service_name(&workload.uid.0).is_some_and(|name| self.remove_service(&name));
                    self.put_workload(workload) || replaced
                }
                MeshChange::Service(service) => {
                    let replaced = self.remove_workload(&WorkloadUid(service.key.to_string().into()));
                    self.put_service(service) || replaced
                }
                MeshChange::Remove(name) => {
                    self.remove_workload(&WorkloadUid(name.as_str().into()))
                        || service_name(&name).is_some_and(|name| self.remove_service(&name))
                }
                MeshChange::Namespaces { enrolled, released } => self.put_namespaces(enrolled, &released),
                MeshChange::Policies => note(&mut judged_otherwise, self.policies.told()),
                MeshChange::Policy(policy) => note(&mut judged_otherwise, self.policies.put(policy)),
                MeshChange::PolicyRefused(name, refused) => {
                    note(&mut judged_otherwise, self.policies.refuse(name, refused))
                }
                MeshChange::PolicyGone(name) => note(&mut judged_otherwise, self.policies.remove(&name)),
                MeshChange::Revoked(identities) => {
                    note(&mut judged_otherwise, self.policies.revoke(identities))
                }
                MeshChange::Traffic(traffic) => self.put_traffic(traffic),
                MeshChange::TrafficRefused(stand_in) => {
                    let known = self.traffic.get(&stand_in.service);
                    known.is_none_or(|known| known.refused.is_some()) && self.put_traffic(stand_in)
                }
                MeshChange::TrafficGone(name) => {
                    service_name(&name).is_some_and(|name| self.traffic.remove(&name).is_some())
                }
                MeshChange::Trust(bundle) => {
                    self.trust.replace(bundle.clone()).is_none_or(|before| before != bundle)
                }
                MeshChange::Absent(sought) => self.note_absent(sought, true),
                MeshChange::Told(sought) => self.note_told(sought, true),
                MeshChange::Forget(sought) => {
                    let was_told = self.note_told(sought.clone(), false);
                    self.note_absent(sought, false) || was_told
                }
            };
        }
        if judged_otherwise {
            self.policies.settle();
        }
        changed
    }

    fn put_namespaces(&mut self, enrolled: Vec<Arc<str>>, released: &[Arc<str>]) -> bool {
        let before = self.enrolled_namespaces.clone();
        let namespaces = self.enrolled_namespaces.get_or_insert_default();
        namespaces.extend(enrolled);
        for name in released {
            namespaces.remove(name);
        }
        self.enrolled_namespaces != before
    }

    fn note_absent(&mut self, sought: Sought, is_absent: bool) -> bool {
        match &mut self.scope {
            Scope::Everything => false,
            Scope::Asked { absent, .. } if is_absent => absent.insert(sought).is_none(),
            Scope::Asked { absent, .. } => absent.remove(&sought).is_some(),
        }
    }

    fn note_told(&mut self, sought: Sought, is_told: bool) -> bool {
        match &mut self.scope {
            Scope::Everything => false,
            Scope::Asked { told, .. } if is_told => told.insert(sought).is_none(),
            Scope::Asked { told, .. } => told.remove(&sought).is_some(),
        }
    }

    /// What has an address is not followed by the word that nothing has it: that is told again when it is gone.
    fn note_present(&mut self, addresses: &[IpAddr]) {
        for ip in addresses {
            self.note_absent((*ip).into(), false);
        }
    }

    fn put_workload(&mut self, workload: Arc<Workload>) -> bool {
        let old = self.workloads.get(&workload.uid).cloned();
        if old.as_ref() == Some(&workload) {
            return false;
        }
        self.note_present(&workload.addresses);
        self.workloads_by_ip.replace(old.as_ref(), Some(&workload));
        if let Some(old) = &old {
            for name in old.services.keys().filter(|name| !workload.services.contains_key(*name)) {
                leave(&mut self.endpoints, name, &old.uid);
            }
            if old.node != workload.node {
                leave(&mut self.by_node, &old.node, &old.uid);
            }
        }
        for name in workload.services.keys() {
            join(&mut self.endpoints, name, &workload);
        }
        if !workload.node.is_empty() {
            join(&mut self.by_node, &workload.node, &workload);
        }
        self.workloads.insert(workload.uid.clone(), workload);
        true
    }

    fn remove_workload(&mut self, uid: &WorkloadUid) -> bool {
        let Some(old) = self.workloads.remove(uid) else {
            return false;
        };
        self.workloads_by_ip.replace(Some(&old), None);
        for name in old.services.keys() {
            leave(&mut self.endpoints, name, uid);
        }
        leave(&mut self.by_node, &old.node, uid);
        true
    }

    fn put_service(&mut self, service: Arc<Service>) -> bool {
        let old = self.services.get(&service.key).cloned();
        if old.as_ref() == Some(&service) {
            return false;
        }
        self.note_present(&service.addresses);
        self.note_absent(service.key.clone().into(), false);
        self.services_by_ip.replace(old.as_ref(), Some(&service));
        self.services.insert(service.key.clone(), service);
        true
    }

    fn put_traffic(&mut self, traffic: Arc<Traffic>) -> bool {
        if self.traffic.get(&traffic.service) == Some(&traffic) {
            return false;
        }
        self.traffic.insert(traffic.service.clone(), traffic);
        true
    }

    fn remove_service(&mut self, name: &ServiceName) -> bool {
        let Some(old) = self.services.remove(name) else {
            return false;
        };
        self.services_by_ip.replace(Some(&old), None);
        true
    }
}

/// Remembers in `any` that something changed.
fn note(any: &mut bool, changed: bool) -> bool {
    *any |= changed;
    changed
}

/// The service that a resource's name means, if it can mean one.
fn service_name(name: &str) -> Option<ServiceName> {
    let (namespace, hostname) = name.split_once('/')?;
    Some(ServiceName { namespace: namespace.into(), hostname: hostname.into() })
}

type Lists<K> = SharedMap<K, Vector<Arc<Workload>>>;

/// Puts `workload` into the list of `key`, in place of its older version if that is there.
fn join<K: Clone + Eq + Hash>(lists: &mut Lists<K>, key: &K, workload: &Arc<Workload>) {
    let list = lists.entry(key.clone()).or_default();
    match list.binary_search_by(|member| member.uid.cmp(&workload.uid)) {
        Ok(place) => {
            list.set(place, workload.clone());
        }
        Err(place) => list.insert(place, workload.clone()),
    }
}

/// Takes a workload out of the list of `key`; an empty list goes.
fn leave<K: Clone + Eq + Hash>(lists: &mut Lists<K>, key: &K, uid: &WorkloadUid) {
    let Some(list) = lists.get_mut(key) else { return };
    if let Ok(place) = list.binary_search_by(|member| member.uid.cmp(uid)) {
        list.remove(place);
    }
    if list.is_empty() {
        lists.remove(key);
    }
}
