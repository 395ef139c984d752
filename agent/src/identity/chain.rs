//! Checks a chain before it is used: the CA may be wrong, and a file may be old.

use super::peer::{PeerError, peer_identity_at};
use super::tls::verify_chain;
use crate::control::Anchors;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use warren_common::model::Identity;
use warren_common::model::admin::RootCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

/// Why a chain is not used.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// It leads to no trusted root, is not valid now, or is for other uses.
    #[error("the certificate does not hold against our roots: {0}")]
    Untrusted(rustls::Error),
    /// Its leaf names nobody.
    #[error(transparent)]
    Leaf(#[from] PeerError),
    /// Its leaf names somebody else.
    #[error("the certificate is that of {found}, not of {expected}")]
    Identity {
        /// Who it names.
        found: Identity,
        /// Who was asked for.
        expected: Identity,
    },
}

/// A chain that holds, and what its leaf says.
#[derive(Debug)]
pub(super) struct CheckedChain {
    /// Leaf and intermediates, as they go into a handshake.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// Hexadecimal.
    pub(super) serial: String,
    /// SHA-256 (hexadecimal) of the certificate that signed it, which follows it.
    pub(super) signer: String,
}

/// Checks that `chain`, leaf first, leads to `roots`, is valid at `now`, and is `expected`'s.
pub(super) fn check(
    chain: &[CertificateDer<'static>],
    expected: &Identity,
    roots: &Anchors,
    now: SystemTime,
) -> Result<CheckedChain, ChainError> {
    let found = peer_identity_at(Some(chain), expected.trust_domain(), now)?;
    if found != *expected {
        return Err(ChainError::Identity { found, expected: expected.clone() });
    }
    let (leaf, intermediates) = chain.split_first().ok_or(PeerError::NoCertificate)?;
    let at = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    verify_chain(leaf, intermediates, &roots.store, at).map_err(ChainError::Untrusted)?;
    let (_, parsed) =
        parse_x509_certificate(leaf).map_err(|error| PeerError::Malformed(error.to_string()))?;
    // Peers have the roots: sending them would only make every handshake longer.
    let certificates = chain.iter().filter(|certificate| !roots.certificates.contains(certificate));
    Ok(CheckedChain {
        certificates: certificates.cloned().collect(),
        not_before: system_time(parsed.validity().not_before),
        not_after: system_time(parsed.validity().not_after),
        serial: parsed.raw_serial_as_string(),
        signer: chain.get(1).map(fingerprint).unwrap_or_default(),
    })
}

fn fingerprint(der: &CertificateDer<'static>) -> String {
    Sha256::digest(der).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Certificates for people.
pub(super) fn describe(certificates: &[CertificateDer<'static>]) -> Vec<RootCertificate> {
    let parsed = certificates.iter().filter_map(|der| parse_x509_certificate(der).ok());
    let describe = |(_, certificate): (_, X509Certificate<'_>)| RootCertificate {
        subject: certificate.subject().to_string(),
        serial: certificate.raw_serial_as_string(),
        not_after: rfc3339(system_time(certificate.validity().not_after)),
    };
    parsed.map(describe).collect()
}

/// A certificate's time; before 1970 it is 1970.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

/// A time for people, in whole seconds.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap_or(i64::MAX));
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{seconds} s after 1970"))
}
