//! What both daemons do the same way: backoff, drain, readiness, signals, logging, sockets at a path.

mod backoff;
mod drain;
mod logging;
mod readiness;
mod signals;
mod socket;

pub use backoff::Backoff;
pub use drain::{DrainTrigger, DrainWatch, drain};
pub use logging::{LogFormat, init_logging};
pub use readiness::{Readiness, ReadinessGuard};
pub use signals::shutdown_signal;
pub use socket::{SocketFile, bind_private};
