//! Tries that have failed, and what is said of their endpoints for it.

use super::OutboundError;
use super::endpoints::Balanced;
use crate::inbound::Refusal;
use crate::route::Failure;
use std::cell::RefCell;

/// A try that has failed. It holds nobody's place: whoever is next may need it.
#[derive(Debug)]
pub(super) struct Tried {
    error: OutboundError,
    /// An endpoint that may be there in a moment.
    unsettled: Option<Box<Balanced>>,
}

/// What would be said of endpoints if a connection that is made on a guess turns out to be wanted.
#[derive(Debug, Default)]
pub(super) struct Guess(RefCell<Vec<Balanced>>);

impl Tried {
    /// Its endpoint counts as failing, unless the failure is not its own; one that is still settling not yet.
    pub(super) fn new(error: OutboundError, place: Option<Box<Balanced>>, guess: Option<&Guess>) -> Self {
        let mut unsettled = None;
        if let Some(mut place) = place {
            place.leave();
            match error.failure() {
                // The limit is this agent's own.
                _ if matches!(error, OutboundError::Local(Refusal::Limit(_))) => {}
                Failure::Refused | Failure::Silent => failed(*place, guess),
                Failure::Unsettled => unsettled = Some(place),
                // Who is about to go, or whose rules say no, has not failed.
                Failure::Leaving | Failure::Final => {}
            }
        }
        Self { error, unsettled }
    }

    /// It was the last one: who has not settled by now counts as failing, once.
    pub(super) fn give_up(self, guess: Option<&Guess>) -> OutboundError {
        if let Some(place) = self.unsettled {
            failed(*place, guess);
        }
        self.error
    }
}

impl Guess {
    /// It was right.
    pub(super) fn counts(&self) {
        self.0.take().iter().for_each(|place| place.connected(false));
    }
}

fn failed(place: Balanced, guess: Option<&Guess>) {
    match guess {
        None => place.connected(false),
        Some(Guess(failed)) => failed.borrow_mut().push(place),
    }
}
