//! The exchange over real handshakes of rustls, from sockets as the agents have them.

use super::super::{Meter, Relay, Side};
use super::*;
use crate::accept::{TunnelSocket, for_tunnel};
use crate::identity::{for_dedicated, for_either};
use http::Method;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Configurations of a client and a server that trust each other; the server knows both forms.
struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Configs {
    fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["web".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let version = [&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&version)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        server.alpn_protocols = vec![ALPN.to_vec(), b"h2".to_vec()];
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&version)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    async fn handshake(&self) -> (Near, Far) {
        let (near, far) = pair().await;
        let [ours, theirs] = [(); 2].map(|()| Arc::new(TrafficSecrets::default()));
        let connecting = TlsConnector::from(for_dedicated(&self.client, ours.clone()));
        let accepting = TlsAcceptor::from(for_either(&self.server, theirs.clone()));
        let name = ServerName::try_from("web").unwrap();
        let (near, far) =
            tokio::join!(connecting.connect(name, for_tunnel(near)), accepting.accept(for_tunnel(far)));
        ((near.unwrap(), ours), (far.unwrap(), theirs))
    }
}

type Near = (client::TlsStream<TunnelSocket>, Arc<TrafficSecrets>);
type Far = (server::TlsStream<TunnelSocket>, Arc<TrafficSecrets>);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn real(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

fn request() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "10.1.2.3:80".parse().unwrap();
    request.headers_mut().insert("forwarded", "for=\"10.0.0.1:5000\"".parse().unwrap());
    request
}

#[test]
fn what_is_opened_carries_bytes_and_both_ends() {
    real(async || {
        let configs = Configs::new();
        for round in 0..2 {
            let ((near, ours), (far, theirs)) = configs.handshake().await;
            let resumed = near.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, round > 0, "the ticket was taken before the session was taken apart");
            let ((mut app, client), (server, mut service)) = (pair().await, pair().await);
            let serving = spawn_local(async move {
                let incoming = DedicatedIncoming::receive(far).await.unwrap();
                assert_eq!(incoming.destination().unwrap().to_string(), "10.1.2.3:80");
                assert_eq!(incoming.forwarded().unwrap(), ("10.0.0.1".parse().unwrap(), Some(5000)));
                let tunnel = incoming.accept(&theirs, TunnelSocket::into_parts).await.unwrap();
                Relay::tunnel(server, tunnel, Side::Server, &Meter::default())
                    .copy(&Meter::default())
                    .await
                    .unwrap();
            });
            let tunnel =
                open_dedicated(near, &ours, &request(), Duration::from_secs(15), TunnelSocket::into_parts)
                    .await
                    .unwrap();
            let copying = spawn_local(async move {
                Relay::tunnel(client, tunnel, Side::Client, &Meter::default())
                    .copy(&Meter::default())
                    .await
                    .unwrap();
            });
            let sent: Vec<u8> = (0..3_000_000).map(|i| (i % 251) as u8).collect();
            let expected = sent.clone();
            let asking = spawn_local(async move {
                app.write_all(&sent).await.unwrap();
                app.shutdown().await.unwrap();
                let mut answer = Vec::new();
                app.read_to_end(&mut answer).await.unwrap();
                answer
            });
            let mut heard = Vec::new();
            service.read_to_end(&mut heard).await.unwrap();
            assert!(heard == expected);
            service.write_all(b"thanks").await.unwrap();
            drop(service);
            assert_eq!(asking.await.unwrap(), b"thanks");
            serving.await.unwrap();
            copying.await.unwrap();
        }
    });
}

