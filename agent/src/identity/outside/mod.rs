//! TLS to servers outside of the mesh, where a DestinationRule asks for it (`tls` of mode SIMPLE and MUTUAL).
//!
//! ```text
//!   settings --files read (again when they change)--> ClientConfig --handshake--> stream
//!                     \--bad: the last good ones stay, and the log says so; without any nothing is sent
//! ```
//!
//! Files are looked at once a second at most, on a thread of its own, and for all who wait at once; what is bad is not read
//! again before it changes, or [`TRY_AGAIN`] later.
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
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use verifier::OutsideVerifier;
use warren_common::model::Identity;
use warren_common::model::traffic::{TlsMode, TlsOrigination};

use super::{Credential, PeerError, peer_identity};

/// Configurations that are kept; beyond that all are made anew.
const MAX_CONFIGS: usize = 1024;
/// How often files are looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What could not be used is read again after so long, even if its files have not changed: others may have, as the system's roots.
const TRY_AGAIN: Duration = Duration::from_secs(60);
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

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key is none, or not that of the certificate.
    #[error("certificate and key of ours: {0}")]
    Own(rustls::Error),
    /// The thread that reads files has failed.
    #[error("the files were not read: {0}")]
    Unread(tokio::task::JoinError),
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// The settings cannot be used, and never could.
    #[error(transparent)]
    Unusable(#[from] Arc<Unusable>),
    /// Neither a DNS name nor an address.
    #[error("{0:?} is no name of a server: {1}")]
    Name(Arc<str>, InvalidDnsNameError),
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
        matches!(self, Self::Unusable(_) | Self::Name(..))
    }
}

/// What was made of settings, and of which files.
struct Made {
    outcome: Outcome,
    stamp: Stamp,
    /// When the files were looked at for the last time.
    looked: Instant,
    /// When they were read.
    read: Instant,
}

type Outcome = Result<Arc<ClientConfig>, Arc<Unusable>>;

/// What settings lead to; whoever needs it while it is made waits.
type Slot = Arc<tokio::sync::Mutex<Option<Made>>>;

/// TLS to servers outside of the mesh; shared by all workers.
pub struct Outside {
    files: Arc<Files>,
    made: Mutex<HashMap<(TlsOrigination, Application), Slot>>,
}

impl Outside {
    /// Certificates and keys are read from below `folder` alone; roots also from the system's own folders.
    pub fn new(folder: PathBuf) -> Self {
        Self { files: Arc::new(Files::new(folder)), made: Mutex::default() }
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
        let config = self.config(settings, application).await?;
        handshake(config, name, application, io, patience).await
    }

    async fn config(&self, settings: &TlsOrigination, application: Application) -> Outcome {
        let slot = self.slot(settings, application);
        let mut slot = slot.lock().await;
        let now = Instant::now();
        if let Some(made) = &*slot
            && now.duration_since(made.looked) < LOOK_AGAIN
        {
            return made.outcome.clone();
        }
        let known =
            slot.as_ref().filter(|made| made.outcome.is_ok() || now.duration_since(made.read) < TRY_AGAIN);
        let known = known.map(|made| made.stamp);
        let (files, settings) = (Arc::clone(&self.files), settings.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let stamp = files.stamp(&settings);
            let read = (known != Some(stamp)).then(|| make(&files, &settings, application));
            (stamp, read)
        });
        // Nothing is known of what was not read: it is tried again at once.
        let (stamp, read) = looking.await.map_err(|error| Arc::new(Unusable::Unread(error)))?;
        let outcome = match (read, slot.as_mut()) {
            (None, Some(made)) => {
                made.looked = now;
                return made.outcome.clone();
            }
            (Some(Err(error)), Some(Made { outcome: Ok(config), .. })) => {
                // Said once per change.
                tracing::warn!(%error, "files of a DestinationRule's TLS have become unusable; the ones before stay in use");
                Ok(Arc::clone(config))
            }
            (Some(read), _) => read.map(Arc::new).map_err(Arc::new),
            // Nothing was known: it was read.
            (None, None) => Err(Arc::new(FileError::NotNamed.into())),
        };
        *slot = Some(Made { outcome: outcome.clone(), stamp, looked: now, read: now });
        outcome
    }

    fn slot(&self, settings: &TlsOrigination, application: Application) -> Slot {
        let key = (settings.clone(), application);
        let mut all = self.made.lock();
        if all.len() >= MAX_CONFIGS && !all.contains_key(&key) {
            all.clear();
        }
        Arc::clone(all.entry(key).or_default())
    }
}

fn make(
    files: &Files,
    settings: &TlsOrigination,
    application: Application,
) -> Result<ClientConfig, Unusable> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Before the roots, of which there may be many.
    let own = match settings.mode {
        TlsMode::Mutual => Some(files.own(settings)?.ok_or(FileError::NotNamed)?),
        _ => None,
    };
    let roots: Option<Arc<RootCertStore>> = match settings.insecure_skip_verify {
        true => None,
        false => Some(files.roots(settings.ca_file.as_deref())?),
    };
    let verifier = OutsideVerifier::new(roots, settings.subject_alt_names.clone(), &provider);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Unusable::Own)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(Unusable::Own)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = application.protocols();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
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
