//! The CA that warren made for itself: its keys, and where it stands in a rotation. One document, so that it is whole
//! or not there. Pure but for random numbers.

use super::bundle::{Bundle, BundleError, CERTIFICATE, CHAIN, ROOT, certificates, parse};
use super::rotation::{Kind, Phase, Position, Validity};
use super::sign::Authority;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::fmt;
use time::{Duration, OffsetDateTime};

/// The document beside the parts that everybody knows, which are copies of what signs now.
pub(super) const STATE: &str = "warren-ca.json";
/// What this version writes.
const VERSION: u32 = 1;
/// Roots of earlier rotations that open connections may have been proven by.
const MAX_RETIRED: usize = 4;
/// Replicas read what another wrote within this, and go on signing with the old key until then.
const REPLICAS: Duration = Duration::seconds(10);
const ROOT_NAME: &str = "warren root";

/// How long new certificates live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    pub(super) root: Duration,
    pub(super) signer: Duration,
    /// Of workloads' certificates, at most.
    pub(super) leaf: Duration,
}

/// A root, a signing certificate below it, and their keys (PEM).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pair {
    root: String,
    root_key: String,
    signer: String,
    signer_key: String,
}

/// What signed before: there is nothing more to sign with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Former {
    root: String,
    signer: String,
}

