//! Certificate requests (PKCS#10, RFC 2986): untrusted, and only their public key is used.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::x509;

/// Longest request (bytes of PEM); a P-384 one with a long name has about 1 KiB.
const MAX_PEM: usize = 16 << 10;

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Too long.
    #[error("the certificate request is longer than {MAX_PEM} bytes")]
    TooLong,
    /// Not one PEM block of the right kind.
    #[error("the certificate request is not one PEM block CERTIFICATE REQUEST")]
    NotPem,
    /// Not PKCS#10.
    #[error("the certificate request is malformed: {0}")]
    Malformed(String),
    /// The caller does not hold the private key.
    #[error("the certificate request is not signed with its own key")]
    Signature,
    /// RSA, other curves ...
    #[error("the key of the certificate request is not one of ECDSA P-256, ECDSA P-384, Ed25519")]
    KeyType,
}

/// The public key of a request that is signed with the private one.
pub(super) fn public_key(pem: &str) -> Result<SubjectPublicKeyInfo, RequestError> {
    if pem.len() > MAX_PEM {
        return Err(RequestError::TooLong);
    }
    let (rest, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| RequestError::NotPem)?;
    if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST")
        || !rest.trim_ascii().is_empty()
    {
        return Err(RequestError::NotPem);
    }
    let malformed = |error: &dyn std::fmt::Display| RequestError::Malformed(error.to_string());
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| malformed(&error))?;
    if !rest.is_empty() {
        return Err(malformed(&"bytes after its end"));
    }
    let key = &request.certification_request_info.subject_pki;
    if !is_accepted(key) {
        return Err(RequestError::KeyType);
    }
    request.verify_signature().map_err(|_| RequestError::Signature)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|error| malformed(&error))
}

fn is_accepted(key: &x509::SubjectPublicKeyInfo<'_>) -> bool {
    if key.algorithm.algorithm == OID_SIG_ED25519 {
        return true;
    }
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    fn csr(algorithm: &'static rcgen::SignatureAlgorithm) -> (KeyPair, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["someone.else".to_owned()]).unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        (key, pem)
    }

    #[test]
    fn the_key_is_taken_and_nothing_else() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let (key, pem) = csr(algorithm);
            assert_eq!(public_key(&pem).unwrap().der_bytes(), key.public_key_raw());
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        let (_, pem) = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let cert = pem.replace("CERTIFICATE REQUEST", "CERTIFICATE");
        let other = csr(&rcgen::PKCS_ECDSA_P521_SHA512).1;
        for (text, expected) in [
            ("", RequestError::NotPem),
            (cert.as_str(), RequestError::NotPem),
            (&format!("{pem}{pem}"), RequestError::NotPem),
            (&"x".repeat(MAX_PEM + 1), RequestError::TooLong),
            (&other, RequestError::KeyType),
        ] {
            assert_eq!(public_key(text).err(), Some(expected));
        }
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (_, pem) = csr(&rcgen::PKCS_ECDSA_P256_SHA256);
        let mut block = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1;
        // The name "someone.else" is under the signature.
        let at = block.contents.windows(7).position(|window| window == b"someone").unwrap();
        block.contents[at] = b'S';
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(&block.contents);
        let forged =
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert_eq!(public_key(&forged).err(), Some(RequestError::Signature));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_panic(text in ".{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            use base64::Engine;
            let _ = public_key(&text);
            let body = base64::engine::general_purpose::STANDARD.encode(bytes);
            let _ = public_key(&format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"));
        }
    }
}
