//! Tokens of the agents, shaped like projected service-account tokens, and the key set that verifies them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

const KEY_ID: &str = "lab";

/// The lab's stand-in for the API server's token signer.
pub struct Tokens {
    key: EncodingKey,
    /// Uncompressed point: 4, then x and y of 32 bytes each.
    public: Vec<u8>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Tokens")
    }
}

impl Tokens {
    /// A signer with a new P-256 key.
    pub fn generate() -> Result<Self> {
        let pair = rcgen::KeyPair::generate().context("cannot make a key")?;
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        Ok(Self { key, public: pair.public_key_raw().to_vec() })
    }

    /// The key set, as an API server publishes it.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&self.public[from..from + 32]);
        json!({ "keys": [{
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": KEY_ID,
            "x": coordinate(1),
            "y": coordinate(33),
        }] })
    }

    /// The claims of the agent on a node; change them to make a wrong token.
    #[must_use]
    pub fn agent_claims(node: &str, node_uid: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pod = format!("warren-agent-{node}");
        json!({
            "iss": "https://kubernetes.default.svc",
            "aud": ["warren.dev"],
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + Duration::from_secs(3600)).as_secs(),
            "sub": "system:serviceaccount:warren-system:warren-agent",
            "kubernetes.io": {
                "namespace": "warren-system",
                "node": { "name": node, "uid": node_uid },
                "pod": { "name": pod, "uid": node_uid },
                "serviceaccount": { "name": "warren-agent", "uid": "5a5a5a5a-0000-4000-8000-000000000001" },
            },
        })
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).context("cannot sign a token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_set_verifies_the_token() {
        let tokens = Tokens::generate().expect("key");
        let token = tokens.sign(&Tokens::agent_claims("n1", "u1")).expect("signs");
        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(tokens.jwks()).expect("a key set");
        let key = jsonwebtoken::DecodingKey::from_jwk(&keys.keys[0]).expect("a key");
        let mut rules = jsonwebtoken::Validation::new(Algorithm::ES256);
        rules.set_audience(&["warren.dev"]);
        let claims = jsonwebtoken::decode::<Value>(token, &key, &rules).expect("verifies").claims;
        assert_eq!(claims["kubernetes.io"]["node"]["name"], "n1");
    }
}
