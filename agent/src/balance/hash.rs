//! The same hash finds the same endpoint, on every node and after every restart: a ring (ketama's idea), or a table (Maglev,
//! "A Fast and Reliable Software Network Load Balancer", section 3.4).

use warren_common::model::traffic::HashRing;

/// No ring has more places, and no table; more endpoints than that share them out as they can.
const MAX_PLACES: u64 = 1 << 20;
/// The largest table that Istio allows is below this.
const MAX_TABLE: u32 = 5_000_011;

/// Endpoints by hash; they are known by index.
#[derive(Debug)]
pub(super) enum HashTable {
    /// Sorted by hash: the first at or after a hash is it.
    Ring(Vec<(u64, u32)>),
    /// The one at the hash modulo the size.
    Maglev(Vec<u32>),
}

/// A hash of bytes: FNV-1a, mixed, so that names that differ in the last letter are far apart. Never to be changed: clients would
/// move to other endpoints, and nodes of different versions would disagree.
pub(super) fn hash_of(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The finalizer of splitmix64.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl HashTable {
    /// Of endpoints by the hash of their name, and weight; weights of 0 count as 1.
    pub(super) fn new(kind: HashRing, endpoints: &[(u64, u32)]) -> Self {
        match kind {
            HashRing::Ring { minimum } => Self::Ring(ring(minimum, endpoints)),
            HashRing::Maglev { size } => {
                Self::Maglev(maglev(prime_from(size.clamp(2, MAX_TABLE)) as usize, endpoints))
            }
        }
    }

    /// The endpoints for a hash, the one that it belongs to first; each may come several times.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = u32> {
        let (start, length) = match self {
            Self::Ring(places) => (places.partition_point(|(place, _)| *place < hash), places.len()),
            Self::Maglev(table) => ((hash % table.len().max(1) as u64) as usize, table.len()),
        };
        (0..length).filter_map(move |step| {
            let at = (start + step) % length;
            match self {
                Self::Ring(places) => places.get(at).map(|(_, endpoint)| *endpoint),
                Self::Maglev(table) => table.get(at).copied(),
            }
        })
    }
}

/// The least prime that is not below `number`.
fn prime_from(number: u32) -> u32 {
    let is_prime = |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (number..).find(is_prime).unwrap_or(number)
}

fn ring(minimum: u32, endpoints: &[(u64, u32)]) -> Vec<(u64, u32)> {
    let weight = |(_, weight): &(u64, u32)| u64::from((*weight).max(1));
    let least = endpoints.iter().map(weight).min().unwrap_or(1);
    let total: u64 = endpoints.iter().map(weight).sum();
    // Places of the lightest: a power of two, so that nobody's change when another endpoint comes, but at every doubling.
    let unit = u64::from(minimum).div_ceil(total.div_ceil(least).max(1)).max(1).next_power_of_two();
    let fits = unit.saturating_mul(total.div_ceil(least)) <= MAX_PLACES;
    let mut ring = Vec::new();
    for (index, endpoint) in (0_u32..).zip(endpoints) {
        let own = match fits {
            true => (unit * weight(endpoint)).div_ceil(least),
            false => (MAX_PLACES * weight(endpoint) / total).max(1),
        };
        ring.extend((0..own).map(|n| (mix(endpoint.0 ^ mix(n)), index)));
    }
    ring.sort_unstable();
    ring
}

