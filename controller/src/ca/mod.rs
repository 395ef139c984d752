//! The certificate authority: who asks ([`authenticate`]), may they ([`authorise`]), sign ([`sign`]).
//!
//! ```text
//! CreateCertificate --> authenticate (bearer token) --> authorise (a pod of the caller's node has the identity)
//!                   --> parse the request --> sign --> leaf .. root
//! ```

pub mod authenticate;
pub mod authorise;
mod bundle;
pub mod keeper;
mod keys;
mod own;
mod request;
mod review;
mod review_cache;
pub mod revocations;
pub(crate) mod rotation;
pub mod service;
pub mod serving;
pub mod sign;

pub use authenticate::{AuthenticateError, Authenticator, Caller};
pub use bundle::BundleError;
pub use keeper::{Ca, CaError, Keeper, RotationConfig};
pub use keys::{KeyFile, KeyFileConfig};
pub use review::TokenReviews;
pub use rotation::Roster;
pub use sign::Authority;

use rustls_pki_types::CertificateDer;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Subject, serial number (hexadecimal) and end (Unix seconds) of a certificate.
pub(crate) fn describe(der: &CertificateDer<'_>) -> Option<(String, String, i64)> {
    let parsed = bundle::parse(der)?;
    let end = parsed.validity().not_after.timestamp();
    Some((parsed.subject().to_string(), parsed.raw_serial_as_string(), end))
}

/// The clock of this room's adapters.
pub(crate) fn now() -> OffsetDateTime {
    // A clock before 1970 makes every certificate invalid, which is the right outcome.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    OffsetDateTime::UNIX_EPOCH + since
}
