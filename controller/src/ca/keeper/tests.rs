use super::*;
use crate::ca::bundle::{CERTIFICATE, CHAIN, KEY, ROOT, parse};
use crate::ca::own::STATE;
use crate::ca::sign::SignError;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

async fn open_at(path: &Path, now: OffsetDateTime) -> Result<Keeper, CaError> {
    let shelf = Shelf::Directory(path.to_owned());
    let config = RotationConfig { settle: Duration::from_secs(10), ..RotationConfig::default() };
    Keeper::open(shelf, "cluster.local", config, Duration::from_secs(3600), now).await
}

async fn open(path: &Path) -> Keeper {
    open_at(path, at(0)).await.unwrap()
}

fn everybody() -> Progress {
    Progress::default()
}

fn somebody_lacks() -> Progress {
    Progress { nodes: 1, ..Progress::default() }
}

#[tokio::test]
async fn a_new_ca_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let made = open(&path).await;
    for secret in [KEY, STATE] {
        let mode = std::fs::metadata(path.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let again = open_at(&path, at(60)).await.unwrap();
    assert_eq!(made.current().roots_pem(), again.current().roots_pem());
    let (root, signer) = made.current().ages();
    assert_eq!((root.to, signer.to), (NOW + 3650 * 86_400, NOW + 365 * 86_400));
    let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    // The parts are what everybody knows how to read; what was lost of them is written again.
    std::fs::remove_file(path.join(CHAIN)).unwrap();
    let text = std::fs::read_to_string(path.join(ROOT)).unwrap();
    assert_eq!(text, open(&path).await.current().roots_pem());
    assert!(path.join(CHAIN).exists());
}

#[tokio::test]
async fn a_controller_that_was_away_for_too_long_makes_a_new_signing_certificate_while_it_has_a_root() {
    const DAY: i64 = 86_400;
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).await.current();
    let late = open_at(directory.path(), at(400 * DAY)).await.unwrap().current();
    assert!(late.trust.id == first.trust.id && late.trust.signer != first.trust.signer);
    let before = std::fs::read(directory.path().join(STATE)).unwrap();
    let error = open_at(directory.path(), at(3651 * DAY)).await.unwrap_err().to_string();
    assert!(error.contains("expired at"), "{error}");
    assert_eq!(std::fs::read(directory.path().join(STATE)).unwrap(), before);
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let root_key = KeyPair::generate().unwrap();
    let root = ca("Corp", &root_key, None, 0, 1000).1;
    for (name, content) in [(ROOT, &root), (CERTIFICATE, &root), (KEY, &root_key.serialize_pem())] {
        std::fs::write(path.join(name), content).unwrap();
    }
    let error = async |now| open_at(path, at(now)).await.unwrap_err().to_string();
    open(path).await;
    assert!(error(2000).await.contains("expired at"), "{}", error(2000).await);
    let key = std::fs::read(path.join(KEY)).unwrap();
    std::fs::write(path.join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(error(0).await.contains("not the key of ca-cert.pem"), "{}", error(0).await);
    std::fs::remove_file(path.join(KEY)).unwrap();
    assert!(error(0).await.contains("ca-key.pem is missing"), "{}", error(0).await);
    std::fs::write(path.join(KEY), key).unwrap();
    let other = ca("other", &KeyPair::generate().unwrap(), None, 0, 1000).1;
    std::fs::write(path.join(ROOT), other).unwrap();
    assert!(error(0).await.contains("no root-cert.pem signed"), "{}", error(0).await);
}

#[tokio::test]
async fn a_rotation_goes_on_where_another_controller_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let first = open(path).await;
    let before = first.current();
    first.rotate(Kind::Root, at(100)).await.unwrap();
    assert_eq!(first.current().trust.roots.len(), 2);
    assert!(matches!(first.rotate(Kind::Signer, at(100)).await, Err(CaError::Busy("distributing"))));
    drop(first);

    let second = open_at(path, at(105)).await.unwrap();
    assert_eq!(second.current().position.phase, Phase::Distributing);
    assert_eq!(second.current().trust.signer, before.trust.signer);
    // Somebody lacks the new root; then nobody does, but not everybody can have looked yet; then it is time.
    for (progress, now, phase) in [
        (somebody_lacks(), 500, Phase::Distributing),
        (everybody(), 109, Phase::Distributing),
        (everybody(), 110, Phase::Renewing),
        (everybody(), 119, Phase::Renewing),
    ] {
        second.step(&progress, at(now)).await.unwrap();
        assert_eq!(second.current().position.phase, phase, "at {now}");
    }
    let renewing = second.current();
    assert!(renewing.trust.signer != before.trust.signer && renewing.trust.roots.len() == 2);
    // Agents that know both need not be told anything new of roots.
    let third = open_at(path, at(119)).await.unwrap();
    third.step(&everybody(), at(120)).await.unwrap();
    let dropping = third.current();
    assert_eq!(dropping.position.phase, Phase::Dropping);
    assert_eq!((dropping.trust.roots.len(), dropping.trust.retired.len()), (1, 1));
    assert_eq!(dropping.trust.retired, before.trust.roots);
    // The other one has meanwhile lost its turn, and notices.
    second.step(&everybody(), at(120)).await.unwrap();
    assert_eq!(second.current().position, dropping.position);
    third.step(&everybody(), at(121)).await.unwrap();
    assert_eq!(third.current().position.phase, Phase::Steady);
    third.forget(at(122)).await.unwrap();
    assert!(third.current().trust.retired.is_empty());
    let written = std::fs::read_to_string(path.join(ROOT)).unwrap();
    assert_eq!(written, third.current().roots_pem());
}

