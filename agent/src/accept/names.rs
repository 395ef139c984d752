//! Addresses of names outside of the mesh, looked up on the client's node through the agent's own resolver.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer counts. The system's resolver does not tell TTLs, so it is as short as they get.
const FRESH: Duration = Duration::from_secs(5);
/// How long a failure counts.
const FAILED: Duration = Duration::from_secs(1);
/// How long an older answer stands in while the resolver fails.
const STALE: Duration = Duration::from_secs(300);
/// How long one lookup may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Names that are remembered.
const MAX_NAMES: usize = 10_000;

/// Names and what they last meant. Shared by all workers.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<HashMap<Arc<str>, Slot>>,
}

/// Whoever asks first looks the name up, the others wait for it.
type Slot = Arc<tokio::sync::Mutex<Answer>>;

#[derive(Debug, Default)]
struct Answer {
    addresses: Vec<IpAddr>,
    looked_up: Option<Instant>,
    /// Why the last attempt failed, and when.
    failed: Option<(Instant, String)>,
}

impl Names {
    /// The addresses of `name`, at least one.
    ///
    /// # Errors
    /// What the resolver said, when there is no answer of the last few minutes either.
    pub async fn lookup(&self, name: &Arc<str>) -> io::Result<Vec<IpAddr>> {
        self.ask(name, async {
            let found = tokio::time::timeout(DEADLINE, tokio::net::lookup_host((&**name, 0))).await;
            let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            Ok(found.map(|address| address.ip().to_canonical()).collect())
        })
        .await
    }

    async fn ask(
        &self,
        name: &Arc<str>,
        resolver: impl Future<Output = io::Result<Vec<IpAddr>>>,
    ) -> io::Result<Vec<IpAddr>> {
        let slot = self.slot(name);
        let mut answer = slot.lock().await;
        let age = |since: Instant| Instant::now().duration_since(since);
        if answer.looked_up.is_some_and(|at| age(at) < FRESH) {
            return Ok(answer.addresses.clone());
        }
        if answer.failed.as_ref().is_none_or(|(at, _)| age(*at) >= FAILED) {
            match resolver.await {
                Ok(addresses) if !addresses.is_empty() => {
                    *answer = Answer { addresses, looked_up: Some(Instant::now()), failed: None };
                    return Ok(answer.addresses.clone());
                }
                Ok(_) => answer.failed = Some((Instant::now(), "it has no address".to_owned())),
                Err(error) => answer.failed = Some((Instant::now(), error.to_string())),
            }
        }
        if answer.looked_up.is_some_and(|at| age(at) < STALE) {
            return Ok(answer.addresses.clone());
        }
        let reason = answer.failed.as_ref().map(|(_, reason)| reason.clone());
        Err(io::Error::other(reason.unwrap_or_default()))
    }

    fn slot(&self, name: &Arc<str>) -> Slot {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES && !known.contains_key(name) {
            // Those that nobody waits for.
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(known.entry(Arc::clone(name)).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Vec<IpAddr> {
        vec![[10, 0, 0, last].into()]
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_their_time() {
        let names = Names::default();
        let name: Arc<str> = "db.example.com".into();
        let ask = |answer: io::Result<Vec<IpAddr>>| names.ask(&name, async { answer });
        let gone = || Err(io::Error::other("servfail"));
        assert_eq!(ask(gone()).await.unwrap_err().to_string(), "servfail");
        assert!(ask(Ok(ip(1))).await.is_err(), "a failure counts for a moment");
        tokio::time::advance(FAILED).await;
        assert_eq!(ask(Ok(ip(1))).await.unwrap(), ip(1));
        assert_eq!(ask(Ok(ip(2))).await.unwrap(), ip(1), "fresh");
        tokio::time::advance(FRESH).await;
        assert_eq!(ask(Ok(ip(2))).await.unwrap(), ip(2));
        tokio::time::advance(FRESH).await;
        assert_eq!(ask(gone()).await.unwrap(), ip(2), "stale stands in");
        tokio::time::advance(STALE).await;
        assert_eq!(ask(Ok(Vec::new())).await.unwrap_err().to_string(), "it has no address");
    }

    #[tokio::test]
    async fn addresses_are_names_too() {
        let found = Names::default().lookup(&"127.0.0.1".into()).await.unwrap();
        assert_eq!(found, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    }
}
