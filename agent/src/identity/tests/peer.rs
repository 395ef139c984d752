use super::fake::{id, uri};
use crate::identity::{PeerError, peer_identity, peer_identity_at};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

static GOOD: LazyLock<CertificateDer<'static>> =
    LazyLock::new(|| certificate(vec![uri("spiffe://cluster.local/ns/shop/sa/cart")]));

#[test]
fn the_identity_is_the_only_uri() {
    let dns = SanType::DnsName("cart.shop".try_into().unwrap());
    let ours = || uri("spiffe://cluster.local/ns/shop/sa/cart");
    let identity = |names| peer_identity(Some(&[certificate(names)]), "cluster.local");
    assert_eq!(identity(vec![ours()]), Ok(id("cart")));
    assert_eq!(identity(vec![dns.clone(), ours()]), Ok(id("cart")));
    assert_eq!(identity(vec![]), Err(PeerError::Uris(0)));
    assert_eq!(identity(vec![dns]), Err(PeerError::Uris(0)));
    assert_eq!(identity(vec![ours(), ours()]), Err(PeerError::Uris(2)));
    assert!(matches!(identity(vec![uri("https://cluster.local/")]), Err(PeerError::Identity(_))));
    assert!(matches!(
        identity(vec![uri("spiffe://cluster.local/ns/shop/sa/cart/x")]),
        Err(PeerError::Identity(_))
    ));
    let foreign = identity(vec![uri("spiffe://elsewhere/ns/shop/sa/cart")]).unwrap_err();
    let said = "the peer is spiffe://elsewhere/ns/shop/sa/cart, expected the trust domain \"cluster.local\"";
    assert_eq!(foreign.to_string(), said);
}

#[test]
fn no_certificate_is_no_identity() {
    assert_eq!(peer_identity(None, "cluster.local"), Err(PeerError::NoCertificate));
    assert_eq!(peer_identity(Some(&[]), "cluster.local"), Err(PeerError::NoCertificate));
}

#[test]
fn an_expired_certificate_is_refused_even_where_tls_no_longer_looks() {
    let later = SystemTime::now() + Duration::from_secs(3700);
    assert!(matches!(
        peer_identity_at(Some(std::slice::from_ref(&*GOOD)), "cluster.local", later),
        Err(PeerError::Expired { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(peer_identity(Some(&[bytes.into()]), "cluster.local").is_err());
    }

    #[test]
    fn a_spoiled_certificate_never_panics(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts: bool,
    ) {
        let mut bytes = GOOD.to_vec();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = peer_identity(Some(&[bytes.into()]), "cluster.local");
    }
}
