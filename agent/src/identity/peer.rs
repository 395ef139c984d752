//! Who a peer's certificate says it is (SPIFFE X.509-SVID).
//!
//! The chain has been verified by the TLS handshake; here its leaf is read. Every byte of it is still the peer's
//! choice as far as form goes: nothing here panics, whatever the bytes.

use super::chain::{rfc3339, system_time};
use rustls_pki_types::CertificateDer;
use std::time::SystemTime;
use warren_common::model::{Identity, IdentityError};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Why a peer has no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The handshake brought no certificate.
    #[error("the peer showed no certificate, expected one with a SPIFFE identity")]
    NoCertificate,
    /// The leaf is no X.509 certificate.
    #[error("the peer's certificate is malformed: {0}")]
    Malformed(String),
    /// Not exactly one URI among its names.
    #[error("the peer's certificate names {0} URIs, expected exactly one: its SPIFFE identity")]
    Uris(usize),
    /// The URI is no identity of a workload.
    #[error("the peer's certificate names no workload: {0}")]
    Identity(#[from] IdentityError),
    /// It belongs to somebody else's mesh.
    #[error("the peer is {found}, expected the trust domain {expected:?}")]
    TrustDomain {
        /// Who the peer is.
        found: Identity,
        /// Our trust domain.
        expected: String,
    },
    /// The certificate was valid once: a resumed TLS session brings it without checking it again.
    #[error("the certificate of {found} expired at {not_after}")]
    Expired {
        /// Who the peer was.
        found: Identity,
        /// When, RFC 3339.
        not_after: String,
    },
}

/// The identity in the leaf of `certs`, as `peer_certificates()` of a finished handshake gives them.
///
/// # Errors
/// [`PeerError`] says what was wrong and what was expected.
pub fn peer_identity(
    certs: Option<&[CertificateDer<'_>]>,
    trust_domain: &str,
) -> Result<Identity, PeerError> {
    peer_identity_at(certs, trust_domain, SystemTime::now())
}

/// [`peer_identity`] at another time than now.
///
/// # Errors
/// As above.
pub fn peer_identity_at(
    certs: Option<&[CertificateDer<'_>]>,
    trust_domain: &str,
    now: SystemTime,
) -> Result<Identity, PeerError> {
    let leaf = certs.and_then(|certs| certs.first()).ok_or(PeerError::NoCertificate)?;
    let malformed = |error: String| PeerError::Malformed(error);
    let (rest, certificate) = parse_x509_certificate(leaf).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes after its end", rest.len())));
    }
    let names = certificate.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), 0) = (uris.next(), uris.count()) else {
        let is_uri = |name: &&GeneralName<'_>| matches!(name, GeneralName::URI(_));
        return Err(PeerError::Uris(names.iter().filter(is_uri).count()));
    };
    let found: Identity = uri.parse()?;
    if found.trust_domain() != trust_domain {
        return Err(PeerError::TrustDomain { found, expected: trust_domain.to_owned() });
    }
    let not_after = system_time(certificate.validity().not_after);
    if now > not_after {
        return Err(PeerError::Expired { found, not_after: rfc3339(not_after) });
    }
    Ok(found)
}
