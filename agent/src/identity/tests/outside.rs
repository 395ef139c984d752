//! A pod's own certificate, shown to a server outside of the mesh (mode ISTIO_MUTUAL).

use super::fake::{FakeCa, Recipe, clock, id, uri};
use super::handshake::roots;
use crate::identity::chain::check;
use crate::identity::keys::{certificate_request, generate};
use crate::identity::{
    Application, CertificateAuthority as _, Credential, OutsideError, PeerError, connect_as_pod,
    peer_identity,
};
use rustls::HandshakeKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use warren_common::model::Identity;

/// What the CA gives for an account.
async fn credential(ca: &FakeCa, account: &str) -> Credential {
    ca.cook(Recipe::default());
    let key = generate().unwrap();
    let csr = certificate_request(&key, &id(account)).unwrap();
    let chain = ca.sign(&id(account), csr, Duration::from_secs(60)).await.unwrap().certificates;
    let anchors = roots(ca).await;
    let checked = check(&chain, &id(account), &anchors, clock()()).unwrap();
    Credential::new(id(account), &key, checked, anchors, 1, None).unwrap()
}

/// Whom the server saw, and whom the client found.
type Seen = (Identity, Identity);

/// A handshake with a server, and a byte from it.
async fn ask(
    own: &Credential,
    expected: &[&str],
    server: &Arc<rustls::ServerConfig>,
) -> Result<Seen, OutsideError> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = async {
        let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(far).await.ok()?;
        let (_, session) = stream.get_ref();
        // Sessions of tunnels are not for others.
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.server_name(), Some("legacy.example"));
        let seen = peer_identity(session.peer_certificates(), "cluster.local").unwrap();
        stream.write_all(b"x").await.ok()?;
        Some(seen)
    };
    let expected: Vec<_> = expected.iter().map(|name| Arc::from(*name)).collect();
    let asking = async {
        let name = "legacy.example".into();
        let (application, patience) = (Application::Bytes, Duration::from_secs(20));
        let connecting = connect_as_pod(own, "cluster.local", &expected, &name, application, near, patience);
        let (mut stream, found) = connecting.await?;
        stream.read_u8().await?;
        Ok(found)
    };
    let (seen, found) = tokio::join!(serving, asking);
    found.map(|found| (seen.unwrap(), found))
}

#[tokio::test]
async fn only_who_is_expected_is_spoken_to() {
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";
    let ca = FakeCa::new(clock());
    let (own, web) = (credential(&ca, "cart").await, credential(&ca, "web").await);
    for expected in [&[WEB][..], &[OTHER, WEB]] {
        let found = ask(&own, expected, &web.server).await.unwrap();
        assert_eq!(found, (id("cart"), id("web")), "both have shown themselves");
        // Once more: nothing is resumed.
        ask(&own, expected, &web.server).await.unwrap();
    }
    for expected in [&[OTHER][..], &[], &["web"]] {
        let refused = ask(&own, expected, &web.server).await;
        let Err(OutsideError::WrongPeer(found)) = &refused else { panic!("{expected:?}: {refused:?}") };
        assert_eq!(*found, id("web"));
    }
}

#[tokio::test]
async fn who_is_not_of_the_mesh_is_nobody() {
    let ca = FakeCa::new(clock());
    let own = credential(&ca, "cart").await;
    let foreign = super::handshake::server_of(&FakeCa::new(clock()), Recipe::default()).await;
    let refused = ask(&own, &[&id("web").to_string()], &foreign).await;
    assert!(matches!(refused, Err(OutsideError::Handshake(_))), "of another root: {refused:?}");
    let elsewhere = "spiffe://elsewhere/ns/shop/sa/web";
    let names = Some(vec![uri(elsewhere)]);
    let foreign = super::handshake::server_of(&ca, Recipe { names, ..Recipe::default() }).await;
    let refused = ask(&own, &[elsewhere], &foreign).await;
    let is_it = matches!(refused, Err(OutsideError::Peer(PeerError::TrustDomain { .. })));
    assert!(is_it, "of another trust domain: {refused:?}");
}
