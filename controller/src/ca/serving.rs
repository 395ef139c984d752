//! The controller's own TLS: a certificate of its own CA, made anew before it ends.

use super::now;
use super::sign::{Authority, SignError};
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
pub fn server_config(authority: Arc<Authority>, config: ServingConfig) -> Result<ServerConfig, ServingError> {
    let current = Mutex::new(issue(&authority, &config)?);
    let resolver = Renewing { authority, config, current };
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}

#[derive(Debug)]
struct Renewing {
    authority: Arc<Authority>,
    config: ServingConfig,
    current: Mutex<(OffsetDateTime, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock();
        if now() >= current.0 {
            // One signature, about 0.1 ms: no need for a task of its own.
            match issue(&self.authority, &self.config) {
                Ok(fresh) => *current = fresh,
                Err(error) => tracing::error!(%error, "the server's certificate is not renewed"),
            }
        }
        Some(current.1.clone())
    }
}

/// A fresh certificate and when to replace it.
fn issue(
    authority: &Authority,
    config: &ServingConfig,
) -> Result<(OffsetDateTime, Arc<CertifiedKey>), ServingError> {
    let now = now();
    let key = KeyPair::generate()?;
    let chain = authority.serving(&key, &config.names, config.lifetime, now)?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signing = aws_lc_rs::default_provider().key_provider.load_private_key(der)?;
    Ok((now + config.lifetime / 2, Arc::new(CertifiedKey::new(chain, signing))))
}
