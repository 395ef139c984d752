//! Which endpoint a client had last, for services with session affinity. Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use warren_common::model::{ServiceName, WorkloadUid};

/// Pairs of client and service that are remembered; beyond them clients are told apart by their names alone.
const MAX_PAIRS: usize = 20_000;

/// Clients' last endpoints.
#[derive(Debug, Default)]
pub struct Affinity {
    pairs: HashMap<(WorkloadUid, ServiceName), Last>,
}

#[derive(Debug)]
struct Last {
    endpoint: WorkloadUid,
    until: Instant,
}

impl Affinity {
    /// The endpoint that `client` had last at `service`, unless that is too long ago.
    pub fn last(&self, client: &WorkloadUid, service: &ServiceName, now: Instant) -> Option<&WorkloadUid> {
        let last = self.pairs.get(&(client.clone(), service.clone()))?;
        (now < last.until).then_some(&last.endpoint)
    }

    /// `client` has reached `endpoint`; for `timeout` it will return there.
    pub fn remember(
        &mut self,
        client: &WorkloadUid,
        service: &ServiceName,
        endpoint: &WorkloadUid,
        timeout: Duration,
        now: Instant,
    ) {
        if self.pairs.len() >= MAX_PAIRS {
            self.pairs.retain(|_, last| now < last.until);
        }
        let pair = (client.clone(), service.clone());
        if self.pairs.len() < MAX_PAIRS || self.pairs.contains_key(&pair) {
            self.pairs.insert(pair, Last { endpoint: endpoint.clone(), until: now + timeout });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_remembered_for_their_time() {
        let uid = |name: &str| WorkloadUid(name.into());
        let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() };
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut affinity = Affinity::default();
        assert_eq!(affinity.last(&uid("c"), &web, start), None);
        affinity.remember(&uid("c"), &web, &uid("e1"), second, start);
        assert_eq!(affinity.last(&uid("c"), &web, start), Some(&uid("e1")));
        assert_eq!(affinity.last(&uid("d"), &web, start), None);
        assert_eq!(affinity.last(&uid("c"), &web, start + second), None);
        affinity.remember(&uid("c"), &web, &uid("e2"), second, start + second);
        assert_eq!(affinity.last(&uid("c"), &web, start + second), Some(&uid("e2")));
    }

    #[test]
    fn memory_is_bounded() {
        let uid = |name: usize| WorkloadUid(name.to_string().into());
        let web = ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() };
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut affinity = Affinity::default();
        for client in 0..MAX_PAIRS + 10 {
            affinity.remember(&uid(client), &web, &uid(0), second, now);
        }
        assert_eq!(affinity.pairs.len(), MAX_PAIRS);
        affinity.remember(&uid(MAX_PAIRS + 1), &web, &uid(0), second, now + second);
        assert_eq!(affinity.pairs.len(), 1);
    }
}
