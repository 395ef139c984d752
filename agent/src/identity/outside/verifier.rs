//! Who a server outside of the mesh is.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Verifies a server's chain by roots, and that it has one of some names.
#[derive(Debug)]
pub(super) struct OutsideVerifier {
    /// None: whoever it is.
    roots: Option<Arc<RootCertStore>>,
    /// Empty: the name that it is asked for by.
    names: Vec<Arc<str>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl OutsideVerifier {
    pub(super) fn new(
        roots: Option<Arc<RootCertStore>>,
        names: Vec<Arc<str>>,
        provider: &CryptoProvider,
    ) -> Self {
        Self { roots, names, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for OutsideVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all)?;
        if self.names.is_empty() {
            verify_server_name(&parsed, asked)?;
        } else if !self.names.iter().any(|name| has_name(&parsed, leaf, name)) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate has a name: a DNS name or an address as they are verified, a URI as it is written.
fn has_name(parsed: &ParsedCertificate<'_>, leaf: &CertificateDer<'_>, name: &str) -> bool {
    if name.contains("://") {
        return has_uri(leaf, name).unwrap_or_default();
    }
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(parsed, &name).is_ok())
}

fn has_uri(leaf: &CertificateDer<'_>, name: &str) -> Option<bool> {
    let (_, leaf) = parse_x509_certificate(leaf).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    Some(names.value.general_names.iter().any(|one| matches!(one, GeneralName::URI(uri) if *uri == name)))
}
