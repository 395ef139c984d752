//! How the session with the controller stands, for people.

use arc_swap::ArcSwap;
use std::sync::Arc;
use warren_common::model::admin::ControllerStatus;

/// A handle to the status: cheap to clone, cheap to read, written by the session alone.
#[derive(Clone, Debug, Default)]
pub struct SharedControllerStatus(Arc<ArcSwap<ControllerStatus>>);

impl SharedControllerStatus {
    /// The status now.
    pub fn get(&self) -> Arc<ControllerStatus> {
        self.0.load_full()
    }

    pub(super) fn update(&self, change: impl Fn(&mut ControllerStatus)) {
        self.0.rcu(|status| {
            let mut status = ControllerStatus::clone(status);
            change(&mut status);
            status
        });
    }
}
