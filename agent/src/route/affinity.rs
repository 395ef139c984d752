//! Which endpoint a client had last, for services with session affinity. Pure: time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_common::model::{ServiceName, Workload, WorkloadUid};

/// Pairs of client and service that are remembered; beyond them clients are told apart by their names alone.
const MAX_PAIRS: usize = 20_000;

/// Clients' last endpoints.
#[derive(Debug, Default)]
pub struct Affinity {
    /// By the client's `metadata.uid`: its successor of the same name is another client.
    pairs: HashMap<(Arc<str>, ServiceName), Last>,
}

#[derive(Debug)]
struct Last {
    endpoint: WorkloadUid,
    until: Instant,
}

impl Affinity {
    /// The endpoint that `client` had last at `service`, unless that is too long ago.
    pub fn last(&self, client: &Workload, service: &ServiceName, now: Instant) -> Option<&WorkloadUid> {
        let last = self.pairs.get(&(Arc::clone(&client.enrolment.pod_uid), service.clone()))?;
        (now < last.until).then_some(&last.endpoint)
    }

    /// `client` has reached `endpoint`; for `timeout` it will return there.
    pub fn remember(
        &mut self,
        client: &Workload,
        service: &ServiceName,
        endpoint: &WorkloadUid,
        timeout: Duration,
        now: Instant,
    ) {
        if self.pairs.len() >= MAX_PAIRS {
            self.pairs.retain(|_, last| now < last.until);
        }
        let pair = (Arc::clone(&client.enrolment.pod_uid), service.clone());
        if self.pairs.len() < MAX_PAIRS || self.pairs.contains_key(&pair) {
            self.pairs.insert(pair, Last { endpoint: endpoint.clone(), until: now + timeout });
        }
    }

    /// Forgets the clients that are not here any more, by their `metadata.uid`.
    pub fn retain(&mut self, is_here: impl Fn(&Arc<str>) -> bool) {
        self.pairs.retain(|(client, _), _| is_here(client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;

    fn client(name: &str) -> Arc<Workload> {
        pod(name, name, &[], true)
    }

    #[test]
    fn endpoints_are_remembered_for_their_time() {
        let uid = |name: &str| WorkloadUid(name.into());
        let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() };
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut affinity = Affinity::default();
        assert_eq!(affinity.last(&client("c"), &web, start), None);
        affinity.remember(&client("c"), &web, &uid("e1"), second, start);
        assert_eq!(affinity.last(&client("c"), &web, start), Some(&uid("e1")));
        assert_eq!(affinity.last(&client("d"), &web, start), None);
        assert_eq!(affinity.last(&client("c"), &web, start + second), None);
        affinity.remember(&client("c"), &web, &uid("e2"), second, start + second);
        assert_eq!(affinity.last(&client("c"), &web, start + second), Some(&uid("e2")));
    }

    #[test]
    fn memory_is_bounded() {
        let uid = |name: usize| WorkloadUid(name.to_string().into());
        let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() };
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut affinity = Affinity::default();
        for number in 0..MAX_PAIRS + 10 {
            affinity.remember(&client(&number.to_string()), &web, &uid(0), second, now);
        }
        assert_eq!(affinity.pairs.len(), MAX_PAIRS);
        affinity.remember(&client("late"), &web, &uid(0), second, now + second);
        assert_eq!(affinity.pairs.len(), 1);
        affinity.retain(|client| **client != *"late");
        assert!(affinity.pairs.is_empty());
    }
}
