use super::*;
use crate::ca::bundle::{CERTIFICATE, CHAIN, ROOT, parse};
use crate::ca::sign::SignError;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration as StdDuration;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW + seconds).unwrap()
}

fn csr() -> String {
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(vec!["evil.example".to_owned()])
        .unwrap()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap()
}

fn ca(
    name: &str,
    key: &KeyPair,
    by: Option<&Issuer<'_, &KeyPair>>,
    from: i64,
    to: i64,
) -> (CertificateParams, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (at(from), at(to));
    let certificate = match by {
        Some(issuer) => params.signed_by(key, issuer).unwrap(),
        None => params.self_signed(key).unwrap(),
    };
    (params, certificate.pem())
}

#[test]
fn a_new_ca_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let made = load_or_create(&path, "cluster.local", at(0)).unwrap();
    let mode = std::fs::metadata(path.join(KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = load_or_create(&path, "cluster.local", at(60)).unwrap();
    assert_eq!(made.roots_pem(), again.roots_pem());
    assert_eq!(made.expiry(), (NOW + 3650 * 86_400, NOW + 3650 * 86_400));
    let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    load_or_create(path, "cluster.local", at(0)).unwrap();
    let error = |now| load_or_create(path, "cluster.local", now).unwrap_err().to_string();
    assert!(error(at(4000 * 86_400)).contains("expired at"), "{}", error(at(4000 * 86_400)));
    let key = std::fs::read(path.join(KEY)).unwrap();
    std::fs::write(path.join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(error(at(0)).contains("not the key of ca-cert.pem"), "{}", error(at(0)));
    std::fs::remove_file(path.join(KEY)).unwrap();
    assert!(error(at(0)).contains("ca-key.pem is missing"), "{}", error(at(0)));
    std::fs::write(path.join(KEY), key).unwrap();
    let other = ca("other", &KeyPair::generate().unwrap(), None, 0, 1000).1;
    std::fs::write(path.join(ROOT), other).unwrap();
    assert!(error(at(0)).contains("no root-cert.pem signed"), "{}", error(at(0)));
}

#[test]
fn a_plugged_in_intermediate_signs_with_its_chain() {
    let directory = tempfile::tempdir().unwrap();
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (root_params, root) = ca("root", &root_key, None, -100, 1_000_000);
    let issuer = Issuer::from_params(&root_params, &root_key);
    let (_, own) = ca("intermediate", &key, Some(&issuer), -100, 5_000);
    for (name, content) in [(ROOT, &root), (CERTIFICATE, &own), (CHAIN, &own), (KEY, &key.serialize_pem())] {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let authority = load_or_create(directory.path(), "cluster.local", at(0)).unwrap();
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = authority.sign(&csr(), &identity, StdDuration::from_secs(86_400), at(0)).unwrap();
    let normal = |pem: &str| pem.replace(['\r', '\n'], "");
    assert_eq!(chain.len(), 3);
    assert_eq!((normal(&chain[1]), normal(&chain[2])), (normal(&own), normal(&root)));
    let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let leaf = parse(&der).unwrap();
    // No longer than the CA itself.
    assert_eq!(leaf.validity().not_after.timestamp(), NOW + 5_000);
    assert!(matches!(
        authority.sign(&csr(), &identity, StdDuration::from_secs(60), at(5_000)),
        Err(SignError::Expired)
    ));
}

#[test]
fn a_leaf_says_who_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let authority = load_or_create(directory.path(), "cluster.local", at(0)).unwrap();
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = authority.sign(&csr(), &identity, StdDuration::from_secs(3600), at(0)).unwrap();
    assert_eq!(chain.len(), 2);
    let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let leaf = parse(&der).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = san.value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["URI(spiffe://cluster.local/ns/shop/sa/web)"]);
    assert!(san.critical);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(
        (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp()),
        (NOW - 60, NOW + 3600)
    );
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(!leaf.is_ca());
    let again = authority.sign(&csr(), &identity, StdDuration::from_secs(3600), at(0)).unwrap();
    let again = CertificateDer::from_pem_slice(again[0].as_bytes()).unwrap();
    assert_ne!(parse(&again).unwrap().raw_serial(), leaf.raw_serial());
    assert_eq!(leaf.raw_serial().len(), 16);
}
