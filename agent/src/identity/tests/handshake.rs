use super::fake::{FakeCa, Recipe, clock, id, uri};
use crate::control::{Anchors, Trust};
use crate::identity::chain::check;
use crate::identity::keys::{certificate_request, generate};
use crate::identity::tls::{client_config, server_config};
use crate::identity::{CertificateAuthority as _, PeerError, peer_identity};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

struct Side {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// A side with a certificate after `recipe`, unchecked, that trusts the CA's root.
async fn side(ca: &FakeCa, account: &str, recipe: Recipe) -> Side {
    ca.cook(recipe);
    let key = generate().unwrap();
    let csr = certificate_request(&key, &id(account)).unwrap();
    let mut chain = ca.sign(&id(account), csr, Duration::from_secs(60)).await.unwrap().certificates;
    chain.pop();
    let roots = roots(ca).await.store.clone();
    let der = || PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Side {
        client: client_config(chain.clone(), &der(), roots.clone()).unwrap().into(),
        server: server_config(chain, &der(), roots).unwrap().into(),
    }
}

pub(super) async fn roots(ca: &FakeCa) -> Arc<Anchors> {
    let folder = tempfile::tempdir().unwrap();
    ca.write_root(&folder.path().join("ca.pem"));
    Trust::new(folder.path().join("ca.pem"), None).refresh().await.unwrap()
}

/// A server with a certificate after `recipe`, unchecked.
pub(super) async fn server_of(ca: &FakeCa, recipe: Recipe) -> Arc<ServerConfig> {
    side(ca, "web", recipe).await.server
}

type Streams = (client::TlsStream<DuplexStream>, server::TlsStream<DuplexStream>);

/// A handshake in memory, and a byte each way: only then has the client heard whether its certificate is taken.
async fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Streams, io::Error> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let connect = TlsConnector::from(client.clone()).connect(name, near);
    let accept = TlsAcceptor::from(server.clone()).accept(far);
    let (near, far) = tokio::join!(connect, accept);
    let (mut near, mut far) = (near?, far?);
    far.write_all(b"x").await?;
    near.read_u8().await?;
    near.write_all(b"y").await?;
    far.read_u8().await?;
    Ok((near, far))
}

