//! Readiness: ready when nothing is waited for any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What the daemon still waits for before it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// One thing that is waited for; dropped when it is there.
#[derive(Debug)]
pub struct ReadinessGuard {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Registers something to wait for, named as a person would say it ("the first configuration").
    pub fn wait_for(&self, name: &str) -> ReadinessGuard {
        *self.lock().entry(name.to_owned()).or_default() += 1;
        ReadinessGuard { name: name.to_owned(), readiness: self.clone() }
    }

    /// What is still waited for; empty when ready.
    pub fn waiting_for(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Whether nothing is waited for.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        // The map is valid after any panic: each change is one step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        let mut waiting = self.readiness.lock();
        if let Some(count) = waiting.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_guard_is_gone() {
        let readiness = Readiness::default();
        let (a, b) = (readiness.wait_for("config"), readiness.wait_for("config"));
        drop(a);
        assert_eq!(readiness.waiting_for(), ["config"]);
        drop(b);
        assert!(readiness.is_ready());
    }
}
