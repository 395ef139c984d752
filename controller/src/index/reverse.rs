//! From a property to the names of the objects that have it.

use crate::objects::Name;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// A multimap that keeps no empty sets, so equal contents compare equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reverse<K>(BTreeMap<K, BTreeSet<Name>>);

impl<K> Default for Reverse<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Reverse<K> {
    pub(super) fn insert_all<'a>(&mut self, keys: impl IntoIterator<Item = &'a K>, name: &Name)
    where
        K: 'a,
    {
        for key in keys {
            self.0.entry(key.clone()).or_default().insert(name.clone());
        }
    }

    pub(super) fn remove_all<'a>(&mut self, keys: impl IntoIterator<Item = &'a K>, name: &Name)
    where
        K: 'a,
    {
        for key in keys {
            if let Some(names) = self.0.get_mut(key) {
                names.remove(name);
                if names.is_empty() {
                    self.0.remove(key);
                }
            }
        }
    }

    pub(super) fn get<'a, Q: Ord + ?Sized>(
        &'a self,
        key: &Q,
    ) -> impl Iterator<Item = &'a Name> + use<'a, K, Q>
    where
        K: Borrow<Q>,
    {
        self.0.get(key).into_iter().flatten()
    }
}
