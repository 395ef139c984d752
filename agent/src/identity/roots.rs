//! The certificates that every peer's chain must lead to: exactly those of one file.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warren_common::model::admin::RootCertificate;
use x509_parser::parse_x509_certificate;

/// Why there is nothing to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read the root certificates {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something that is not a certificate, or none.
    #[error("{} does not hold root certificates: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Trusted roots.
#[derive(Debug)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(super) async fn load(path: &Path) -> Result<Self, RootsError> {
        let pem = tokio::fs::read(path)
            .await
            .map_err(|source| RootsError::Read { path: path.to_owned(), source })?;
        Self::parse(&pem).map_err(|reason| RootsError::Content { path: path.to_owned(), reason })
    }

    fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| error.to_string())?;
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        if store.is_empty() {
            return Err("it holds no PEM certificate".to_owned());
        }
        Ok(Self { store: Arc::new(store), certificates })
    }

    /// For people.
    pub(super) fn describe(&self) -> Vec<RootCertificate> {
        let parsed = self.certificates.iter().filter_map(|der| parse_x509_certificate(der).ok());
        let describe =
            |(_, certificate): (_, x509_parser::certificate::X509Certificate<'_>)| RootCertificate {
                subject: certificate.subject().to_string(),
                serial: certificate.raw_serial_as_string(),
                not_after: super::chain::rfc3339(super::chain::system_time(certificate.validity().not_after)),
            };
        parsed.map(describe).collect()
    }
}
