//! How many connections one pod keeps at one address, where the pod itself says how many keys it has there: TLS is spoken with the
//! server that a request names, and a pod can name any.

use super::{Entry, PoolKey};
use std::collections::HashMap;
use tokio::time::Instant;

/// Whether both are the same pod's, at the same address, with TLS.
fn is_beside(one: &PoolKey, other: &PoolKey) -> bool {
    one.address == other.address
        && other.tls.is_some()
        && one.source == other.source
        && one.source_pod_uid == other.source_pod_uid
        && one.name == other.name
}

/// Closes the longest idle connections of the pod of `key` at its address until there are no more than `most`, or none is idle.
pub(super) fn thin(entries: &mut HashMap<PoolKey, Entry>, key: &PoolKey, most: usize) {
    if key.tls.is_none() {
        return;
    }
    loop {
        let beside = || entries.iter().filter(|(other, _)| is_beside(key, other));
        let count: usize = beside().map(|(_, entry)| entry.idle.len() + entry.shared.len()).sum();
        if count <= most {
            return;
        }
        let oldest = beside().filter_map(|(key, entry)| Some((entry.longest_idle()?, key)));
        let Some(key) = oldest.min_by_key(|(since, _)| *since).map(|(_, key)| key.clone()) else { return };
        let Some(entry) = entries.get_mut(&key) else { return };
        entry.close_longest_idle();
        if entry.idle.is_empty() && entry.shared.is_empty() {
            entries.remove(&key);
        }
    }
}

impl Entry {
    /// Since when.
    fn longest_idle(&self) -> Option<Instant> {
        let shared = self.shared.iter().filter(|shared| shared.active.get() == 0);
        let shared = shared.map(|shared| shared.idle_since.get());
        // They were put there in turn.
        shared.chain(self.idle.first().map(|(_, since)| *since)).min()
    }

    fn close_longest_idle(&mut self) {
        let since = self.longest_idle();
        if self.idle.first().map(|(_, since)| *since) == since {
            self.idle.drain(..1);
        } else if let Some(at) = self
            .shared
            .iter()
            .position(|shared| shared.active.get() == 0 && Some(shared.idle_since.get()) == since)
        {
            self.shared.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::MAX_IDLE;
    use super::super::{Opened, Origination, Phase, Pool, Terms};
    use super::*;
    use crate::limits::{Limits, LimitsConfig};
    use std::future::pending;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::watch;
    use tokio::task::LocalSet;
    use warren_common::model::traffic::{TlsMode, TlsOrigination};
    use warren_common::model::{Identity, WorkloadUid};

    fn key(pod: &str, server: Option<&str>, h2: bool) -> PoolKey {
        let settings = TlsOrigination {
            mode: TlsMode::Simple,
            sni: None,
            subject_alt_names: vec![],
            insecure_skip_verify: false,
            ca_file: None,
            certificate_file: None,
            key_file: None,
        };
        PoolKey {
            source: WorkloadUid(pod.into()),
            source_pod_uid: pod.into(),
            source_identity: Identity::new("cluster.local", "shop", "web").unwrap(),
            endpoint: None,
            pod_uid: "".into(),
            identity: None,
            address: "192.0.2.1:443".parse().unwrap(),
            name: None,
            tls: server.map(|name| Arc::new(Origination { settings, name: name.into() })),
            h2,
            cluster: None,
        }
    }

    fn opened() -> (Opened, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        let phase = watch::Sender::new(Phase::Busy);
        let evicted = Box::pin(pending());
        (Opened { io: Box::new(near), evicted, phase, is_ending: Box::new(|| false) }, far)
    }

    #[tokio::test(start_paused = true)]
    async fn names_of_servers_do_not_multiply_what_a_pod_keeps() {
        let many = MAX_IDLE + 20;
        let work = async {
            let (pool, limits) = (Pool::new(|_| true), Limits::new(LimitsConfig::DEFAULT));
            let mut far = Vec::new();
            let mut add = async |key: PoolKey| {
                let (opened, mut end) = opened();
                if key.h2 {
                    // An endpoint's SETTINGS that say nothing.
                    end.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                }
                far.push(end);
                let lease = pool.begin(&key, &Terms::DEFAULT, opened, limits.of(&key.source)).await.unwrap();
                // A connection's own task says that it is ready.
                tokio::time::sleep(Duration::from_millis(10)).await;
                lease.give_back();
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            add(key("other", Some("a"), false)).await;
            add(key("one", None, false)).await;
            for h2 in [false, true] {
                for number in 0..many {
                    add(key("one", Some(&format!("{number}.example")), h2)).await;
                }
            }
            let is_kept = |key: PoolKey| pool.ready(&key, &Terms::DEFAULT).is_some();
            let of = |number: usize, h2| key("one", Some(&format!("{number}.example")), h2);
            let kept = (0..many).filter(|number| is_kept(of(*number, false)) || is_kept(of(*number, true)));
            assert_eq!(kept.count(), MAX_IDLE);
            assert!(is_kept(of(many - 1, true)) && !is_kept(of(many - MAX_IDLE - 1, true)), "the oldest go");
            assert!(is_kept(key("other", Some("a"), false)), "of another pod");
            assert!(is_kept(key("one", None, false)), "without TLS");
        };
        LocalSet::new().run_until(work).await;
    }
}