/// The document.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Own {
    version: u32,
    pub(super) position: Position,
    signing: Pair,
    /// While its root is being distributed.
    next: Option<Pair>,
    /// While certificates of it are being renewed, and its root is being dropped.
    former: Option<Former>,
    /// Roots that were dropped; see `TrustBundle`.
    retired: Vec<String>,
    /// The newest root's key, signed by the root before it: with it the controller can show itself to agents that only
    /// know that one.
    cross: Option<String>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Own {
    /// A new CA.
    ///
    /// # Errors
    /// When the library refuses.
    pub(super) fn generate(
        trust_domain: &str,
        lifetimes: &Lifetimes,
        now: OffsetDateTime,
    ) -> Result<Self, BundleError> {
        let (signing, _) = Pair::generate(trust_domain, lifetimes, now)?;
        Ok(Self::with(signing, now))
    }

    fn with(signing: Pair, now: OffsetDateTime) -> Self {
        let position = Position::steady(now.unix_timestamp());
        Self {
            version: VERSION,
            position,
            signing,
            next: None,
            former: None,
            retired: Vec::new(),
            cross: None,
        }
    }

    /// Takes over what an earlier version made, whose root signed by itself; none if somebody else made it.
    pub(super) fn adopt(bundle: &Bundle, now: OffsetDateTime) -> Option<Self> {
        let is_ours = |der: &CertificateDer<'_>| {
            parse(der).is_some_and(|root| {
                root.subject().iter_common_name().any(|name| name.as_str() == Ok(ROOT_NAME))
            })
        };
        let root = certificates(ROOT, &bundle.root).ok()?;
        if bundle.root != bundle.certificate || root.len() != 1 || !root.iter().all(is_ours) {
            return None;
        }
        let signing = Pair {
            root: bundle.root.clone(),
            root_key: bundle.key.clone(),
            signer: bundle.certificate.clone(),
            signer_key: bundle.key.clone(),
        };
        Some(Self::with(signing, now))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is none, or of a later version. No text holds a key.
    pub(super) fn decode(text: &str) -> Result<Self, BundleError> {
        let bad = |reason: String| BundleError::Bad { part: STATE, reason };
        let own: Self = serde_json::from_str(text)
            .map_err(|error| bad(format!("malformed at line {}, column {}", error.line(), error.column())))?;
        if own.version > VERSION {
            return Err(bad(format!("of version {}, this controller knows {VERSION}", own.version)));
        }
        Ok(own)
    }

    /// As it is kept.
    pub(super) fn encode(&self) -> String {
        // Texts and numbers: writing them can't fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What everybody knows how to read: what signs now, and the roots that agents find in their file.
    ///
    /// An old root stays there until every agent has been told that it was dropped in order: one that sees it leave the
    /// file first takes it for an operator's word, and closes what was proven by it.
    pub(super) fn copies(&self) -> Bundle {
        let mut roots = self.trusted();
        if self.position.phase == Phase::Dropping {
            roots.extend(self.former.iter().map(|former| former.root.clone()));
        }
        self.bundle(&roots)
    }

    fn bundle(&self, roots: &[String]) -> Bundle {
        let Pair { signer, signer_key, .. } = &self.signing;
        Bundle {
            root: roots.concat(),
            certificate: signer.clone(),
            chain: signer.clone(),
            key: signer_key.clone(),
        }
    }

    /// Whether a signing certificate is one of ours.
    pub(super) fn knows(&self, certificate: &str) -> bool {
        let pairs = std::iter::once(&self.signing).chain(&self.next).map(|pair| &pair.signer);
        pairs.chain(self.former.iter().map(|former| &former.signer)).any(|one| one == certificate)
    }

    /// The root that signs comes first.
    fn trusted(&self) -> Vec<String> {
        let mut roots = vec![self.signing.root.clone()];
        let former = self.former.iter().filter(|_| self.position.phase != Phase::Dropping);
        let others = self.next.iter().map(|pair| &pair.root).chain(former.map(|it| &it.root));
        for other in others {
            if !roots.contains(other) {
                roots.push(other.clone());
            }
        }
        roots
    }

    /// The CA that it is.
    ///
    /// # Errors
    /// When it has expired or does not fit together.
    pub(super) fn authority(&self, now: OffsetDateTime) -> Result<Authority, BundleError> {
        let mut authority = self.bundle(&self.trusted()).authority(now)?;
        authority.cross = match (&self.cross, self.position.phase) {
            // The new root does not sign yet.
            (None, _) | (_, Phase::Distributing) => None,
            (Some(cross), _) => certificates(CHAIN, cross)?.into_iter().next(),
        };
        Ok(authority)
    }

    /// Roots that vouch for nothing new.
    pub(super) fn retired(&self) -> Result<Vec<CertificateDer<'static>>, BundleError> {
        let mut all = Vec::new();
        for root in &self.retired {
            all.extend(certificates(ROOT, root)?);
        }
        Ok(all)
    }

    /// When the root and the signing certificate that count for the next rotation are valid.
    pub(super) fn ages(&self) -> Result<(Validity, Validity), BundleError> {
        let pair = self.next.as_ref().unwrap_or(&self.signing);
        Ok((validity(ROOT, &pair.root)?, validity(CERTIFICATE, &pair.signer)?))
    }

    /// Makes new keys.
    ///
    /// # Errors
    /// When the library refuses.
    pub(super) fn begin(
        &self,
        kind: Kind,
        trust_domain: &str,
        lifetimes: &Lifetimes,
        now: OffsetDateTime,
    ) -> Result<Self, BundleError> {
        let mut own = Self { former: None, next: None, ..self.clone() };
        match kind {
            Kind::Signer => {
                let Pair { root, root_key, .. } = self.signing.clone();
                let (signer, signer_key) = sign_signer(trust_domain, &root, &root_key, lifetimes, now)?;
                let new = Pair { root, root_key, signer, signer_key };
                own.former = Some(std::mem::replace(&mut own.signing, new).retire());
                own.position = own.renewing(kind, lifetimes, now)?;
            }
            Kind::Root => {
                let (pair, params) = Pair::generate(trust_domain, lifetimes, now)?;
                let old = issuer(&self.signing.root, &self.signing.root_key)?;
                let key = KeyPair::from_pem(&pair.root_key)?;
                let mut cross = params;
                cross.not_after = cross.not_after.min(end(ROOT, &self.signing.root)?);
                own.cross = Some(cross.signed_by(&key, &old)?.pem());
                own.next = Some(pair);
                let (since, until) = (now.unix_timestamp(), (now + lifetimes.leaf).unix_timestamp());
                own.position = Position { phase: Phase::Distributing, kind, since, until };
            }
        }
        Ok(own)
    }

    /// The new key signs from now on.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub(super) fn sign(&self, lifetimes: &Lifetimes, now: OffsetDateTime) -> Result<Self, BundleError> {
        let mut own = self.clone();
        if let Some(next) = own.next.take() {
            own.former = Some(std::mem::replace(&mut own.signing, next).retire());
        }
        own.position = own.renewing(Kind::Root, lifetimes, now)?;
        Ok(own)
    }

    fn renewing(
        &self,
        kind: Kind,
        lifetimes: &Lifetimes,
        now: OffsetDateTime,
    ) -> Result<Position, BundleError> {
        // The last certificate that the old key can have signed.
        let mut until = now + lifetimes.leaf + REPLICAS;
        if let Some(former) = &self.former {
            until = until.min(end(CERTIFICATE, &former.signer)?);
        }
        let (since, until) = (now.unix_timestamp(), until.unix_timestamp());
        Ok(Position { phase: Phase::Renewing, kind, since, until })
    }

    /// The old root is trusted no longer.
    pub(super) fn drop_root(&self, lifetimes: &Lifetimes, now: OffsetDateTime) -> Self {
        let mut own = self.clone();
        own.retired.extend(own.former.as_ref().map(|former| former.root.clone()));
        own.retired.retain(|root| end(ROOT, root).is_ok_and(|end| end > now));
        let superfluous = own.retired.len().saturating_sub(MAX_RETIRED);
        own.retired.drain(..superfluous);
        let (since, until) = (now.unix_timestamp(), (now + lifetimes.leaf).unix_timestamp());
        own.position = Position { phase: Phase::Dropping, kind: Kind::Root, since, until };
        own
    }

    /// Nothing is left to do.
    pub(super) fn finish(&self, now: OffsetDateTime) -> Self {
        let position = Position { phase: Phase::Steady, since: now.unix_timestamp(), ..self.position };
        Self { former: None, next: None, position, ..self.clone() }
    }

    /// Retired roots vouch for open connections no longer.
    pub(super) fn forget(&self) -> Self {
        Self { retired: Vec::new(), ..self.clone() }
    }
}

