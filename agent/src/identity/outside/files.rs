//! Certificates and keys of the node that DestinationRules name: read, and known again by when they changed.

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;
use warren_common::model::traffic::TlsOrigination;
use zeroize::Zeroizing;

/// Roots may be here too: they are no secret.
const ROOTS: [&str; 3] = ["/etc/ssl", "/etc/pki", "/usr/share/ca-certificates"];
/// A file that is larger is none of these.
const LARGEST: u64 = 4 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// MUTUAL without certificate or key.
    #[error("it names no certificate and key of ours")]
    NotNamed,
    /// Not where such files may be: whoever writes a DestinationRule must not read what is the agent's.
    #[error("{path} is not below {folder} (the agent's --tls-files)")]
    Elsewhere {
        /// The file.
        path: Arc<str>,
        /// Where it may be.
        folder: String,
    },
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: Arc<str>,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no {what}")]
    Malformed {
        /// The file.
        path: Arc<str>,
        /// What it should hold.
        what: &'static str,
    },
    /// The system has no roots.
    #[error("the agent's system has no root certificates: name a file (caCertificates)")]
    NoRoots,
}

/// When the files that settings name were changed; none: it is not there.
pub(super) type Stamp = [Option<(SystemTime, u64)>; 3];

/// Where files may be.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// The system's own roots, once they were found.
    system: OnceLock<Arc<RootCertStore>>,
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Files {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, system: OnceLock::new() }
    }

    pub(super) fn stamp(&self, settings: &TlsOrigination) -> Stamp {
        let stamp = |path: &Option<Arc<str>>| {
            let about = std::fs::metadata(&**path.as_ref()?).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        [&settings.ca_file, &settings.certificate_file, &settings.key_file].map(stamp)
    }

    /// The roots in a file; none: the system's own.
    pub(super) fn roots(&self, path: Option<&str>) -> Result<Arc<RootCertStore>, FileError> {
        let Some(path) = path else { return self.system_roots() };
        let mut store = RootCertStore::empty();
        let text = self.read(path, &ROOTS)?;
        store.add_parsable_certificates(certificates(path, &text)?);
        match store.is_empty() {
            false => Ok(Arc::new(store)),
            true => Err(FileError::Malformed { path: path.into(), what: "root certificate" }),
        }
    }

    fn system_roots(&self) -> Result<Arc<RootCertStore>, FileError> {
        if let Some(roots) = self.system.get() {
            return Ok(Arc::clone(roots));
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            return Err(FileError::NoRoots);
        }
        Ok(Arc::clone(self.system.get_or_init(|| Arc::new(store))))
    }

    /// The certificate and the key that are ours, if settings name both.
    pub(super) fn own(&self, settings: &TlsOrigination) -> Result<Option<Own>, FileError> {
        let (Some(chain), Some(key)) = (&settings.certificate_file, &settings.key_file) else {
            return Ok(None);
        };
        let chain = certificates(chain, &self.read(chain, &[])?)?;
        let text = self.read(key, &[])?;
        let malformed = |_| FileError::Malformed { path: Arc::clone(key), what: "private key" };
        Ok(Some((chain, PrivateKeyDer::from_pem_slice(&text).map_err(malformed)?)))
    }

    fn read(&self, path: &str, also: &[&str]) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let unreadable = |source| FileError::Unreadable { path: path.into(), source };
        // Links are followed before it is looked where they lead.
        let real = std::fs::canonicalize(path).map_err(unreadable)?;
        let folder = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        if !real.starts_with(&folder) && !also.iter().any(|other| real.starts_with(Path::new(other))) {
            let folder = self.folder.display().to_string();
            return Err(FileError::Elsewhere { path: path.into(), folder });
        }
        let about = std::fs::metadata(&real).map_err(unreadable)?;
        if !about.is_file() || about.len() > LARGEST {
            return Err(unreadable(io::Error::other("it is no file of certificates")));
        }
        std::fs::read(&real).map(Zeroizing::new).map_err(unreadable)
    }
}

fn certificates(path: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(FileError::Malformed { path: path.into(), what: "certificate" }),
    }
}
