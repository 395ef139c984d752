//! How much the other end of an HTTP/2 connection may send before anybody reads it (RFC 9113, 5.2).

use super::limits::{CONNECTION_WINDOW, FULL_WINDOW};
use crate::limits::{OfPod, Ticket};

/// The window of one connection, for as long as that is open.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: u32,
    /// Its part of what the pod may leave unread.
    _granted: Option<Ticket>,
}

impl Window {
    /// Room for all of the connection's requests, so that none waits for others to be read, if the pod has so much left.
    pub(crate) fn of(limits: OfPod<'_>) -> Self {
        let granted = limits.unread(FULL_WINDOW as usize).ok();
        let bytes = if granted.is_some() { FULL_WINDOW } else { CONNECTION_WINDOW };
        Self { bytes, _granted: granted }
    }

    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }
}
