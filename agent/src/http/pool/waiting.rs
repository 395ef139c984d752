//! Who waits for a connection, key by key: whoever has waited longest is called first.

use super::PoolKey;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::Notify;

/// Who waits. A key is here for as long as somebody waits for it.
#[derive(Default)]
pub(super) struct Waiting(RefCell<HashMap<PoolKey, Rc<Notify>>>);

/// Somebody who waits. Who was called and goes without looking passes it on.
pub(super) struct Turn {
    waiting: Rc<Waiting>,
    key: PoolKey,
    pub(super) calls: Rc<Notify>,
}

impl Waiting {
    /// One more.
    pub(super) fn join(self: &Rc<Self>, key: &PoolKey) -> Turn {
        let calls = Rc::clone(self.0.borrow_mut().entry(key.clone()).or_default());
        Turn { waiting: Rc::clone(self), key: key.clone(), calls }
    }

    /// So many may look, or as many as wait.
    pub(super) fn call(&self, key: &PoolKey, most: usize) {
        let all = self.0.borrow();
        if all.is_empty() {
            return;
        }
        let Some(calls) = all.get(key) else { return };
        for _ in 0..most.min(waits(calls)) {
            calls.notify_one();
        }
    }
}

/// The table has one, too.
fn waits(calls: &Rc<Notify>) -> usize {
    Rc::strong_count(calls) - 1
}

impl Drop for Turn {
    fn drop(&mut self) {
        if waits(&self.calls) == 1 {
            self.waiting.0.borrow_mut().remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::task::{LocalSet, spawn_local, yield_now};
    use warren_common::model::{Identity, WorkloadUid};

    fn key(port: u16) -> PoolKey {
        PoolKey {
            source: WorkloadUid("client".into()),
            source_pod_uid: "".into(),
            source_identity: Identity::new("cluster.local", "shop", "client").unwrap(),
            endpoint: None,
            pod_uid: "".into(),
            identity: None,
            address: ([10, 0, 0, 1], port).into(),
            name: None,
            tls: None,
            h2: false,
            cluster: None,
        }
    }

    #[test]
    fn as_many_look_as_are_called_and_nobody_else() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let waiting = Rc::new(Waiting::default());
            let looked = Rc::new(Cell::new([0; 2]));
            let tasks: Vec<_> = [0, 0, 0, 0, 1, 1]
                .map(|port| {
                    let (turn, looked) = (waiting.join(&key(port)), Rc::clone(&looked));
                    spawn_local(async move {
                        turn.calls.notified().await;
                        let mut now = looked.get();
                        now[usize::from(port)] += 1;
                        looked.set(now);
                    })
                })
                .into();
            yield_now().await;
            waiting.call(&key(0), 1);
            yield_now().await;
            assert_eq!(looked.get(), [1, 0]);
            waiting.call(&key(7), 100);
            waiting.call(&key(0), 1);
            // The second has been called, and goes.
            tasks[1].abort();
            yield_now().await;
            yield_now().await;
            assert_eq!(looked.get(), [2, 0], "the third was told instead");
            waiting.call(&key(0), 100);
            waiting.call(&key(1), 100);
            for task in tasks {
                let _aborted = task.await;
            }
            assert_eq!(looked.get(), [3, 2]);
            assert!(waiting.0.borrow().is_empty(), "nobody waits");
        });
    }
}
