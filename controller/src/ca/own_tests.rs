use super::*;
use crate::ca::sign::Authority;
use std::time::Duration as StdDuration;

const NOW: i64 = 1_800_000_000;
const LIFETIMES: Lifetimes =
    Lifetimes { root: Duration::days(100), signer: Duration::days(10), leaf: Duration::hours(1) };

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW + seconds).unwrap()
}

fn made() -> Own {
    Own::generate("cluster.local", &LIFETIMES, at(0)).unwrap()
}

/// The signing certificate, then the roots.
fn parts(own: &Own) -> (CertificateDer<'static>, Vec<CertificateDer<'static>>) {
    let authority = own.authority(at(60)).unwrap();
    (authority.certificate.clone(), authority.roots)
}

fn signs(authority: &Authority) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let chain = authority.sign(&csr, &identity, StdDuration::from_secs(60), at(60)).unwrap();
    assert_eq!(chain.len(), 3);
}

#[test]
fn a_document_is_read_as_it_was_written_and_nonsense_is_not() {
    let own = made();
    assert_eq!(Own::decode(&own.encode()).unwrap(), own);
    let later = own.encode().replacen("\"version\":1", "\"version\":2", 1);
    for bad in ["", "{}", later.as_str()] {
        let error = Own::decode(bad).unwrap_err().to_string();
        assert!(error.starts_with("warren-ca.json") && !error.contains("PRIVATE"), "{error}");
    }
    assert!(!format!("{own:?}").contains("PRIVATE"));
}

#[test]
fn a_new_signing_certificate_has_the_same_root() {
    let old = made();
    let new = old.begin(Kind::Signer, "cluster.local", &LIFETIMES, at(10)).unwrap();
    assert_eq!((new.position.phase, new.position.kind), (Phase::Renewing, Kind::Signer));
    assert_eq!(new.position.until, NOW + 10 + 3600 + 10);
    let ((before, roots), (after, same)) = (parts(&old), parts(&new));
    assert!(before != after && roots == same && roots.len() == 1);
    signs(&new.authority(at(60)).unwrap());
    let done = new.finish(at(20));
    assert_eq!((done.position.phase, parts(&done)), (Phase::Steady, (after, same)));
    // Nobody could have a certificate of the old one that lives longer than it.
    let late = old.begin(Kind::Signer, "cluster.local", &LIFETIMES, at(10 * 86_400 - 100)).unwrap();
    assert_eq!(late.position.until, NOW + 10 * 86_400);
}

#[test]
fn a_new_root_is_told_then_signs_and_then_the_old_one_goes() {
    let old = made();
    let (signer, roots) = parts(&old);
    let told = old.begin(Kind::Root, "cluster.local", &LIFETIMES, at(10)).unwrap();
    assert_eq!(told.position.phase, Phase::Distributing);
    let (same, both) = parts(&told);
    assert!(same == signer && both.len() == 2 && both[0] == roots[0]);
    assert!(told.authority(at(60)).unwrap().cross.is_none());

    let signing = told.sign(&LIFETIMES, at(20)).unwrap();
    let (new_signer, turned) = parts(&signing);
    assert!(new_signer != signer && turned[0] == both[1] && turned[1] == both[0]);
    let authority = signing.authority(at(60)).unwrap();
    signs(&authority);
    // Whoever only knows the old root can verify what leads to the new one.
    let cross = authority.cross.clone().unwrap();
    let (cross, new, old_root) =
        (parse(&cross).unwrap(), parse(&turned[0]).unwrap(), parse(&turned[1]).unwrap());
    assert_eq!((cross.subject(), cross.public_key().raw), (new.subject(), new.public_key().raw));
    cross.verify_signature(Some(old_root.public_key())).unwrap();
    assert!(signing.knows(&told.copies().certificate) && !signing.encode().contains(&old.signing.root_key));

    let dropped = signing.drop_root(&LIFETIMES, at(30));
    assert_eq!(parts(&dropped), (new_signer, turned[..1].to_vec()));
    assert_eq!(dropped.retired().unwrap(), turned[1..]);
    let file = |own: &Own| certificates(ROOT, &own.copies().root).unwrap();
    assert_eq!(file(&dropped), turned, "first agents are told why it goes");
    let done = dropped.finish(at(40));
    assert_eq!((done.position.phase, file(&done)), (Phase::Steady, turned[..1].to_vec()));
    assert!(done.authority(at(60)).unwrap().cross.is_some());
    assert!(done.forget().retired().unwrap().is_empty());
    assert_eq!(Own::decode(&done.encode()).unwrap(), done);
}

#[test]
fn retired_roots_go_when_they_end_and_when_there_are_many() {
    let mut own = made();
    for round in 0..6 {
        let now = at(round * 100);
        own = own.begin(Kind::Root, "cluster.local", &LIFETIMES, now).unwrap();
        own = own.sign(&LIFETIMES, now).unwrap().drop_root(&LIFETIMES, now).finish(now);
    }
    assert_eq!(own.retired().unwrap().len(), MAX_RETIRED);
    let late = at(101 * 86_400);
    let old = own.begin(Kind::Root, "cluster.local", &LIFETIMES, at(50 * 86_400)).unwrap();
    assert_eq!(old.sign(&LIFETIMES, late).unwrap().drop_root(&LIFETIMES, late).retired().unwrap().len(), 0);
}

#[test]
fn what_an_earlier_version_made_is_taken_over_and_nothing_else() {
    let key = KeyPair::generate().unwrap();
    let root =
        |name: &str| ca_params("cluster.local", name, LIFETIMES.root, at(0)).self_signed(&key).unwrap().pem();
    let bundle = |root: String| Bundle {
        certificate: root.clone(),
        chain: root.clone(),
        root,
        key: key.serialize_pem(),
    };
    let adopted = Own::adopt(&bundle(root(ROOT_NAME)), at(0)).unwrap();
    let (signer, roots) = parts(&adopted);
    assert_eq!(roots, [signer]);
    signs(
        &adopted.begin(Kind::Signer, "cluster.local", &LIFETIMES, at(10)).unwrap().authority(at(60)).unwrap(),
    );
    assert!(Own::adopt(&bundle(root("Corp root")), at(0)).is_none());
    let mut intermediate = bundle(root(ROOT_NAME));
    intermediate.certificate = made().copies().certificate;
    assert!(Own::adopt(&intermediate, at(0)).is_none());
}
