//! The papers of an attacker who has learnt much: some are signed by the mesh's own CA.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use warren_tests::lab::Lab;

/// A certificate authority.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// From the certificate that signs upwards.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate and its key.
pub(crate) struct Papers {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

/// When papers are good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Valid {
    Now,
    UntilYesterday,
    FromTomorrow,
}

impl Ca {
    /// The mesh's own, stolen.
    pub(crate) fn of_mesh(lab: &Lab) -> Result<Self> {
        let read = |name: &str| {
            std::fs::read_to_string(lab.dir().join("ca").join(name)).with_context(|| name.to_owned())
        };
        let key = KeyPair::from_pem(&read("ca-key.pem")?)?;
        let certificate = read("ca-cert.pem")?;
        let above = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&certificate, key)?, above })
    }

    /// Another one, which nobody trusts.
    pub(crate) fn unknown() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: Issuer::new(params, KeyPair::generate()?), above: Vec::new() })
    }

    /// Signs a certificate with this name: a SPIFFE ID, or a DNS name.
    pub(crate) fn sign(&self, name: &str, valid: Valid) -> Result<Papers> {
        let key = KeyPair::generate()?;
        let certificate = params(name, valid)?.signed_by(&key, &self.issuer)?;
        let mut papers = Papers::new(certificate.der().clone(), &key);
        papers.chain.extend(self.above.iter().cloned());
        Ok(papers)
    }
}

impl Papers {
    fn new(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        Self { chain: vec![certificate], key: Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into()) }
    }

    /// Signed by nobody but itself.
    pub(crate) fn self_signed(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        Ok(Self::new(params(name, Valid::Now)?.self_signed(&key)?.der().clone(), &key))
    }
}

fn params(name: &str, valid: Valid) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let san = if name.contains("://") {
        SanType::URI(name.try_into()?)
    } else {
        SanType::DnsName(name.try_into()?)
    };
    params.subject_alt_names = vec![san];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = OffsetDateTime::now_utc();
    params.not_before = match valid {
        Valid::FromTomorrow => now + Duration::days(1),
        Valid::Now | Valid::UntilYesterday => now - Duration::days(3),
    };
    params.not_after = match valid {
        Valid::Now => now + Duration::hours(1),
        Valid::UntilYesterday => now - Duration::days(1),
        Valid::FromTomorrow => now + Duration::days(2),
    };
    Ok(params)
}
