//! The controller's own TLS: a certificate of its own CA, made anew before it ends, and when another one signs.
//!
//! After a new root its chain also leads to the one before: agents that know only that one get in and learn the new one.

use super::keeper::{Ca, Keeper};
use super::now;
use super::sign::SignError;
use parking_lot::Mutex;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// How the server shows itself.
#[derive(Clone, Debug)]
pub struct ServingConfig {
    /// DNS names and IP addresses that agents dial.
    pub names: Vec<String>,
    /// Lifetime of the certificate; a new one is made at half of it.
    pub lifetime: Duration,
}

/// Why there is no certificate for the server.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The CA refuses.
    #[error("the server's certificate can't be made: {0}")]
    Sign(#[from] SignError),
    /// No key.
    #[error("the server's key can't be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The TLS library refuses.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A TLS 1.3 configuration for HTTP/2 whose certificate stays fresh.
///
/// # Errors
/// When the first certificate can't be made.
pub fn server_config(keeper: Arc<Keeper>, config: ServingConfig) -> Result<ServerConfig, ServingError> {
    let current = Mutex::new(issue(&keeper.current(), &config)?);
    let resolver = Renewing { keeper, config, current };
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

#[derive(Debug)]
struct Renewing {
    keeper: Arc<Keeper>,
    config: ServingConfig,
    current: Mutex<Served>,
}

#[derive(Debug)]
struct Served {
    /// When to replace it.
    until: OffsetDateTime,
    /// Who signed it.
    signer: String,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        let ca = self.keeper.current();
        if now() >= current.until || ca.trust.signer != current.signer {
            // One signature, about 0.1 ms: no need for a task of its own.
            match issue(&ca, &self.config) {
                Ok(fresh) => *current = fresh,
                Err(error) => tracing::error!(%error, "the server's certificate is not renewed"),
            }
        }
        Some(current.key.clone())
    }
}

/// A fresh certificate.
fn issue(ca: &Ca, config: &ServingConfig) -> Result<Served, ServingError> {
    let now = now();
    let key = KeyPair::generate()?;
    let chain = ca.authority.serving(&key, &config.names, config.lifetime, now)?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signing = aws_lc_rs::default_provider().key_provider.load_private_key(der)?;
    let key = Arc::new(CertifiedKey::new(chain, signing));
    Ok(Served { until: now + config.lifetime / 2, signer: ca.trust.signer.clone(), key })
}
