//! Log lines of the programs, when the node's configuration asks for them.

use super::sys;
use aya::Ebpf;
use aya_log::EbpfLogger;
use std::{os::fd::AsFd as _, thread, time::Duration};

/// Forwards the programs' log to the `log` crate from a thread of its own, for as long as the process lives.
/// Debugging must not stop traffic: what fails here is said and otherwise ignored.
pub(super) fn forward(object: &mut Ebpf) {
    let mut logger = match EbpfLogger::init(object) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "kernel programs can't log");
            return;
        }
    };
    let thread = thread::Builder::new().name("kernel-log".into()).spawn(move || {
        while sys::wait_readable(logger.as_fd(), Duration::from_secs(3600)).is_ok() {
            logger.flush();
        }
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "no thread for the kernel programs' log");
    }
}