/// All that the server ever says is there before the client reads the first of it.
#[test]
fn who_is_brief_is_heard_to_the_end() {
    real(async || {
        let configs = Configs::new();
        for _ in 0..5 {
            let ((mut near, ours), (far, theirs)) = configs.handshake().await;
            let ((mut app, client), (server, mut service)) = (pair().await, pair().await);
            near.write_all(&write_request(&request())).await.unwrap();
            near.flush().await.unwrap();
            let incoming = DedicatedIncoming::receive(far).await.unwrap();
            let tunnel = incoming.accept(&theirs, TunnelSocket::into_parts).await.unwrap();
            service.write_all(b"hello").await.unwrap();
            service.shutdown().await.unwrap();
            let mut there = Relay::tunnel(server, tunnel, Side::Server, &Meter::default());
            let serving = spawn_local(async move {
                there.copy(&Meter::default()).await.unwrap();
                let [client, server] = there.into_sockets();
                crate::accept::end(server);
                crate::accept::end(client);
            });
            tokio::time::sleep(Duration::from_millis(20)).await;
            let exchange = read_head(&mut near, |bytes| {
                Ok(parse_response(bytes)?.map(|(status, headers, end)| ((status, headers), end)))
            });
            let (_, early) = exchange.await.unwrap();
            let tunnel = take_over(near, &ours, true, early, TunnelSocket::into_parts).unwrap();
            app.shutdown().await.unwrap();
            let counted = Arc::new(crate::observe::ByteCounters::default());
            let mut relay = Relay::tunnel(client, tunnel, Side::Client, &Meter::default());
            relay.copy(&Meter::new([counted.clone()])).await.unwrap();
            let [client, server] = relay.into_sockets();
            crate::accept::end(server);
            crate::accept::end(client);
            let mut answer = Vec::new();
            app.read_to_end(&mut answer).await.unwrap();
            assert_eq!((&answer[..], counted.totals()), (&b"hello"[..], (0, 5)));
            serving.await.unwrap();
        }
    });
}

/// Somebody has to know how the connection begins before it is let in: it is looked at, and carried from its beginning.
#[test]
fn what_was_looked_at_is_carried_too() {
    real(async || {
        for says_more in [true, false] {
            let ((mut near, _), (far, theirs)) = Configs::new().handshake().await;
            let (server, mut service) = pair().await;
            near.write_all(&write_request(&request())).await.unwrap();
            near.write_all(b"client").await.unwrap();
            if says_more {
                near.write_all(b" hello").await.unwrap();
            }
            near.shutdown().await.unwrap();
            let mut incoming = DedicatedIncoming::receive(far).await.unwrap();
            let mut seen = Vec::new();
            let looked = incoming.look(|bytes| {
                seen.extend_from_slice(bytes);
                seen.ends_with(b"hello").then_some(())
            });
            assert_eq!(looked.await.unwrap().is_some(), says_more);
            let tunnel = incoming.accept(&theirs, TunnelSocket::into_parts).await.unwrap();
            let serving = spawn_local(async move {
                let mut relay = Relay::tunnel(server, tunnel, Side::Server, &Meter::default());
                relay.copy(&Meter::default()).await.unwrap();
            });
            let mut heard = Vec::new();
            service.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, if says_more { &b"client hello"[..] } else { b"client" });
            drop(service);
            serving.await.unwrap();
        }
    });
}

/// A peer that goes on with rustls, says more than was asked in one go, and changes its keys.
#[test]
fn a_peer_of_rustls_is_understood() {
    real(async || {
        let ((mut near, _), (far, theirs)) = Configs::new().handshake().await;
        let (server, mut service) = pair().await;
        let serving = spawn_local(async move {
            let incoming = DedicatedIncoming::receive(far).await.unwrap();
            let tunnel = incoming.accept(&theirs, TunnelSocket::into_parts).await.unwrap();
            Relay::tunnel(server, tunnel, Side::Server, &Meter::default()).copy(&Meter::default()).await
        });
        let mut first = write_request(&request());
        first.extend_from_slice(b"early, ");
        near.write_all(&first).await.unwrap();
        near.write_all(b"in a record of its own, ").await.unwrap();
        near.flush().await.unwrap();
        near.get_mut().1.refresh_traffic_keys().unwrap();
        near.write_all(b"under new keys").await.unwrap();
        near.flush().await.unwrap();
        let mut head = vec![0; 19];
        near.read_exact(&mut head).await.unwrap();
        assert_eq!(head, b"HTTP/1.1 200 OK\r\n\r\n");
        let mut heard = vec![0; 45];
        service.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, b"early, in a record of its own, under new keys");
        service.write_all(b"answer").await.unwrap();
        drop(service);
        near.shutdown().await.unwrap();
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer", "under new keys as well, and ended by close_notify");
        serving.await.unwrap().unwrap();
    });
}

