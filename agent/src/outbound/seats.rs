//! The connections that may be open (`maxConnections`) of one service, port and subset: who needs one more waits in turn, and
//! gets the place of the first that ends. One that is idle, on whichever worker, ends when somebody waits. One that never is,
//! for there are always more requests for it, ends when the first of the queue has waited for too long and cannot use it.

use crate::balance::{Overflow, Slot};
use crate::http::Phase;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

/// How long the first of the queue waits before a connection ends that others would use again.
const PATIENCE: Duration = Duration::from_millis(100);

/// Who can use the same connections: of one worker, to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who(pub(super) u64);

/// Who waits, and who gives way.
#[derive(Debug, Default)]
pub(super) struct Seats {
    queue: Mutex<Queue>,
    /// Somebody waits.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// In the order of their numbers.
    waiting: VecDeque<Waiting>,
    next: u64,
    /// Those who were called and have not looked yet.
    called: usize,
    /// Connections that are ending for those who wait.
    leaving: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    who: Who,
    since: Instant,
    call: oneshot::Sender<()>,
}

/// The place of one connection; dropped, the next one gets it.
#[derive(Debug)]
pub(super) struct Seat {
    // Empty once it is another's.
    slot: Option<Slot>,
    seats: Arc<Seats>,
    who: Option<Who>,
    /// It is to end, or has given its place away.
    leaving: Arc<AtomicBool>,
}

/// Somebody's place in the queue.
struct Turn<'a> {
    seats: &'a Seats,
    number: u64,
    who: Who,
    since: Instant,
    came: oneshot::Receiver<()>,
    served: bool,
}

impl Seats {
    /// A place that was free, of a connection that nobody shares.
    pub(super) fn taken(self: &Arc<Self>, slot: Slot) -> Seat {
        self.seat(slot, None)
    }

    fn seat(self: &Arc<Self>, slot: Slot, who: Option<Who>) -> Seat {
        Seat { slot: Some(slot), seats: Arc::clone(self), who, leaving: Arc::default() }
    }

    /// Waits until `take` finds a place; whoever waits already comes first.
    pub(super) async fn wait(self: &Arc<Self>, who: Who, take: impl Fn() -> Result<Slot, Overflow>) -> Seat {
        if self.is_empty()
            && let Ok(slot) = take()
        {
            return self.seat(slot, Some(who));
        }
        let mut turn = Turn::new(self, who);
        // One may have become free before it stood in the queue.
        let mut may_look = turn.is_first();
        loop {
            if may_look && let Ok(slot) = take() {
                turn.served = true;
                return self.seat(slot, Some(who));
            }
            // An error would be a queue that is gone.
            let _ = (&mut turn.came).await;
            if let Ok(slot) = take() {
                turn.served = true;
                return self.seat(slot, Some(who));
            }
            turn.again();
            may_look = true;
        }
    }

    /// The limit is another one: the first may look again, and calls the next if it finds a place.
    pub(super) fn look_again(&self) {
        self.call_next();
    }

    fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.waiting.is_empty() && queue.called == 0
    }

    fn call_next(&self) {
        let mut queue = self.queue.lock();
        if let Some(next) = queue.waiting.pop_front() {
            queue.called += 1;
            // It listens for as long as it stands in the queue.
            let _ = next.call.send(());
        }
    }

    /// Whether the connection is to end: it is `leaving`, or somebody waits for whom no other one is ending already, and the first
    /// of them is such a one.
    fn claim(&self, leaving: &AtomicBool, first: impl Fn(&Waiting) -> bool) -> bool {
        if leaving.load(Relaxed) {
            return true;
        }
        let mut queue = self.queue.lock();
        let needed = queue.waiting.len() > queue.leaving && queue.waiting.front().is_some_and(first);
        if needed && !leaving.swap(true, Relaxed) {
            queue.leaving += 1;
        }
        needed
    }
}

impl<'a> Turn<'a> {
    fn new(seats: &'a Seats, who: Who) -> Self {
        let (call, came) = oneshot::channel();
        let since = Instant::now();
        let mut queue = seats.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back(Waiting { number, who, since, call });
        drop(queue);
        seats.wanted.notify_waiters();
        Self { seats, number, who, since, came, served: false }
    }

    fn is_first(&self) -> bool {
        let queue = self.seats.queue.lock();
        queue.called == 0 && queue.waiting.front().is_some_and(|first| first.number == self.number)
    }

