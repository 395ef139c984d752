//! The certificate authority: who asks ([`authenticate`]), may they ([`authorise`]), sign ([`sign`]).
//!
//! ```text
//! CreateCertificate --> authenticate (bearer token) --> authorise (a pod of the caller's node has the identity)
//!                   --> parse the request --> sign --> leaf .. root
//! ```

pub mod authenticate;
pub mod authorise;
mod bundle;
mod keys;
mod request;
mod review;
mod review_cache;
pub mod revocations;
pub mod roots;
mod secret;
pub mod service;
pub mod serving;
pub mod sign;

pub use authenticate::{AuthenticateError, Authenticator, Caller};
pub use bundle::BundleError;
pub use keys::{KeyFile, KeyFileConfig};
pub use review::TokenReviews;
pub use roots::{RootsError, load_or_create};
pub use secret::{SecretError, read_or_create};
pub use sign::Authority;

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// The clock of this room's adapters.
pub(crate) fn now() -> OffsetDateTime {
    // A clock before 1970 makes every certificate invalid, which is the right outcome.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    OffsetDateTime::UNIX_EPOCH + since
}
