//! The connections that may be open (`maxConnections`) of one service, port and subset: who needs one more waits, and gets the
//! place of the first that ends. One that is idle, on whichever worker, ends when somebody waits.

use crate::balance::{Overflow, Slot};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Notify, oneshot, watch};

/// Who waits, and who gives way.
#[derive(Debug, Default)]
pub(super) struct Seats {
    queue: Mutex<Queue>,
    /// Somebody waits.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
    /// Idle connections that are ending for those who wait.
    leaving: usize,
}

/// The place of one connection; dropped, the next one gets it.
#[derive(Debug)]
pub(super) struct Seat {
    // Only empty while it is dropped.
    slot: Option<Slot>,
    seats: Arc<Seats>,
    leaving: bool,
}

/// Somebody's place in the queue.
struct Turn<'a> {
    seats: &'a Seats,
    number: u64,
    came: oneshot::Receiver<()>,
    used: bool,
}

impl Seats {
    /// A place that was free.
    pub(super) fn taken(self: &Arc<Self>, slot: Slot) -> Seat {
        Seat { slot: Some(slot), seats: Arc::clone(self), leaving: false }
    }

    /// Waits until `take` finds a place.
    pub(super) async fn wait(self: &Arc<Self>, take: impl Fn() -> Result<Slot, Overflow>) -> Seat {
        let seat = |slot| self.taken(slot);
        if let Ok(slot) = take() {
            return seat(slot);
        }
        loop {
            let mut turn = Turn::new(self);
            // One may have become free before it stood in the queue.
            if let Ok(slot) = take() {
                return seat(slot);
            }
            // An error would be a queue that is gone.
            let _ = (&mut turn.came).await;
            turn.used = true;
            if let Ok(slot) = take() {
                return seat(slot);
            }
        }
    }

    /// As many as wait may look again: the limit is another one.
    pub(super) fn look_again(&self) {
        while self.call_next() {}
    }

    /// Whether there was one.
    fn call_next(&self) -> bool {
        loop {
            let next = self.queue.lock().waiting.pop_front();
            match next.map(|(_, turn)| turn.send(())) {
                None => return false,
                Some(Ok(())) => return true,
                // It has just given up.
                Some(Err(())) => {}
            }
        }
    }

    /// Whether somebody waits for whom no other connection is ending already; if so, this one is to.
    fn claim(&self) -> bool {
        let mut queue = self.queue.lock();
        let needed = queue.waiting.len() > queue.leaving;
        queue.leaving += usize::from(needed);
        needed
    }
}

impl<'a> Turn<'a> {
    fn new(seats: &'a Seats) -> Self {
        let (call, came) = oneshot::channel();
        let mut queue = seats.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back((number, call));
        drop(queue);
        seats.wanted.notify_waiters();
        Self { seats, number, came, used: false }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.seats.queue.lock();
        let before = queue.waiting.len();
        queue.waiting.retain(|(number, _)| *number != self.number);
        let was_called = queue.waiting.len() == before;
        drop(queue);
        if was_called && !self.used {
            self.seats.call_next();
        }
    }
}

impl Seat {
    /// Completes when the connection is idle and somebody else needs its place.
    pub(super) async fn gives_way(&mut self, mut idle: watch::Receiver<bool>) {
        let seats = Arc::clone(&self.seats);
        loop {
            let mut wanted = pin!(seats.wanted.notified());
            wanted.as_mut().enable();
            if *idle.borrow_and_update() {
                // Who waits for this very connection comes first.
                tokio::task::yield_now().await;
                if *idle.borrow() && seats.claim() {
                    self.leaving = true;
                    return;
                }
            }
            tokio::select! {
                () = wanted => {}
                changed = idle.changed() => if changed.is_err() { return pending().await },
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.slot = None;
        self.seats.queue.lock().leaving -= usize::from(self.leaving);
        self.seats.call_next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Circuit, Kind};
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::time::Duration;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::sleep;
    use warren_common::model::traffic::ConnectionPool;

    const TICK: Duration = Duration::from_millis(1);

    struct World {
        circuit: RefCell<Circuit>,
        seats: Arc<Seats>,
        open: Rc<Cell<usize>>,
    }

    impl World {
        fn new(max: u32) -> Self {
            let pool = ConnectionPool { max_connections: Some(max), ..ConnectionPool::default() };
            let circuit = RefCell::new(Circuit::new(Some(&pool), None));
            Self { circuit, seats: Arc::default(), open: Rc::default() }
        }

        /// A connection that ends when it gives way or when its end of the channel is dropped.
        async fn connect(&self) -> watch::Sender<bool> {
            let mut seat = self.seats.wait(|| self.circuit.borrow().take(Kind::Connection)).await;
            let idle = watch::Sender::new(false);
            let (ended, told) = (idle.subscribe(), idle.subscribe());
            let open = Rc::clone(&self.open);
            open.set(open.get() + 1);
            spawn_local(async move {
                let mut ended = ended;
                let gone = async move { while ended.changed().await.is_ok() {} };
                tokio::select! { () = seat.gives_way(told) => {}, () = gone => {} }
                drop(seat);
                open.set(open.get() - 1);
            });
            idle
        }
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn the_next_one_gets_the_place_of_the_first_that_ends() {
        run(async {
            let world = World::new(1);
            let first = world.connect().await;
            let mut second = pin!(world.connect());
            assert!(tokio::time::timeout(TICK, &mut second).await.is_err(), "it waits");
            drop(first);
            let _second = second.await;
            assert_eq!(world.circuit.borrow().open(Kind::Connection), 1);
        });
    }

    #[test]
    fn as_many_idle_ones_give_way_as_are_needed() {
        run(async {
            let world = World::new(3);
            let idle = [world.connect().await, world.connect().await, world.connect().await];
            for one in &idle {
                one.send_replace(true);
            }
            sleep(TICK).await;
            assert_eq!(world.open.get(), 3, "nobody waits");
            let _more = [world.connect().await, world.connect().await];
            sleep(TICK).await;
            assert_eq!((world.open.get(), world.circuit.borrow().open(Kind::Connection)), (3, 3));
            let left = idle.iter().filter(|one| one.receiver_count() > 0).count();
            assert_eq!(left, 1, "the others stay");
        });
    }

    #[test]
    fn with_another_limit_they_look_again() {
        run(async {
            let world = World::new(1);
            let _first = world.connect().await;
            let mut waits = pin!(world.connect());
            assert!(tokio::time::timeout(TICK, &mut waits).await.is_err());
            let wider = world.circuit.borrow().with_limits(None, None);
            world.circuit.replace(wider);
            world.seats.look_again();
            let _second = waits.await;
            assert_eq!(world.open.get(), 2);
        });
    }

    #[test]
    fn one_that_becomes_idle_gives_way_to_who_waited_before() {
        run(async {
            let world = World::new(1);
            let busy = world.connect().await;
            let mut waits = pin!(world.connect());
            assert!(tokio::time::timeout(TICK, &mut waits).await.is_err());
            busy.send_replace(true);
            let _got = waits.await;
            assert_eq!(world.circuit.borrow().open(Kind::Connection), 1);
        });
    }

    #[test]
    fn who_gives_up_waiting_needs_no_place() {
        run(async {
            let world = World::new(1);
            let busy = world.connect().await;
            assert!(tokio::time::timeout(TICK, world.connect()).await.is_err());
            busy.send_replace(true);
            sleep(TICK).await;
            assert_eq!(world.open.get(), 1);
        });
    }
}
