//! Maps that are looked into for every connection and request. Their keys are the mesh's own names and numbers: nobody outside makes
//! them collide, and the standard library's hasher, which minds that, takes 2 % of the time of a request with rules.

use foldhash::fast::RandomState;

/// A map.
pub(crate) type FastMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// One whose copies share what is equal in them.
pub(crate) type SharedMap<K, V> = imbl::GenericHashMap<K, V, RandomState, imbl::shared_ptr::DefaultSharedPtr>;
