//! Relays that are frozen again and again while bytes run both ways over loopback sockets.

use super::super::record::{Secret, Suite};
use super::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

fn real(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Both ends of a tunnel's connection, as they are after the exchange.
async fn tunnel(suite: Suite) -> (SealedSocket, SealedSocket) {
    let secret = |byte| Secret::new(&vec![byte; if suite == Suite::Aes256 { 48 } else { 32 }]).unwrap();
    let (near, far) = pair().await;
    let end = |socket, ours, theirs| {
        let none = Bytes::new;
        let state = ChannelState {
            suite: suite.number(),
            seal: (secret(ours), 5),
            open: (secret(theirs), 5),
            partial: none(),
            message: none(),
            owed: false,
        };
        SealedSocket::new(socket, Channel::restore(state).unwrap(), none(), false)
    };
    (end(near, 1, 2), end(far, 2, 1))
}

/// The same connection in another process, as far as that can be had in one.
fn reborn(relay: Relay) -> Relay {
    let [client, server] = relay.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
    let state = relay.state();
    drop(relay);
    let [client, server] = [client, server].map(|fd| TcpStream::from_std(fd.into()).unwrap());
    Relay::restore(client, server, state).unwrap()
}

/// Copies to the end, frozen every few milliseconds; how often that was.
fn frozen_often(mut relay: Relay) -> JoinHandle<(usize, Result<(), CopyError>)> {
    spawn_local(async move {
        let mut frozen = 0;
        loop {
            match tokio::time::timeout(Duration::from_millis(3), relay.copy(&Meter::default())).await {
                Ok(done) => return (frozen, done),
                Err(_) => frozen += 1,
            }
            relay = reborn(relay);
        }
    })
}

fn bytes(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31 + seed * 7) >> 3) as u8).collect()
}

/// Reads to the end, slowly, so that the sender is held back.
async fn read_slowly(mut from: tokio::net::tcp::OwnedReadHalf) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 200_000]);
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buffer[..n]),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Both directions at once; the client's ends first.
async fn talk(client: TcpStream, server: TcpStream) {
    const UP: usize = 6 << 20;
    const DOWN: usize = 9 << 20;
    let ((client_in, mut client_out), (server_in, mut server_out)) =
        (client.into_split(), server.into_split());
    let up = spawn_local(async move {
        client_out.write_all(&bytes(1, UP)).await.unwrap();
        client_out.shutdown().await.unwrap();
    });
    let down = spawn_local(async move {
        for part in bytes(2, DOWN).chunks(100_001) {
            server_out.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        server_out.shutdown().await.unwrap();
    });
    let (heard, answered) = tokio::join!(read_slowly(server_in), read_slowly(client_in));
    assert!(heard == bytes(1, UP) && answered == bytes(2, DOWN), "{} {}", heard.len(), answered.len());
    up.await.unwrap();
    down.await.unwrap();
}

#[test]
fn two_sockets_frozen_at_any_point_lose_nothing() {
    real(async || {
        let ((client, near), (far, server)) = (pair().await, pair().await);
        let copying = frozen_often(Relay::sockets(near, far));
        talk(client, server).await;
        let (frozen, done) = copying.await.unwrap();
        done.unwrap();
        assert!(frozen > 3, "frozen {frozen} times");
    });
}

#[test]
fn a_tunnel_frozen_at_any_point_at_both_ends_loses_nothing() {
    for suite in [Suite::Aes128, Suite::Aes256, Suite::Chacha20] {
        real(async || {
            let ((client, near), (far, server)) = (pair().await, pair().await);
            let (here, there) = tunnel(suite).await;
            let copying = [
                Relay::tunnel(near, here, Side::Client, &Meter::default()),
                Relay::tunnel(far, there, Side::Server, &Meter::default()),
            ];
            let copying = copying.map(frozen_often);
            talk(client, server).await;
            for end in copying {
                let (frozen, done) = end.await.unwrap();
                done.unwrap();
                assert!(frozen > 3, "frozen {frozen} times");
            }
        });
    }
}

#[test]
fn half_closed_and_idle_survive() {
    real(async || {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let (here, there) = tunnel(Suite::Aes128).await;
        let copying = [
            Relay::tunnel(near, here, Side::Client, &Meter::default()),
            Relay::tunnel(far, there, Side::Server, &Meter::default()),
        ];
        let copying = copying.map(frozen_often);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.write_all(b"answer").await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((&heard[..], &answer[..]), (&b"question"[..], &b"answer"[..]));
        for end in copying {
            end.await.unwrap().1.unwrap();
        }
    });
}

#[test]
fn a_tunnel_that_is_cut_off_is_no_end() {
    real(async || {
        let ((_client, near), (here, there)) = (pair().await, tunnel(Suite::Aes128).await);
        let mut relay = Relay::tunnel(near, here, Side::Client, &Meter::default());
        let copying = spawn_local(async move { relay.copy(&Meter::default()).await });
        // FIN without close_notify.
        drop(there);
        let ended = copying.await.unwrap();
        assert!(matches!(ended, Err(CopyError::Record(RecordError::Truncated))), "{ended:?}");
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    real(async || {
        let ((mut client, near), (here, _there)) = (pair().await, tunnel(Suite::Aes128).await);
        let mut relay = Relay::tunnel(near, here, Side::Client, &Meter::default());
        client.write_all(&[7; 100_000]).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(50), relay.copy(&Meter::default())).await;
        let state = relay.state();
        let (_, channel) = state.tunnel.unwrap();
        assert!(state.up.rest.is_empty() && state.down.rest.is_empty());
        assert!(channel.partial.is_empty() && channel.message.is_empty());
    });
}
