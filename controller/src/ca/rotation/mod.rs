//! When the CA goes on to its next step. Pure: time, ages and what agents say are arguments.
//!
//! ```text
//!            a new root                 everybody has it            nobody needs the old one
//!   steady ------------> distributing ------------------> renewing -------------------------> dropping
//!     ^  '---------------------------------------------------^ |                                 |
//!     |         a new signing certificate: same root           |                                 |
//!     '--------------------------------------------------------'<--------------------------------'
//!                                                     everybody has dropped it
//! ```
//!
//! * distributing: old and new root are trusted, the old one signs. Ends when every node has taken up both, at the
//!   earliest after [`Rules::settle_s`]. A node that says nothing is waited for as long as a certificate lives.
//! * renewing: the new one signs. Ends when no node has a certificate of the old one any more, at the earliest after
//!   [`Rules::settle_s`]; a node that says nothing is waited for until the last one that it can have has expired.
//! * dropping: the old root is trusted no longer. Ends when every node knows; one that says nothing is waited for as
//!   long as a certificate lives, which changes nothing but what is shown.
//!
//! Nodes are those that are connected and those with pods of the mesh.

mod progress;

pub use progress::Roster;
pub(crate) use progress::{Progress, Seat, Share};

use serde::{Deserialize, Serialize};

/// What is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The signing certificate, below the same root.
    Signer,
    /// The root, and with it the signing certificate.
    Root,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Steady,
    Distributing,
    Renewing,
    Dropping,
}

impl Phase {
    /// For people and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Distributing => "distributing",
            Self::Renewing => "renewing",
            Self::Dropping => "dropping",
        }
    }
}

/// Where a CA stands. Kept with it. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) phase: Phase,
    /// What is being replaced, or was last.
    pub(crate) kind: Kind,
    /// Since when.
    pub(crate) since: i64,
    /// When it ends, whatever nodes say.
    pub(crate) until: i64,
}

impl Position {
    pub(crate) fn steady(now: i64) -> Self {
        Self { phase: Phase::Steady, kind: Kind::Signer, since: now, until: now }
    }
}

/// When a certificate is valid (Unix seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Validity {
    /// How much of it is over at `now`.
    fn used(self, now: i64) -> f64 {
        let length = (self.to - self.from).max(1);
        (now - self.from) as f64 / length as f64
    }
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rules {
    /// A phase lasts this long at least (seconds): until it is over, nodes that are not connected find the roots in their file.
    pub(crate) settle_s: i64,
    /// Longest lifetime of a workload's certificate (seconds).
    pub(crate) lifetime_s: i64,
    /// The part of a certificate's lifetime after which it is replaced; none: by hand alone.
    pub(crate) rotate_at: Option<f64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make new keys.
    Begin(Kind),
    /// Sign with the new ones.
    Sign,
    /// Trust the old root no longer.
    Drop,
    /// Forget the rest.
    Finish,
}

/// The next step, if its time has come.
pub(crate) fn next(
    position: &Position,
    (root, signer): (Validity, Validity),
    progress: &Progress,
    rules: &Rules,
    now: i64,
) -> Option<Step> {
    let is_settled = now >= position.since + rules.settle_s;
    let is_over = now >= position.until;
    match position.phase {
        Phase::Steady => {
            let rotate_at = rules.rotate_at?;
            if root.used(now) >= rotate_at {
                return Some(Step::Begin(Kind::Root));
            }
            (signer.used(now) >= rotate_at).then_some(Step::Begin(Kind::Signer))
        }
        Phase::Distributing => {
            (is_settled && (is_over || progress.all_have_the_bundle())).then_some(Step::Sign)
        }
        Phase::Renewing => {
            let step = match position.kind {
                Kind::Root => Step::Drop,
                Kind::Signer => Step::Finish,
            };
            (is_settled && (is_over || progress.all_are_renewed())).then_some(step)
        }
        Phase::Dropping => (is_over || progress.all_have_the_bundle()).then_some(Step::Finish),
    }
}

/// What is wrong with the time that a certificate has left at `now`, if anything.
pub(crate) fn alarm(what: &'static str, validity: Validity, by_hand: bool, now: i64) -> Option<Alarm> {
    const DAY: i64 = 86_400;
    let left = validity.to - now;
    let length = (validity.to - validity.from).max(1);
    let is_urgent = left < (7 * DAY).min(length / 16);
    if left >= (30 * DAY).min(length / 4) {
        return None;
    }
    let ends = if left <= 0 {
        "has expired: no certificate can be issued".to_owned()
    } else if left >= 2 * DAY {
        format!("ends in {} days", left / DAY)
    } else if left >= 7200 {
        format!("ends in {} hours", left / 3600)
    } else {
        format!("ends in {left} s")
    };
    let todo = match (by_hand, what) {
        (true, _) => "put a new one in its place, with the old root beside the new one in root-cert.pem",
        (false, "the root") => {
            "`warren ca rotate --root`; the controller's log says why that was not done by age"
        }
        (false, _) => "`warren ca rotate`; the controller's log says why that was not done by age",
    };
    Some(Alarm { what, text: format!("{what} {ends}"), todo, is_urgent })
}

/// Something to be done soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    /// What ends.
    pub(crate) what: &'static str,
    /// And in how long.
    pub(crate) text: String,
    /// What to do.
    pub(crate) todo: &'static str,
    /// Very soon.
    pub(crate) is_urgent: bool,
}

#[cfg(test)]
mod tests;
