//! HTTP/2 connections that are open and have not begun: their endpoints have yet to say what they take (SETTINGS). Requests join one
//! while it has places, instead of opening one each; it goes on without the request that opened it.

use super::PoolKey;
use super::connection::NotBegun;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::watch;

/// Whether it has begun.
pub(crate) type Outcome = Result<(), Rc<NotBegun>>;

/// Those of one worker. A key is here for as long as it has one.
#[derive(Default)]
pub(super) struct Beginnings(RefCell<HashMap<PoolKey, Vec<Rc<Beginning>>>>);

/// One of them.
pub(super) struct Beginning {
    /// Requests that it may carry besides those that count on it.
    places: Cell<usize>,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Beginnings {
    /// One more, which may carry so many requests besides the one that opened it.
    pub(super) fn begin(&self, key: &PoolKey, places: usize) -> Rc<Beginning> {
        let one = Rc::new(Beginning { places: Cell::new(places), outcome: watch::Sender::new(None) });
        self.0.borrow_mut().entry(key.clone()).or_default().push(Rc::clone(&one));
        one
    }

    /// Takes a place on one and waits until that has begun, or not; none: there is none with a place.
    pub(super) async fn join(&self, key: &PoolKey) -> Option<Outcome> {
        let mut outcome = {
            let all = self.0.borrow();
            let one = all.get(key)?.iter().find(|one| one.places.get() > 0)?;
            one.places.set(one.places.get() - 1);
            one.outcome.subscribe()
        };
        let over = outcome.wait_for(Option::is_some).await;
        over.ok().and_then(|outcome| outcome.clone())
    }

    /// That is over: who counts on it hears how.
    pub(super) fn end(&self, key: &PoolKey, one: &Rc<Beginning>, outcome: Outcome) {
        let mut all = self.0.borrow_mut();
        if let Some(of_key) = all.get_mut(key) {
            of_key.retain(|other| !Rc::ptr_eq(one, other));
            if of_key.is_empty() {
                all.remove(key);
            }
        }
        drop(all);
        one.outcome.send_replace(Some(outcome));
    }
}