impl Pair {
    fn generate(
        trust_domain: &str,
        lifetimes: &Lifetimes,
        now: OffsetDateTime,
    ) -> Result<(Self, CertificateParams), BundleError> {
        let root_key = KeyPair::generate()?;
        let params = ca_params(trust_domain, ROOT_NAME, lifetimes.root, now);
        let root = params.self_signed(&root_key)?.pem();
        let root_key = root_key.serialize_pem();
        let (signer, signer_key) = sign_signer(trust_domain, &root, &root_key, lifetimes, now)?;
        Ok((Self { root, root_key, signer, signer_key }, params))
    }

    fn retire(self) -> Former {
        Former { root: self.root, signer: self.signer }
    }
}

/// A new signing certificate and its key.
fn sign_signer(
    trust_domain: &str,
    root: &str,
    root_key: &str,
    lifetimes: &Lifetimes,
    now: OffsetDateTime,
) -> Result<(String, String), BundleError> {
    let key = KeyPair::generate()?;
    let mut params = ca_params(trust_domain, "warren signing", lifetimes.signer, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_after = params.not_after.min(end(ROOT, root)?);
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer(root, root_key)?)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn ca_params(trust_domain: &str, name: &str, lifetime: Duration, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.distinguished_name.push(DnType::CommonName, name);
    // Tells one from the next; also in the lists that people read.
    params.distinguished_name.push(DnType::OrganizationalUnitName, now.unix_timestamp().to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = Vec::<ExtendedKeyUsagePurpose>::new();
    // Clocks of nodes differ; a short life must not be over before it began.
    params.not_before = now - Duration::hours(1).min(lifetime / 20);
    params.not_after = now + lifetime;
    params
}

fn issuer(certificate: &str, key: &str) -> Result<Issuer<'static, KeyPair>, BundleError> {
    let der = certificates(ROOT, certificate)?;
    let der = der.first().ok_or_else(|| BundleError::Bad { part: ROOT, reason: "empty".to_owned() })?;
    let key = KeyPair::from_pem(key)?;
    let parsed = parse(der);
    if parsed.is_none_or(|parsed| parsed.public_key().raw != key.subject_public_key_info()) {
        return Err(BundleError::Bad {
            part: STATE,
            reason: "a key is not that of its certificate".to_owned(),
        });
    }
    Ok(Issuer::from_ca_cert_der(der, key)?)
}

fn validity(part: &'static str, pem: &str) -> Result<Validity, BundleError> {
    let ders = certificates(part, pem)?;
    let validity = ders.first().and_then(validity_of);
    validity.ok_or_else(|| BundleError::Bad { part, reason: "not a certificate".to_owned() })
}

/// When a certificate is valid.
pub(super) fn validity_of(der: &CertificateDer<'static>) -> Option<Validity> {
    let parsed = parse(der)?;
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    Some(Validity { from, to })
}

fn end(part: &'static str, pem: &str) -> Result<OffsetDateTime, BundleError> {
    let Validity { to, .. } = validity(part, pem)?;
    OffsetDateTime::from_unix_timestamp(to)
        .map_err(|error| BundleError::Bad { part, reason: error.to_string() })
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
