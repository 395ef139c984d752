//! Leaf certificates.

use super::request::{self, RequestError};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;
use warren_common::model::Identity;

/// Certificates begin this long before they are made: clocks of nodes differ.
const SKEW: Duration = Duration::from_secs(60);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The request is not good.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The CA's own certificate has ended.
    #[error("the CA's certificate has expired; renew ca-cert.pem")]
    Expired,
    /// The library refuses.
    #[error("signing failed: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// No randomness.
    #[error("no random numbers for the serial number")]
    Random,
}

/// The signing CA with its chain.
#[derive(Debug)]
pub struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// The certificate that signs.
    pub(super) certificate: CertificateDer<'static>,
    /// From the certificate that signs up to below the root.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    /// Trust anchors; the first one signed the chain.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// The first root's key signed by the root before it, for whoever only knows that one.
    pub(super) cross: Option<CertificateDer<'static>>,
    pub(super) not_after: OffsetDateTime,
}

impl Authority {
    /// Signs the key of `csr_pem` as `identity`. Nothing else of the request is used.
    /// Returns PEM certificates: leaf, intermediates, root.
    ///
    /// # Errors
    /// When the request is not good, or the CA can't sign.
    pub fn sign(
        &self,
        csr_pem: &str,
        identity: &Identity,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<String>, SignError> {
        let key = request::public_key(csr_pem)?;
        let uri = SanType::URI(identity.to_string().try_into()?);
        let leaf = self.leaf(&key, vec![uri], lifetime, now)?;
        let above = self.intermediates.iter().chain(self.roots.first());
        Ok(std::iter::once(leaf.der()).chain(above).map(|der| pem(der)).collect())
    }

    /// A certificate for the controller's own server, with its chain (root left out, as TLS wants it).
    pub(super) fn serving(
        &self,
        key: &KeyPair,
        names: &[String],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<CertificateDer<'static>>, SignError> {
        let name = |name: &String| match name.parse::<IpAddr>() {
            Ok(ip) => Ok(SanType::IpAddress(ip)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        };
        let names = names.iter().map(name).collect::<Result<_, _>>()?;
        let leaf = self.leaf(key, names, lifetime, now)?;
        Ok(std::iter::once(leaf.der()).chain(&self.intermediates).chain(&self.cross).cloned().collect())
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<rcgen::Certificate, SignError> {
        if now >= self.not_after {
            return Err(SignError::Expired);
        }
        let mut params = CertificateParams::default();
        // No subject: the name is the SAN, which is critical then (RFC 5280, 4.1.2.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = now - SKEW;
        params.not_after = (now + lifetime).min(self.not_after);
        Ok(params.signed_by(key, &self.issuer)?)
    }
}

/// 128 random bits (CA/Browser Forum asks for 64), positive and not zero.
fn serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0_u8; 16];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| SignError::Random)?;
    // DER wants no superfluous leading zero.
    bytes[0] |= 0x40;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}