fn maglev(size: usize, endpoints: &[(u64, u32)]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    if endpoints.is_empty() {
        return vec![];
    }
    let heaviest = endpoints.iter().map(|(_, weight)| f64::from((*weight).max(1))).fold(1.0, f64::max);
    struct Turn {
        offset: usize,
        skip: usize,
        next: usize,
        weight: f64,
        due: f64,
    }
    let turn = |(hash, weight): &(u64, u32)| Turn {
        offset: (hash % size as u64) as usize,
        skip: (mix(*hash) % (size as u64 - 1)) as usize + 1,
        next: 0,
        weight: f64::from((*weight).max(1)) / heaviest,
        due: 0.0,
    };
    let mut turns: Vec<_> = endpoints.iter().map(turn).collect();
    let (mut table, mut left) = (vec![FREE; size], size);
    while left > 0 {
        for (index, turn) in (0_u32..).zip(&mut turns) {
            // The heaviest has every turn, others as many as their weight says.
            turn.due += turn.weight;
            if turn.due < 1.0 - f64::EPSILON {
                continue;
            }
            turn.due -= 1.0;
            // The size is a prime: every place comes, and one of them is free.
            for _ in 0..size {
                let at = (turn.offset + turn.next * turn.skip) % size;
                turn.next = (turn.next + 1) % size;
                if let Some(owner) = table.get_mut(at).filter(|owner| **owner == FREE) {
                    *owner = index;
                    left -= 1;
                    break;
                }
            }
            if left == 0 {
                break;
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<(u64, u32)> {
        weights.iter().enumerate().map(|(n, weight)| (hash_of(format!("w{n}").as_bytes()), *weight)).collect()
    }

    const KINDS: [HashRing; 2] = [HashRing::Ring { minimum: 16_384 }, HashRing::Maglev { size: 65_537 }];

    fn first(table: &HashTable, key: usize) -> u32 {
        table.from(hash_of(format!("user-{key}").as_bytes())).next().unwrap()
    }

    #[test]
    fn keys_are_spread_by_weight() {
        for kind in KINDS {
            let table = HashTable::new(kind, &endpoints(&[1, 1, 2, 0]));
            let mut counts = [0_f64; 4];
            (0..50_000).for_each(|key| counts[first(&table, key) as usize] += 1.0);
            for (count, share) in counts.iter().zip([0.2, 0.2, 0.4, 0.2]) {
                assert!((count / 50_000.0 - share).abs() < 0.03, "{kind:?} {counts:?}");
            }
        }
    }

    #[test]
    fn few_keys_move_when_an_endpoint_comes() {
        for kind in KINDS {
            let (small, large) =
                (HashTable::new(kind, &endpoints(&[1; 9])), HashTable::new(kind, &endpoints(&[1; 10])));
            let moved = (0..10_000).filter(|key| first(&small, *key) != first(&large, *key));
            let (to_new, others): (Vec<_>, Vec<_>) = moved.partition(|key| first(&large, *key) == 9);
            assert!((800..1300).contains(&to_new.len()), "{kind:?} {}", to_new.len());
            // The ring moves nobody else; the table a few, which is its price.
            let bound = if matches!(kind, HashRing::Ring { .. }) { 0 } else { 500 };
            assert!(others.len() <= bound, "{kind:?} {}", others.len());
        }
    }

    #[test]
    fn whoever_is_out_is_passed_over_and_everybody_is_found() {
        for kind in
            [HashRing::Ring { minimum: 1 }, HashRing::Maglev { size: 7 }, HashRing::Maglev { size: 6 }]
        {
            let table = HashTable::new(kind, &endpoints(&[1, 1, 1]));
            for key in 0..100 {
                let mut found: Vec<_> = table.from(mix(key)).collect();
                found.sort_unstable();
                found.dedup();
                assert_eq!(found, [0, 1, 2], "{kind:?}");
            }
            assert_eq!(HashTable::new(kind, &[]).from(7).count(), 0);
        }
        let huge = HashTable::new(HashRing::Ring { minimum: u32::MAX }, &endpoints(&[1]));
        assert!(matches!(huge, HashTable::Ring(places) if places.len() as u64 == MAX_PLACES));
    }

    #[test]
    fn tables_have_the_size_of_a_prime() {
        for (size, prime) in [(2, 2), (6, 7), (65_536, 65_537), (65_537, 65_537), (5_000_011, 5_000_011)] {
            assert_eq!(prime_from(size), prime);
        }
    }

    /// What clients of an older version were told must stay true.
    #[test]
    fn hashes_never_change() {
        assert_eq!(hash_of(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash_of(b"a"), mix(0xaf63_dc4c_8601_ec8c), "FNV-1a of the specification");
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf, "splitmix64, seed 0, first number");
    }
}
