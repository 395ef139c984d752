//! Root, signing certificate, chain and key of a CA as PEM texts, wherever they are kept. Pure.
//!
//! The layout is that of Istio's `cacerts`: `root-cert.pem`, `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`.

use super::sign::Authority;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Trust anchors.
pub(super) const ROOT: &str = "root-cert.pem";
/// The certificate that signs.
pub(super) const CERTIFICATE: &str = "ca-cert.pem";
/// Its key.
pub(super) const KEY: &str = "ca-key.pem";
/// From the signing certificate up to below the root; may be absent.
pub(super) const CHAIN: &str = "cert-chain.pem";
/// Longest chain from the signing certificate to the root.
const MAX_CHAIN: usize = 8;

/// What is wrong with a CA. No text holds a key.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Some parts are there, others are not.
    #[error("{0} is missing but other parts of the CA are there; add it, or remove them all to get a new CA")]
    Missing(&'static str),
    /// A part does not hold what it should.
    #[error("{part}: {reason}")]
    Bad {
        /// Which.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A new CA could not be made.
    #[error("a new CA can't be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// The parts.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) root: String,
    pub(super) certificate: String,
    pub(super) chain: String,
    pub(super) key: String,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Bundle {
    /// The names of the parts.
    pub(super) const NAMES: [&'static str; 4] = [ROOT, CERTIFICATE, CHAIN, KEY];

    /// The parts as `part` finds them by name; `None` when there is none of them at all.
    ///
    /// # Errors
    /// When some are missing, or finding one fails.
    pub(super) fn gather<E: From<BundleError>>(
        part: impl Fn(&'static str) -> Result<Option<String>, E>,
    ) -> Result<Option<Self>, E> {
        let (root, certificate, chain, key) = (part(ROOT)?, part(CERTIFICATE)?, part(CHAIN)?, part(KEY)?);
        if [&root, &certificate, &chain, &key].into_iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Self {
            root: root.ok_or(BundleError::Missing(ROOT))?,
            certificate: certificate.ok_or(BundleError::Missing(CERTIFICATE))?,
            // Without intermediates there is nothing to say in it.
            chain: chain.unwrap_or_default(),
            key: key.ok_or(BundleError::Missing(KEY))?,
        }))
    }

    /// The name and the text of every part, the key first: whoever sees a certificate also finds its key.
    pub(super) fn parts(&self) -> [(&'static str, &str); 4] {
        [(KEY, &self.key), (CHAIN, &self.chain), (CERTIFICATE, &self.certificate), (ROOT, &self.root)]
    }

    /// The CA that the parts make.
    ///
    /// # Errors
    /// When they are malformed, don't fit together, or have expired.
    pub(super) fn authority(&self, now: OffsetDateTime) -> Result<Authority, BundleError> {
        let roots = certificates(ROOT, &self.root)?;
        let own = certificates(CERTIFICATE, &self.certificate)?;
        let chain = certificates(CHAIN, &self.chain)?;
        let bad_key = |reason: String| BundleError::Bad { part: KEY, reason };
        let key =
            KeyPair::from_pem(&self.key).map_err(|error| bad_key(format!("not a private key: {error}")))?;

        let bad = |reason: &str| BundleError::Bad { part: CERTIFICATE, reason: reason.to_owned() };
        let own = own.first().ok_or_else(|| bad("holds no certificate"))?;
        let parsed = parse(own).ok_or_else(|| bad("not a certificate"))?;
        if !parsed.is_ca() {
            return Err(bad("not the certificate of a CA (basicConstraints)"));
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(bad_key("not the key of ca-cert.pem".to_owned()));
        }
        let not_after = valid(&parsed, now).map_err(|reason| bad(&reason))?;
        let (intermediates, root) = path_to_root(own, &chain, &roots, now).map_err(|reason| bad(&reason))?;
        let root_not_after = parse(&root).map_or(not_after, |root| root.validity().not_after.to_datetime());
        // The root that signed the chain goes first.
        let others = roots.into_iter().filter(|other| *other != root).collect::<Vec<_>>();
        let roots = std::iter::once(root).chain(others).collect();
        let issuer = Issuer::from_ca_cert_der(own, key)?;
        Ok(Authority {
            issuer,
            certificate: own.clone(),
            intermediates,
            roots,
            cross: None,
            not_after: not_after.min(root_not_after),
        })
    }
}

type ChainAndRoot = (Vec<CertificateDer<'static>>, CertificateDer<'static>);

/// From the signing certificate upwards; itself included unless it is the root.
fn path_to_root(
    own: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<ChainAndRoot, String> {
    let mut intermediates = Vec::new();
    let mut current = own;
    while !roots.contains(current) {
        if intermediates.len() == MAX_CHAIN {
            return Err(format!("more than {MAX_CHAIN} certificates up to the root"));
        }
        let parsed = parse(current).ok_or("a certificate of the chain is malformed")?;
        valid(&parsed, now).map_err(|reason| format!("{}: {reason}", parsed.subject()))?;
        intermediates.push(current.clone());
        let signed_it = |candidate: &&CertificateDer<'static>| {
            parse(candidate).is_some_and(|candidate| {
                candidate.subject() == parsed.issuer()
                    && parsed.verify_signature(Some(candidate.public_key())).is_ok()
            })
        };
        let above = roots.iter().chain(chain).filter(|candidate| *candidate != current).find(signed_it);
        current = above
            .ok_or_else(|| format!("its chain ends at {}: no root-cert.pem signed that", parsed.issuer()))?;
    }
    let parsed = parse(current).ok_or("the root certificate is malformed")?;
    valid(&parsed, now).map_err(|reason| format!("the root: {reason}"))?;
    Ok((intermediates, current.clone()))
}

fn valid(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Result<OffsetDateTime, String> {
    let (from, to) =
        (certificate.validity().not_before.to_datetime(), certificate.validity().not_after.to_datetime());
    if now < from {
        return Err(format!("not valid before {from}"));
    }
    if now >= to {
        return Err(format!("expired at {to}"));
    }
    Ok(to)
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

/// The certificates of a part.
pub(super) fn certificates(
    part: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    certificates.map_err(|error| BundleError::Bad { part, reason: format!("not PEM: {error}") })
}