/// The secrets that were logged are those of before: going on with them would use a nonce twice.
#[test]
fn keys_that_change_during_the_exchange_end_it() {
    real(async || {
        // The client changes them in the middle of what it asks.
        let ((mut near, _), (far, theirs)) = Configs::new().handshake().await;
        let asked = write_request(&request());
        let (first, rest) = asked.split_at(20);
        near.write_all(first).await.unwrap();
        near.get_mut().1.refresh_traffic_keys().unwrap();
        near.write_all(rest).await.unwrap();
        near.flush().await.unwrap();
        let incoming = DedicatedIncoming::receive(far).await.unwrap();
        let error = incoming.accept(&theirs, TunnelSocket::into_parts).await.unwrap_err();
        assert!(matches!(error, DedicatedError::Secrets(why) if why.contains("updated")), "{error}");
        // The server, before it answers.
        let ((near, ours), (mut far, _)) = Configs::new().handshake().await;
        let serving = spawn_local(async move {
            read_head(&mut far, parse_request).await.unwrap();
            far.get_mut().1.refresh_traffic_keys().unwrap();
            far.write_all(&write_response(StatusCode::OK, &HeaderMap::new())).await.unwrap();
            far.flush().await.unwrap();
            far
        });
        let asked = request();
        let opened = open_dedicated(near, &ours, &asked, Duration::from_secs(15), TunnelSocket::into_parts);
        let error = opened.await.unwrap_err();
        assert!(matches!(error, DedicatedError::Secrets(_)), "{error}");
        drop(serving.await.unwrap());
    });
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    real(async || {
        let ((near, ours), (far, _)) = Configs::new().handshake().await;
        spawn_local(async move {
            let incoming = DedicatedIncoming::receive(far).await.unwrap();
            incoming.refuse(StatusCode::UNAUTHORIZED, "denied by shop/nobody", false).await;
        });
        let refused =
            open_dedicated(near, &ours, &request(), Duration::from_secs(15), TunnelSocket::into_parts)
                .await
                .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the peer refused with 401 Unauthorized: denied by shop/nobody",
            "as a stream of a shared tunnel is"
        );
    });
}

#[test]
fn what_is_no_request_is_answered_and_refused() {
    real(async || {
        for (said, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "Host"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "first line"),
            (&[b'x'; 9000], "longer"),
        ] {
            let ((mut near, _), (far, _)) = Configs::new().handshake().await;
            let serving = spawn_local(DedicatedIncoming::receive(far));
            near.write_all(said).await.unwrap();
            near.flush().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
            let error = serving.await.unwrap().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // One that hangs up.
        let ((near, _), (far, _)) = Configs::new().handshake().await;
        drop(near);
        assert!(DedicatedIncoming::receive(far).await.is_err());
    });
}

#[test]
fn a_peer_that_knows_only_streams_picks_them() {
    real(async || {
        let mut configs = Configs::new();
        let mut server = ServerConfig::clone(&configs.server);
        server.alpn_protocols = vec![b"h2".to_vec()];
        configs.server = Arc::new(server);
        let ((near, _), _) = configs.handshake().await;
        assert_eq!(near.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    });
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    // Sockets know no simulated time: a pipe does.
    let configs = Configs::new();
    let (near, far) = tokio::io::duplex(1 << 16);
    let secrets = || Arc::new(TrafficSecrets::default());
    let connecting = TlsConnector::from(for_dedicated(&configs.client, secrets()));
    let accepting = TlsAcceptor::from(for_either(&configs.server, secrets()));
    let name = ServerName::try_from("web").unwrap();
    let (near, far) = tokio::join!(connecting.connect(name, near), accepting.accept(far));
    let _near = near.unwrap();
    let error = DedicatedIncoming::receive(far.unwrap()).await.unwrap_err();
    assert!(matches!(error, DedicatedError::Silent(..)), "{error}");
}

/// The whole of it must not be read again for each byte.
#[test]
fn a_head_that_comes_byte_by_byte_is_looked_at_by_line() {
    real(async || {
        let text = format!(
            "CONNECT 10.0.0.1:80 HTTP/1.1\r\nhost: 10.0.0.1:80\r\nx-long: {}\r\n\r\nrest",
            "x".repeat(4000)
        );
        let (near, mut far) = tokio::io::duplex(1);
        let writing = spawn_local(async move { far.write_all(text.as_bytes()).await });
        let looks = std::cell::Cell::new(0);
        let mut near = tokio::io::BufReader::with_capacity(1, near);
        let (request, _) = read_head(&mut near, |bytes| {
            looks.set(looks.get() + 1);
            parse_request(bytes)
        })
        .await
        .unwrap();
        assert_eq!(request.uri().port_u16(), Some(80));
        assert!(looks.get() < 24, "looked {} times", looks.get());
        drop((near, writing));
    });
}