    /// It was called, and found nothing: back to where it was.
    fn again(&mut self) {
        let (call, came) = oneshot::channel();
        let Self { number, who, since, .. } = *self;
        self.came = came;
        let mut queue = self.seats.queue.lock();
        queue.called -= 1;
        let at = queue.waiting.partition_point(|other| other.number < number);
        queue.waiting.insert(at, Waiting { number, who, since, call });
        drop(queue);
        self.seats.wanted.notify_waiters();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.seats.queue.lock();
        let at = queue.waiting.iter().position(|other| other.number == self.number);
        match at {
            Some(at) => drop(queue.waiting.remove(at)),
            None => queue.called -= 1,
        }
        drop(queue);
        // There may be more places, or it did not want the one that it was called for.
        if at.is_none() || self.served {
            self.seats.call_next();
        }
    }
}

impl Seat {
    /// Says, whenever it is asked, whether the connection is to carry no more requests: the first of the queue has waited for too
    /// long, and can use the connection's place, but not the connection.
    pub(super) fn is_needed(&self) -> impl Fn() -> bool + 'static {
        let (seats, leaving, who) = (Arc::clone(&self.seats), Arc::clone(&self.leaving), self.who);
        move || {
            let overdue = |first: &Waiting| Some(first.who) != who && first.since.elapsed() >= PATIENCE;
            seats.claim(&leaving, overdue)
        }
    }

    /// Completes when the connection is idle and somebody else needs its place. When it is over, its place is free at once, and
    /// this never completes.
    pub(super) async fn gives_way(&mut self, mut phase: watch::Receiver<Phase>) {
        let seats = Arc::clone(&self.seats);
        loop {
            let mut wanted = pin!(seats.wanted.notified());
            wanted.as_mut().enable();
            let now = *phase.borrow_and_update();
            match now {
                Phase::Busy => {}
                Phase::Idle => {
                    // Who waits for this very connection comes first.
                    tokio::task::yield_now().await;
                    let is_idle = *phase.borrow() == Phase::Idle;
                    if is_idle && seats.claim(&self.leaving, |_| true) {
                        return;
                    }
                }
                Phase::Over => {
                    self.release();
                    return pending().await;
                }
            }
            tokio::select! {
                () = wanted => {}
                changed = phase.changed() => if changed.is_err() { return pending().await },
            }
        }
    }

    fn release(&mut self) {
        if self.slot.take().is_some() {
            let mut queue = self.seats.queue.lock();
            // Who asks from now on whether it is needed frees no place by ending it.
            queue.leaving -= usize::from(self.leaving.swap(true, Relaxed));
            drop(queue);
            self.seats.call_next();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.release();
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
    const ONE: Who = Who(1);
    const OTHER: Who = Who(2);

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

        async fn seat(&self, who: Who) -> Seat {
            self.seats.wait(who, || self.circuit.borrow().take(Kind::Connection)).await
        }

        /// A connection that ends when it gives way or when its end of the channel is dropped.
        async fn connect(&self) -> watch::Sender<Phase> {
            let mut seat = self.seat(ONE).await;
            let idle = watch::Sender::new(Phase::Busy);
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
                one.send_replace(Phase::Idle);
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
            busy.send_replace(Phase::Idle);
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
            busy.send_replace(Phase::Idle);
            sleep(TICK).await;
            assert_eq!(world.open.get(), 1);
        });
    }
    #[test]
    fn who_cannot_use_what_is_never_idle_gets_its_place_after_a_while() {
        run(async {
            let world = World::new(1);
            let busy = world.seat(ONE).await;
            let is_needed = busy.is_needed();
            let mut same = pin!(world.seat(ONE));
            assert!(tokio::time::timeout(PATIENCE * 5, &mut same).await.is_err());
            assert!(!is_needed(), "the first of the queue can use it");
            let mut other = pin!(world.seat(OTHER));
            assert!(tokio::time::timeout(PATIENCE * 5, &mut other).await.is_err());
            assert!(!is_needed(), "one after the other");
            drop(busy);
            let next = same.await;
            let is_needed = next.is_needed();
            assert!(tokio::time::timeout(TICK, &mut other).await.is_err(), "there was only one");
            assert!(is_needed() && is_needed());
            drop(next);
            let last = other.await;
            assert_eq!(world.circuit.borrow().open(Kind::Connection), 1);
            // Who has just come waits, and one place is enough for one.
            let is_needed = last.is_needed();
            let mut same = pin!(world.seat(ONE));
            assert!(tokio::time::timeout(PATIENCE - TICK, &mut same).await.is_err() && !is_needed());
            assert!(tokio::time::timeout(TICK, &mut same).await.is_err() && is_needed());
            let also =
                Seat { slot: None, seats: Arc::clone(&world.seats), who: None, leaving: Arc::default() };
            assert!(!also.is_needed()(), "another one is ending already");
        });
    }

    #[test]
    fn one_that_is_needed_and_becomes_idle_ends() {
        run(async {
            let world = World::new(1);
            let mut busy = world.seat(ONE).await;
            let is_needed = busy.is_needed();
            let mut other = pin!(world.seat(OTHER));
            assert!(tokio::time::timeout(PATIENCE, &mut other).await.is_err() && is_needed());
            let phase = watch::Sender::new(Phase::Idle);
            busy.gives_way(phase.subscribe()).await;
            drop(busy);
            drop(other.await);
            assert_eq!(world.seats.queue.lock().leaving, 0);
        });
    }

    #[test]
    fn one_whose_place_is_anothers_is_not_needed_once_more() {
        run(async {
            let world = World::new(1);
            let mut ended = world.seat(ONE).await;
            let is_needed = ended.is_needed();
            let mut second = pin!(world.seat(OTHER));
            let mut third = pin!(world.seat(Who(3)));
            assert!(tokio::time::timeout(PATIENCE, &mut second).await.is_err());
            assert!(tokio::time::timeout(PATIENCE, &mut third).await.is_err());
            let phase = watch::Sender::new(Phase::Over);
            assert!(tokio::time::timeout(TICK, ended.gives_way(phase.subscribe())).await.is_err());
            let second = second.await;
            assert!(is_needed() && is_needed(), "it carries no more requests");
            drop(ended);
            assert_eq!(world.seats.queue.lock().leaving, 0);
            // It was called in turn, and finds nothing.
            assert!(tokio::time::timeout(TICK, &mut third).await.is_err());
            assert!(second.is_needed()(), "the third still waits, and nobody else ends for it");
            drop(second);
            drop(third.await);
            assert_eq!(world.seats.queue.lock().leaving, 0);
        });
    }

    #[test]
    fn who_comes_later_is_served_later() {
        run(async {
            let world = World::new(1);
            let order = Rc::new(RefCell::new(Vec::new()));
            let busy = world.seat(ONE).await;
            let queued = |name: &'static str| {
                let (world, order) = (&world, Rc::clone(&order));
                async move {
                    let seat = world.seat(OTHER).await;
                    order.borrow_mut().push(name);
                    tokio::task::yield_now().await;
                    drop(seat);
                }
            };
            let (mut first, mut second) = (pin!(queued("first")), pin!(queued("second")));
            assert!(tokio::time::timeout(TICK, &mut first).await.is_err());
            assert!(tokio::time::timeout(TICK, &mut second).await.is_err());
            drop(busy);
            // The first has been called, and has not looked yet.
            let mut newcomer = pin!(queued("newcomer"));
            assert!(tokio::time::timeout(Duration::ZERO, &mut newcomer).await.is_err());
            tokio::join!(newcomer, second, first);
            assert_eq!(*order.borrow(), ["first", "second", "newcomer"]);
        });
    }

    #[test]
    fn who_was_called_and_has_gone_passes_it_on() {
        run(async {
            let world = World::new(1);
            let busy = world.seat(ONE).await;
            let mut second = pin!(world.seat(OTHER));
            {
                let mut first = pin!(world.seat(OTHER));
                assert!(tokio::time::timeout(TICK, &mut first).await.is_err());
                assert!(tokio::time::timeout(TICK, &mut second).await.is_err());
                drop(busy);
            }
            let got = tokio::time::timeout(TICK, second).await;
            assert!(got.is_ok());
        });
    }

    #[test]
    fn one_that_is_over_keeps_its_place_from_nobody() {
        run(async {
            let world = World::new(1);
            let first = world.connect().await;
            let mut waits = pin!(world.connect());
            assert!(tokio::time::timeout(TICK, &mut waits).await.is_err());
            first.send_replace(Phase::Over);
            let _second = waits.await;
            assert_eq!(world.open.get(), 2, "its last bytes may still be on their way");
        });
    }
}
