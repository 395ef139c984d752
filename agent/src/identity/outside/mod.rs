//! TLS to servers outside of the mesh, where a DestinationRule asks for it (`tls` of mode SIMPLE and MUTUAL).
//!
//! ```text
//!   settings --files read (again when they change)--> ClientConfig --handshake--> stream
//!                     \--bad: the last good ones stay, and the log says so; without any nothing is sent
//! ```
//!
//! There is no way from here to plaintext.

mod files;
mod verifier;

#[cfg(test)]
mod tests;

pub use files::FileError;

use files::{Files, Stamp};
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use verifier::OutsideVerifier;
use warren_common::model::Identity;
use warren_common::model::traffic::{TlsMode, TlsOrigination};

use super::{Credential, PeerError, peer_identity};

/// Configurations that are kept; beyond that all are made anew.
const MAX_CONFIGS: usize = 1024;
/// Sessions that are kept for resumption, per configuration.
const SESSIONS: usize = 64;

/// What a handshake is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Application {
    /// Bytes that nobody looks into: no protocol is offered.
    Bytes,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, and nothing else.
    Http2,
}

impl Application {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Bytes => vec![],
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
        }
    }
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// A file cannot be used, and never could.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither a DNS name nor an address.
    #[error("{0:?} is no name of a server: {1}")]
    Name(Arc<str>, InvalidDnsNameError),
    /// The key is none, or not that of the certificate.
    #[error("certificate and key of ours: {0}")]
    Own(rustls::Error),
    /// No handshake.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// The time is over.
    #[error("the handshake took too long")]
    Silent,
    /// HTTP/2 was asked for.
    #[error("the server does not speak HTTP/2")]
    NoHttp2,
    /// The server has no identity of the mesh, or another one.
    #[error("{0}")]
    Peer(#[from] PeerError),
    /// The server is somebody else.
    #[error("the server proved to be {0}, which subjectAltNames do not name")]
    WrongPeer(Identity),
}

impl OutsideError {
    /// Whether another server, or another try, would fail in the same way.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::File(_) | Self::Name(..) | Self::Own(_))
    }
}

/// What was made of settings, and of which files.
struct Made {
    config: Arc<ClientConfig>,
    stamp: Stamp,
}

/// TLS to servers outside of the mesh; shared by all workers.
pub struct Outside {
    files: Files,
    made: Mutex<HashMap<(TlsOrigination, Application), Made>>,
}

impl Outside {
    /// Certificates and keys are read from below `folder` alone; roots also from the system's own folders.
    pub fn new(folder: PathBuf) -> Self {
        Self { files: Files::new(folder), made: Mutex::default() }
    }

    /// A handshake over `io` with the server of this name, as the settings say.
    ///
    /// # Errors
    /// [`OutsideError`].
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        settings: &TlsOrigination,
        name: &Arc<str>,
        application: Application,
        io: IO,
        patience: Duration,
    ) -> Result<TlsStream<IO>, OutsideError> {
        let config = self.config(settings, application)?;
        handshake(config, name, application, io, patience).await
    }

    fn config(
        &self,
        settings: &TlsOrigination,
        application: Application,
    ) -> Result<Arc<ClientConfig>, OutsideError> {
        let key = (settings.clone(), application);
        let stamp = self.files.stamp(settings);
        let mut all = self.made.lock();
        if let Some(made) = all.get(&key)
            && made.stamp == stamp
        {
            return Ok(Arc::clone(&made.config));
        }
        match self.make(settings, application) {
            Ok(config) => {
                let config = Arc::new(config);
                if all.len() >= MAX_CONFIGS {
                    all.clear();
                }
                all.insert(key, Made { config: Arc::clone(&config), stamp });
                Ok(config)
            }
            Err(error) => match all.get_mut(&key) {
                Some(made) => {
                    // Said once per change.
                    tracing::warn!(%error, "files of a DestinationRule's TLS have become unusable; the ones before stay in use");
                    made.stamp = stamp;
                    Ok(Arc::clone(&made.config))
                }
                None => Err(error),
            },
        }
    }

    fn make(
        &self,
        settings: &TlsOrigination,
        application: Application,
    ) -> Result<ClientConfig, OutsideError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots: Option<Arc<RootCertStore>> = match settings.insecure_skip_verify {
            true => None,
            false => Some(self.files.roots(settings.ca_file.as_deref())?),
        };
        let verifier = OutsideVerifier::new(roots, settings.subject_alt_names.clone(), &provider);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(OutsideError::Own)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (settings.mode, self.files.own(settings)?) {
            (TlsMode::Mutual, Some((chain, key))) => {
                builder.with_client_auth_cert(chain, key).map_err(OutsideError::Own)?
            }
            (TlsMode::Mutual, None) => return Err(FileError::NotNamed.into()),
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = application.protocols();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }
}

/// The same with the pod's own certificate and the mesh's roots (mode ISTIO_MUTUAL); `expected`: who may answer. Also who did.
///
/// # Errors
/// [`OutsideError`].
pub async fn connect_as_pod<IO: AsyncRead + AsyncWrite + Unpin>(
    credential: &Credential,
    trust_domain: &str,
    expected: &[Arc<str>],
    name: &Arc<str>,
    application: Application,
    io: IO,
    patience: Duration,
) -> Result<(TlsStream<IO>, Identity), OutsideError> {
    let mut config = ClientConfig::clone(&credential.client);
    config.alpn_protocols = application.protocols();
    config.enable_sni = true;
    // Sessions of tunnels are not for others.
    config.resumption = Resumption::disabled();
    let stream = handshake(Arc::new(config), name, application, io, patience).await?;
    let found = peer_identity(stream.get_ref().1.peer_certificates(), trust_domain)?;
    if !expected.iter().any(|name| **name == *found.to_string()) {
        return Err(OutsideError::WrongPeer(found));
    }
    Ok((stream, found))
}

async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: &Arc<str>,
    application: Application,
    io: IO,
    patience: Duration,
) -> Result<TlsStream<IO>, OutsideError> {
    let server = ServerName::try_from(name.to_string());
    let server = server.map_err(|error| OutsideError::Name(Arc::clone(name), error))?;
    let connecting = TlsConnector::from(config).connect(server, io);
    let stream = tokio::time::timeout(patience, connecting).await.map_err(|_| OutsideError::Silent)??;
    if application == Application::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(OutsideError::NoHttp2);
    }
    Ok(stream)
}
