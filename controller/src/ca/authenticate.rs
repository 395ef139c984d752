//! Who calls: the bearer token of a request, verified by one of two means behind one door.

use super::keys::KeyFile;
use super::review::TokenReviews;
use crate::objects::Name;
use std::sync::Arc;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// Longest token (bytes); Kubernetes' are about 1 KiB.
const MAX_TOKEN: usize = 16 << 10;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The node that the token's pod runs on; empty when the token is bound to none.
    pub node: Arc<str>,
    /// The account that the token is of.
    pub service_account: Name,
}

/// Why a caller could not be made out. No text holds the token.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// No token.
    #[error("the request has no bearer token (metadata \"authorization: Bearer ...\")")]
    Missing,
    /// Too long.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Malformed, expired, for another audience, of a pod that is gone ...
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// Its key is not in the JWKS, or is of a kind that is not accepted.
    #[error("the token is signed with a key that is not in the controller's JWKS")]
    UnknownKey,
    /// Nobody can say right now.
    #[error("the token can't be verified right now, try again: {0}")]
    Unavailable(String),
}

impl AuthenticateError {
    /// What the caller is told: UNAVAILABLE where another attempt may succeed.
    pub fn status(&self) -> Status {
        match self {
            Self::Unavailable(_) => Status::unavailable(self.to_string()),
            _ => Status::unauthenticated(self.to_string()),
        }
    }
}

/// Verifies tokens.
#[derive(Debug)]
pub enum Authenticator {
    /// By the issuer's public keys, in a file.
    Keys(KeyFile),
    /// By asking Kubernetes.
    Reviews(TokenReviews),
}

impl Authenticator {
    /// Who sent a request with this metadata.
    ///
    /// # Errors
    /// When the token is missing or not good, or nobody can say.
    pub async fn authenticate(&self, metadata: &MetadataMap) -> Result<Caller, AuthenticateError> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).ok_or(AuthenticateError::Missing)?;
        if token.len() > MAX_TOKEN {
            return Err(AuthenticateError::TooLong);
        }
        match self {
            Self::Keys(keys) => keys.verify(token).await,
            Self::Reviews(reviews) => reviews.verify(token).await,
        }
    }
}
