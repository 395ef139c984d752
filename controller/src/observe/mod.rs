//! What the controller tells about itself: metrics, problems, readiness.

mod http;
mod metrics;

pub use http::{Http, HttpError};
pub(crate) use metrics::CertificateOutcome;
pub use metrics::{ClientGuard, Metrics};
