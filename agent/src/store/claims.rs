//! Who owns an address when several resources say that they do.
//!
//! Removal of an old pod and arrival of the new one that got its address come in either order, so an address
//! has a list of claimants. The best one holds it:
//!
//! 1. a pod that has the address for itself, the newest arrival first: the older one is about to be removed;
//! 2. then what shares it with its node (host network), or was written down by hand (a ServiceEntry's endpoint, a
//!    WorkloadEntry, an endpoint of a slice), the oldest first, so that the answer does not wander. Nobody takes a pod's address
//!    from it by writing it down, nor its tunnel.
//!
//! An update of a claimant does not change its place: the last words of a dying pod don't steal its address back.

use crate::hash::SharedMap;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::{Service, Workload};

/// What can own addresses.
pub(super) trait Claimant {
    /// Whether both are versions of one resource.
    fn is_same(&self, other: &Self) -> bool;
    /// What it claims.
    fn addresses(&self) -> &[IpAddr];
    /// Whether it shares its addresses with others.
    fn shares(&self) -> bool;
}

impl Claimant for Workload {
    fn is_same(&self, other: &Self) -> bool {
        self.uid == other.uid
    }

    fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    fn shares(&self) -> bool {
        !self.has_own_addresses()
    }
}

impl Claimant for Service {
    fn is_same(&self, other: &Self) -> bool {
        self.key == other.key
    }

    fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    fn shares(&self) -> bool {
        false
    }
}

/// Addresses and their claimants.
#[derive(Debug)]
pub(super) struct ByAddress<T>(SharedMap<IpAddr, Claims<T>>);

/// The claimants of one address. Nearly always there is one: `waiting` then allocates nothing.
#[derive(Debug)]
struct Claims<T> {
    holder: Arc<T>,
    waiting: Vec<Arc<T>>,
}

// Derived impls would ask for `T: Clone`.
impl<T> Clone for Claims<T> {
    fn clone(&self) -> Self {
        Self { holder: self.holder.clone(), waiting: self.waiting.clone() }
    }
}

impl<T> Clone for ByAddress<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self(SharedMap::default())
    }
}

impl<T: Claimant> ByAddress<T> {
    /// Who holds `ip`.
    pub(super) fn get(&self, ip: IpAddr) -> Option<&Arc<T>> {
        self.0.get(&ip.to_canonical()).map(|claims| &claims.holder)
    }

    /// Everybody who claims `ip`, the holder first.
    pub(super) fn claimants(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<T>> {
        let claims = self.0.get(&ip.to_canonical()).into_iter();
        claims.flat_map(|claims| std::iter::once(&claims.holder).chain(&claims.waiting))
    }

    /// `old` (if any) is replaced by `new` (if any).
    pub(super) fn replace(&mut self, old: Option<&Arc<T>>, new: Option<&Arc<T>>) {
        if let Some(old) = old {
            let kept = |ip: &IpAddr| {
                new.is_some_and(|new| new.addresses().contains(ip) && new.shares() == old.shares())
            };
            for ip in old.addresses().iter().filter(|ip| !kept(ip)) {
                self.release(*ip, old);
            }
        }
        for ip in new.iter().flat_map(|new| new.addresses()) {
            if let Some(new) = new {
                self.claim(*ip, new);
            }
        }
    }

    fn claim(&mut self, ip: IpAddr, new: &Arc<T>) {
        let Some(claims) = self.0.get_mut(&ip.to_canonical()) else {
            self.0.insert(ip.to_canonical(), Claims { holder: new.clone(), waiting: Vec::new() });
            return;
        };
        let all = std::iter::once(&mut claims.holder).chain(&mut claims.waiting);
        if let Some(own) = all.into_iter().find(|claimant| claimant.is_same(new)) {
            *own = new.clone();
        } else if new.shares() {
            claims.waiting.push(new.clone());
        } else {
            let displaced = std::mem::replace(&mut claims.holder, new.clone());
            claims.waiting.insert(0, displaced);
        }
    }

    fn release(&mut self, ip: IpAddr, old: &Arc<T>) {
        let ip = ip.to_canonical();
        let Some(claims) = self.0.get_mut(&ip) else { return };
        if !claims.holder.is_same(old) {
            claims.waiting.retain(|claimant| !claimant.is_same(old));
        } else if claims.waiting.is_empty() {
            self.0.remove(&ip);
        } else {
            claims.holder = claims.waiting.remove(0);
        }
    }
}