/// Puts a CA below `root` into the directory.
fn plug_in(path: &Path, root: (&CertificateParams, &KeyPair), roots: &str) {
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(root.0, root.1);
    let own = ca("Corp signing", &key, Some(&issuer), 0, 100_000).1;
    for (name, content) in
        [(CERTIFICATE, own.as_str()), (KEY, &key.serialize_pem()), (CHAIN, &own), (ROOT, roots)]
    {
        std::fs::write(path.join(name), content).unwrap();
    }
}

#[tokio::test]
async fn plugged_in_files_are_followed_with_overlap_and_bad_ones_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let roots: Vec<_> =
        keys.iter().zip(["Corp 1", "Corp 2"]).map(|(key, name)| ca(name, key, None, 0, 1_000_000)).collect();
    plug_in(path, (&roots[0].0, &keys[0]), &roots[0].1);
    let keeper = open(path).await;
    let first = keeper.current();
    assert!(first.plugged_in.is_some());
    assert!(matches!(keeper.rotate(Kind::Root, at(0)).await, Err(CaError::PluggedIn(_))));
    let reload = async |now| keeper.adopt(keeper.shelf.read().await?, at(now));

    // In the middle of being replaced.
    std::fs::write(path.join(KEY), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = reload(10).await.unwrap_err().to_string();
    assert!(error.contains("not the key of ca-cert.pem"), "{error}");
    assert_eq!(keeper.current().trust, first.trust);

    // The new root is told at once; the old certificate signs until everybody has it.
    plug_in(path, (&roots[1].0, &keys[1]), &(roots[0].1.clone() + &roots[1].1));
    reload(20).await.unwrap();
    let both = keeper.current();
    assert_eq!((both.trust.roots.len(), &both.trust.signer), (2, &first.trust.signer));
    for (progress, now, phase) in [
        (somebody_lacks(), 1000, Phase::Distributing),
        (everybody(), 29, Phase::Distributing),
        (everybody(), 30, Phase::Renewing),
        (everybody(), 40, Phase::Steady),
    ] {
        keeper.step(&progress, at(now)).await.unwrap();
        assert_eq!(keeper.current().position.phase, phase, "at {now}");
    }
    let second = keeper.current();
    assert!(second.trust.signer != first.trust.signer && second.trust.id == both.trust.id);

    // The operator takes the old root out: nothing of it is trusted any more.
    std::fs::write(path.join(ROOT), &roots[1].1).unwrap();
    reload(50).await.unwrap();
    let third = keeper.current();
    assert_eq!((third.trust.roots.len(), third.trust.retired.len()), (1, 0));
    assert_eq!(third.trust.signer, second.trust.signer);
    // Without overlap it is another CA from one moment to the next.
    plug_in(path, (&roots[0].0, &keys[0]), &roots[0].1);
    reload(60).await.unwrap();
    let fourth = keeper.current();
    assert!(fourth.trust.signer != third.trust.signer && fourth.trust.roots == first.trust.roots);
}

#[tokio::test]
async fn a_ca_of_our_own_gives_way_to_one_that_is_plugged_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let keeper = open(path).await;
    let own = keeper.current();
    let key = KeyPair::generate().unwrap();
    let (params, root) = ca("Corp", &key, None, 0, 1_000_000);
    plug_in(path, (&params, &key), &(own.roots_pem() + &root));
    keeper.adopt(keeper.shelf.read().await.unwrap(), at(10)).unwrap();
    let plugged = keeper.current();
    assert!(plugged.plugged_in.is_some() && plugged.trust.roots.len() == 2);
    assert_eq!(plugged.trust.signer, own.trust.signer);
    for part in Bundle::NAMES {
        std::fs::remove_file(path.join(part)).unwrap();
    }
    keeper.adopt(keeper.shelf.read().await.unwrap(), at(20)).unwrap();
    assert_eq!(keeper.current().trust, own.trust);
}

#[tokio::test]
async fn a_plugged_in_intermediate_signs_with_its_chain() {
    let directory = tempfile::tempdir().unwrap();
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (root_params, root) = ca("root", &root_key, None, -100, 1_000_000);
    let issuer = Issuer::from_params(&root_params, &root_key);
    let (_, own) = ca("intermediate", &key, Some(&issuer), -100, 5_000);
    for (name, content) in [(ROOT, &root), (CERTIFICATE, &own), (CHAIN, &own), (KEY, &key.serialize_pem())] {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let authority = open(directory.path()).await.current().authority.clone();
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = authority.sign(&csr(), &identity, Duration::from_secs(86_400), at(0)).unwrap();
    let normal = |pem: &str| pem.replace(['\r', '\n'], "");
    assert_eq!(chain.len(), 3);
    assert_eq!((normal(&chain[1]), normal(&chain[2])), (normal(&own), normal(&root)));
    let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
    let leaf = parse(&der).unwrap();
    // No longer than the CA itself.
    assert_eq!(leaf.validity().not_after.timestamp(), NOW + 5_000);
    assert!(matches!(
        authority.sign(&csr(), &identity, Duration::from_secs(60), at(5_000)),
        Err(SignError::Expired)
    ));
}

#[tokio::test]
async fn a_leaf_says_who_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(directory.path()).await.current().authority.clone();
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = authority.sign(&csr(), &identity, Duration::from_secs(3600), at(0)).unwrap();
    assert_eq!(chain.len(), 3);
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
    let again = authority.sign(&csr(), &identity, Duration::from_secs(3600), at(0)).unwrap();
    let again = CertificateDer::from_pem_slice(again[0].as_bytes()).unwrap();
    assert_ne!(parse(&again).unwrap().raw_serial(), leaf.raw_serial());
    assert_eq!(leaf.raw_serial().len(), 16);
}
