//! Roots, ready to verify by.

use super::rule::{Der, Ruling};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use warren_common::model::TrustBundle;

/// Certificates that are trusted at one moment.
#[derive(Clone)]
pub struct Anchors {
    /// What new handshakes are verified by.
    pub store: Arc<RootCertStore>,
    /// What open connections may have been proven by: the above, and roots that were retired in order.
    pub open: Arc<RootCertStore>,
    /// The same as `store`.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Of the controller's bundle; see [`FROM_FILE`].
    pub id: String,
    /// SHA-256 (hexadecimal) of the certificate that signs now, as far as the controller has said.
    pub signer: Option<String>,
    /// How long renewing certificates of another one may take.
    pub renew_within: Duration,
}

/// The id of what does not come from the controller.
pub const FROM_FILE: &str = "file";

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchors")
            .field("id", &self.id)
            .field("roots", &self.certificates.len())
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

impl Anchors {
    /// From what counts.
    ///
    /// # Errors
    /// What is wrong with a certificate.
    pub(super) fn of(ruling: &Ruling<'_>) -> Result<Self, String> {
        match ruling {
            Ruling::File(file) => Self::new(file, &[], FROM_FILE.to_owned(), None),
            Ruling::Told(bundle) => {
                Self::new(&bundle.roots, &bundle.retired, bundle.id.clone(), Some(bundle))
            }
            // Neither one nor the other.
            Ruling::Less { bundle, roots, retired } => {
                Self::new(roots, retired, FROM_FILE.to_owned(), Some(bundle))
            }
        }
    }

    fn new(roots: &[Der], retired: &[Der], id: String, bundle: Option<&TrustBundle>) -> Result<Self, String> {
        let certificates: Vec<_> = roots.iter().cloned().map(CertificateDer::from).collect();
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        if store.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        let mut open = store.clone();
        for certificate in retired {
            open.add(CertificateDer::from(certificate.clone())).map_err(|error| error.to_string())?;
        }
        let store = Arc::new(store);
        let open = if retired.is_empty() { store.clone() } else { Arc::new(open) };
        let signer = bundle.map(|bundle| bundle.signer.clone()).filter(|signer| !signer.is_empty());
        let renew_within = bundle.map_or(Duration::ZERO, |bundle| bundle.renew_within);
        Ok(Self { store, open, certificates, id, signer, renew_within })
    }

    /// Whether new handshakes are verified by the same.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.certificates == other.certificates
    }

    /// As a library wants them that knows no store.
    pub(crate) fn anchors(&self) -> Vec<TrustAnchor<'static>> {
        self.store.roots.clone()
    }
}
