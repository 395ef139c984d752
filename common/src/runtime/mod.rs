//! What both daemons do the same way: drain, readiness, signals and logging.

mod drain;
mod logging;
mod readiness;
mod signals;

pub use drain::{DrainTrigger, DrainWatch, drain};
pub use logging::{LogFormat, init_logging};
pub use readiness::{Readiness, ReadinessGuard};
pub use signals::shutdown_signal;
