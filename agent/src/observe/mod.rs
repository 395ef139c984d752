//! What people see: flow records, metrics, the access log, the admin socket and readiness.
//!
//! Every stage of a connection reports here through its [`FlowHandle`]; nothing here knows any stage (layer O).
//!
//! ```text
//!  begin() -> FlowHandle --(who, whom, how, verdict)--> established() --bytes--> drop
//!                |                                            |                   |
//!             open flows                              metrics: opened    closed, bytes, failed; access log;
//!                                                                        ring of closed flows; followers
//! ```
//!
//! The hot path formats nothing: a record turns into words when somebody reads it.

mod access_log;
mod admin;
mod endpoints;
mod flows;
mod handle;
mod http;
mod labels;
mod metrics;
mod moved;
mod record;
mod request;
mod request_log;
mod request_metrics;
mod stream;
mod trace;
mod wanted;
mod words;

pub use admin::{AdminView, serve_admin, serve_admin_on};
pub use endpoints::{EndpointError, bind, serve_metrics, serve_readiness};
pub use flows::{ObserveConfig, Observer, report_bytes};
pub use handle::FlowHandle;
pub use moved::MovedFlow;
pub use record::{ByteCounters, FlowFlag};
pub use request::{RequestDetails, ResponseFlag};
pub use stream::{FlowFilter, FlowStream};
pub use trace::TraceId;
pub use wanted::RequestFilter;
pub(crate) use words::shared;

#[cfg(test)]
mod testing;
