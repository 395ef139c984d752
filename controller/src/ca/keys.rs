//! Tokens (JWT, RFC 7519) verified against a JWKS file.

use super::authenticate::{AuthenticateError, Caller};
use crate::objects::Name;
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use parking_lot::Mutex;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Clocks of nodes differ (seconds).
const LEEWAY_S: u64 = 30;
/// Signatures that are made with a private key. A shared secret proves nothing about the signer.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Which tokens are good.
#[derive(Clone, Debug)]
pub struct KeyFileConfig {
    /// Public keys of the issuer, a JWK Set (RFC 7517); read again when the file changes.
    pub jwks: PathBuf,
    /// `aud` that a token must have.
    pub audience: String,
    /// `iss` that a token must have, if any.
    pub issuer: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Named,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Debug)]
struct Keys {
    /// Of the file as it was read.
    stamp: (SystemTime, u64),
    set: Arc<JwkSet>,
}

/// Verifies tokens by the keys of a file.
#[derive(Debug)]
pub struct KeyFile {
    config: KeyFileConfig,
    keys: Mutex<Option<Keys>>,
}

impl KeyFile {
    /// Verifies by `config`. The file may appear later; until then nobody gets in.
    pub fn new(config: KeyFileConfig) -> Self {
        Self { config, keys: Mutex::new(None) }
    }

    /// Reads the keys now, to find out at the start whether they can be read.
    ///
    /// # Errors
    /// [`AuthenticateError::Unavailable`].
    pub async fn check(&self) -> Result<(), AuthenticateError> {
        self.keys().await.map(drop)
    }

    /// Whose token it is: the claims under `kubernetes.io` say that.
    pub(super) async fn verify(&self, token: &str) -> Result<Caller, AuthenticateError> {
        let keys = self.keys().await?;
        self.verify_with(&keys, token)
    }

    fn verify_with(&self, keys: &JwkSet, token: &str) -> Result<Caller, AuthenticateError> {
        let header = decode_header(token).map_err(|error| invalid(&error))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(AuthenticateError::UnknownKey);
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.config.audience]);
        let mut required = vec!["exp", "aud"];
        if let Some(issuer) = &self.config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        // Without a key id every key is tried.
        let candidates = keys.keys.iter().filter(|jwk| {
            let secret = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
            !secret && (header.kid.is_none() || jwk.common.key_id == header.kid)
        });
        let mut result = Err(AuthenticateError::UnknownKey);
        for jwk in candidates {
            let key = DecodingKey::from_jwk(jwk).map_err(|error| invalid(&error))?;
            match decode::<Claims>(token, &key, &validation) {
                Ok(token) => return Ok(caller(token.claims.kubernetes)),
                Err(error) => result = Err(invalid(&error)),
            }
        }
        result
    }

    async fn keys(&self) -> Result<Arc<JwkSet>, AuthenticateError> {
        let fail = |reason: &dyn std::fmt::Display| {
            AuthenticateError::Unavailable(format!("{}: {reason}", self.config.jwks.display()))
        };
        let metadata = tokio::fs::metadata(&self.config.jwks).await;
        let known = self.keys.lock().clone();
        let stamp = match metadata.and_then(|metadata| Ok((metadata.modified()?, metadata.len()))) {
            Ok(stamp) => stamp,
            Err(error) => return known.map(|keys| keys.set).ok_or_else(|| fail(&error)),
        };
        if let Some(keys) = known.as_ref().filter(|keys| keys.stamp == stamp) {
            return Ok(keys.set.clone());
        }
        let text = tokio::fs::read(&self.config.jwks).await.map_err(|error| fail(&error))?;
        match serde_json::from_slice::<JwkSet>(&text) {
            Ok(set) => {
                let set = Arc::new(set);
                *self.keys.lock() = Some(Keys { stamp, set: set.clone() });
                Ok(set)
            }
            // Half-written, perhaps: the last good keys stay.
            Err(error) => {
                tracing::warn!(file = %self.config.jwks.display(), %error, "JWKS is malformed");
                known.map(|keys| keys.set).ok_or_else(|| fail(&error))
            }
        }
    }
}

fn caller(claims: KubernetesClaims) -> Caller {
    Caller {
        node: claims.node.map_or_else(String::new, |node| node.name).into(),
        service_account: Name::new(claims.namespace, claims.serviceaccount.name),
    }
}

fn invalid(error: &jsonwebtoken::errors::Error) -> AuthenticateError {
    AuthenticateError::Invalid(error.to_string())
}