#[tokio::test]
async fn peers_prove_themselves_over_tls_1_3_with_a_post_quantum_exchange() {
    let ca = FakeCa::new(clock());
    let (a, b) = (side(&ca, "a", Recipe::default()).await, side(&ca, "b", Recipe::default()).await);
    let (near, far) = shake(&a.client, &b.server).await.unwrap();
    let (_, near) = near.get_ref();
    let (_, far) = far.get_ref();
    assert_eq!(near.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(near.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(near.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(peer_identity(near.peer_certificates(), "cluster.local"), Ok(id("b")));
    assert_eq!(peer_identity(far.peer_certificates(), "cluster.local"), Ok(id("a")));
}

#[tokio::test]
async fn a_resumed_session_still_says_who_the_peer_is() {
    let ca = FakeCa::new(clock());
    let (a, b) = (side(&ca, "a", Recipe::default()).await, side(&ca, "b", Recipe::default()).await);
    shake(&a.client, &b.server).await.unwrap();
    let (near, far) = shake(&a.client, &b.server).await.unwrap();
    assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(peer_identity(near.get_ref().1.peer_certificates(), "cluster.local"), Ok(id("b")));
    assert_eq!(peer_identity(far.get_ref().1.peer_certificates(), "cluster.local"), Ok(id("a")));
    // The same address, another pod: its session does not exist there, so it must prove itself anew.
    let c = side(&ca, "c", Recipe::default()).await;
    let (near, _far) = shake(&a.client, &c.server).await.unwrap();
    assert_eq!(near.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(peer_identity(near.get_ref().1.peer_certificates(), "cluster.local"), Ok(id("c")));
}

#[tokio::test]
async fn bad_certificates_are_refused_by_both_sides() {
    let ca = FakeCa::new(clock());
    let good = side(&ca, "good", Recipe::default()).await;
    let hour = Duration::from_secs(3600);
    for (what, recipe) in [
        ("expired", Recipe { age: 2 * hour, ..Recipe::default() }),
        ("of another root", Recipe { foreign_root: true, ..Recipe::default() }),
    ] {
        let bad = side(&ca, "bad", recipe).await;
        assert!(shake(&bad.client, &good.server).await.is_err(), "the server took a client {what}");
        assert!(shake(&good.client, &bad.server).await.is_err(), "the client took a server {what}");
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://cluster.local/ns/shop/sa/good")];
    let own = vec![params.self_signed(&key).unwrap().der().clone()];
    let store = roots(&ca).await.store.clone();
    let der = || PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let client = Arc::new(client_config(own.clone(), &der(), store.clone()).unwrap());
    let server = Arc::new(server_config(own, &der(), store).unwrap());
    assert!(shake(&client, &good.server).await.is_err(), "the server took a self-signed client");
    assert!(shake(&good.client, &server).await.is_err(), "the client took a self-signed server");
}

#[tokio::test]
async fn a_peer_of_another_trust_domain_passes_tls_and_is_refused_by_identity() {
    let ca = FakeCa::new(clock());
    let good = side(&ca, "good", Recipe::default()).await;
    let names = Some(vec![uri("spiffe://elsewhere/ns/shop/sa/good")]);
    let foreign = side(&ca, "good", Recipe { names, ..Recipe::default() }).await;
    let (_near, far) = shake(&foreign.client, &good.server).await.unwrap();
    let refused = peer_identity(far.get_ref().1.peer_certificates(), "cluster.local");
    assert!(matches!(refused, Err(PeerError::TrustDomain { .. })));
}

#[tokio::test]
async fn tls_1_2_and_no_client_certificate_are_refused() {
    let ca = FakeCa::new(clock());
    let good = side(&ca, "good", Recipe::default()).await;
    let plain = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut store = rustls::RootCertStore::empty();
        let pem = ca.root_pem();
        let root: rustls_pki_types::CertificateDer<'_> =
            rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
        store.add(root.into_owned()).unwrap();
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        Arc::new(config.with_root_certificates(store).with_no_client_auth())
    };
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let connector = TlsConnector::from(plain(&[&rustls::version::TLS12]));
    let (_, refused) = tokio::join!(
        connector.connect(name.clone(), near),
        TlsAcceptor::from(good.server.clone()).accept(far)
    );
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("Tls12NotOfferedOrEnabled"), "TLS 1.2 must be what is refused: {refused}");

    let mut anonymous = ClientConfig::clone(&good.client);
    anonymous.client_auth_cert_resolver = plain(&[&rustls::version::TLS13]).client_auth_cert_resolver.clone();
    let (near, far) = tokio::io::duplex(1 << 16);
    let connector = TlsConnector::from(Arc::new(anonymous));
    let (_, refused) =
        tokio::join!(connector.connect(name, near), TlsAcceptor::from(good.server).accept(far));
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("no certificates"), "the lack of one must be what is refused: {refused}");
}

#[tokio::test]
async fn an_issued_chain_is_checked_before_use() {
    let clock = clock();
    let ca = FakeCa::new(clock.clone());
    let roots = roots(&ca).await;
    let names = |text| Some(vec![uri(text)]);
    for (said, recipe) in [
        ("not of", Recipe { names: names("spiffe://cluster.local/ns/shop/sa/other"), ..Recipe::default() }),
        ("trust domain", Recipe { names: names("spiffe://elsewhere/ns/shop/sa/cart"), ..Recipe::default() }),
        ("expired", Recipe { age: Duration::from_secs(7200), ..Recipe::default() }),
        ("roots", Recipe { foreign_root: true, ..Recipe::default() }),
    ] {
        ca.cook(recipe);
        let csr = certificate_request(&generate().unwrap(), &id("cart")).unwrap();
        let chain = ca.sign(&id("cart"), csr, Duration::from_secs(60)).await.unwrap();
        let error = check(&chain.certificates, &id("cart"), &roots, clock()).unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
}
