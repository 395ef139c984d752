//! The CA in a Secret of the controller's own namespace.
//!
//! `cacerts` is a CA that somebody plugged in, and has precedence. Without it `warren-ca` is read, and made when it is
//! not there: by whichever replica is first, the others read what that one made.

use super::bundle::{Bundle, BundleError};
use super::sign::Authority;
use crate::kubernetes::{CallError, Cluster};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use time::OffsetDateTime;

const PLUGGED_IN: &str = "cacerts";
const OWN: &str = "warren-ca";

/// Why the CA can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server.
    #[error("the Secret {name}: {error}")]
    Call {
        /// The Secret.
        name: &'static str,
        /// What came of it.
        error: CallError,
    },
    /// The Secret does not make a CA.
    #[error("the Secret {name}: {error}")]
    Bundle {
        /// The Secret.
        name: &'static str,
        /// What is wrong.
        error: BundleError,
    },
    /// A new CA could not be made.
    #[error(transparent)]
    Generate(BundleError),
    /// Deleted by somebody at the moment of its making.
    #[error("the Secret {OWN} was made by another replica and is gone again")]
    Gone,
}

/// Reads the CA of the cluster, or makes one.
///
/// # Errors
/// When the API server does not let us, or the CA is not a good one. Nothing is replaced, so trying again is safe.
pub async fn read_or_create(
    cluster: &Cluster,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Authority, SecretError> {
    for name in [PLUGGED_IN, OWN] {
        if let Some(authority) = read(cluster, name, now).await? {
            tracing::info!(secret = name, "CA read");
            return Ok(authority);
        }
    }
    let bundle = Bundle::generate(trust_domain, now).map_err(SecretError::Generate)?;
    match cluster.create(Some(cluster.namespace()), &secret(&bundle)).await {
        Ok(_) => tracing::info!(secret = OWN, "new CA made"),
        Err(CallError::Conflict) => tracing::info!(secret = OWN, "another replica was first to make the CA"),
        Err(error) => return Err(SecretError::Call { name: OWN, error }),
    }
    // What is there counts, not what we made.
    read(cluster, OWN, now).await?.ok_or(SecretError::Gone)
}

async fn read(
    cluster: &Cluster,
    name: &'static str,
    now: OffsetDateTime,
) -> Result<Option<Authority>, SecretError> {
    let secret: Secret = match cluster.get(cluster.namespace(), name).await {
        Ok(secret) => secret,
        Err(CallError::NotFound) => return Ok(None),
        Err(error) => return Err(SecretError::Call { name, error }),
    };
    let data = secret.data.unwrap_or_default();
    let part = |part: &'static str| {
        let text = data.get(part).map(|ByteString(bytes)| String::from_utf8(bytes.clone()));
        text.transpose().map_err(|_| BundleError::Bad { part, reason: "not text".to_owned() })
    };
    let bad = |error| SecretError::Bundle { name, error };
    let bundle = Bundle::gather(part).map_err(bad)?;
    let empty = || bad(BundleError::Missing(super::bundle::ROOT));
    bundle.ok_or_else(empty)?.authority(now).map(Some).map_err(bad)
}

fn secret(bundle: &Bundle) -> Secret {
    let data = bundle.parts().map(|(part, text)| (part.to_owned(), ByteString(text.as_bytes().to_vec())));
    let labels = [("app.kubernetes.io/part-of".to_owned(), "warren".to_owned())];
    Secret {
        metadata: ObjectMeta {
            name: Some(OWN.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        data: Some(data.into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
