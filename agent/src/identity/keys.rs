//! Private keys (ECDSA P-256) and the requests that go with them.

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use warren_common::model::Identity;
use zeroize::Zeroizing;

/// Why there is no key or no request.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a key or a certificate request: {0}")]
pub struct KeyError(#[from] rcgen::Error);

/// A key of which nothing is left in memory when it is dropped: its bytes are overwritten here, and aws-lc overwrites what it
/// frees.
pub(super) type PrivateKey = Zeroizing<KeyPair>;

/// A new key.
pub(super) fn generate() -> Result<PrivateKey, KeyError> {
    Ok(Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
}

/// A PKCS#10 request in PEM whose only name is the identity as a URI (SPIFFE X.509-SVID, 2).
pub(super) fn certificate_request(key: &KeyPair, identity: &Identity) -> Result<String, KeyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    Ok(params.serialize_request(key)?.pem()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::CertificateSigningRequestParams;

    #[test]
    fn a_request_names_the_identity_and_nothing_else() {
        let identity = Identity::new("cluster.local", "shop", "cart").unwrap();
        let key = generate().unwrap();
        let pem = certificate_request(&key, &identity).unwrap();
        let request = CertificateSigningRequestParams::from_pem(&pem).unwrap();
        let uri = SanType::URI("spiffe://cluster.local/ns/shop/sa/cart".try_into().unwrap());
        assert_eq!(request.params.subject_alt_names, [uri]);
        assert_eq!(request.params.distinguished_name, DistinguishedName::new());
    }
}
