//! Pool and server against each other over in-memory pipes, copies over loopback sockets.

use super::*;
use crate::limits::Excess;
use crate::observe::ByteCounters;
use http::StatusCode;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use warren_common::model::{Identity, WorkloadUid};

const PATIENCE: Duration = Duration::from_secs(15);

fn key(name: &str) -> TunnelKey {
    TunnelKey {
        source: WorkloadUid("source".into()),
        source_pod_uid: "source".into(),
        destination: WorkloadUid(name.into()),
        destination_pod_uid: name.into(),
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
        gateway: "10.0.0.1:15008".parse().unwrap(),
        generation: 1,
    }
}

fn request(to: &str) -> http::Request<()> {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = to.parse().unwrap();
    request
}

fn config() -> ServeConfig {
    ServeConfig { max_streams: MAX_STREAMS, idle: Duration::from_secs(300) }
}

/// A far side that echoes on port 80, refuses 81, never answers 82, and on 83 looks at the first bytes: those that begin
/// with `a` are echoed, others refused. On 84 it reads nothing.
struct Peer {
    connects: Rc<Cell<usize>>,
    closing: Rc<RefCell<Option<watch::Sender<()>>>>,
    held: Rc<RefCell<Vec<Incoming>>>,
    excess: Rc<RefCell<Vec<Excess>>>,
    gone: Rc<Cell<usize>>,
}

impl Peer {
    fn new() -> Self {
        Self {
            connects: Rc::default(),
            closing: Rc::default(),
            held: Rc::default(),
            excess: Rc::default(),
            gone: Rc::default(),
        }
    }

    fn connect(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(1 << 16);
        self.connects.set(self.connects.get() + 1);
        let (sender, mut closed) = watch::channel(());
        *self.closing.borrow_mut() = Some(sender);
        let (held, seen, gone) = (Rc::clone(&self.held), Rc::clone(&self.excess), Rc::clone(&self.gone));
        tokio::task::spawn_local(async move {
            let closing = async move { while closed.changed().await.is_ok() {} };
            let streams = |incoming: Incoming| match incoming.destination().unwrap().port() {
                80 => {
                    tokio::task::spawn_local(echo(incoming.accept().unwrap()));
                }
                83 => {
                    tokio::task::spawn_local(look(incoming));
                }
                84 => {
                    let unread = incoming.accept().unwrap();
                    tokio::task::spawn_local(async move {
                        std::future::pending::<()>().await;
                        drop(unread);
                    });
                }
                81 => incoming.refuse(StatusCode::UNAUTHORIZED, "denied by rule x"),
                _ => held.borrow_mut().push(incoming),
            };
            let _ = serve(far, config(), closing, streams, |excess| seen.borrow_mut().push(excess)).await;
            gone.set(gone.get() + 1);
        });
        near
    }
}

/// Opens a stream to `name` through `pool`, over `peer`.
async fn stream(
    pool: &Rc<Pool>,
    peer: &Peer,
    name: &str,
    to: &str,
) -> Result<TunnelStream, PoolError<io::Error>> {
    pool.open_stream(&key(name), request(to), PATIENCE, async || Ok(peer.connect())).await
}

async fn echo(mut stream: TunnelStream) {
    while let Some(Ok(chunk)) = stream.receive.data().await {
        stream.receive.flow_control().release_capacity(chunk.len()).unwrap();
        stream.send.send_data(chunk, false).unwrap();
    }
    stream.send.send_data(Bytes::new(), true).unwrap();
}

async fn look(mut incoming: Incoming) {
    let mut all = Vec::new();
    let found = incoming.look(|bytes| {
        all.extend_from_slice(bytes);
        (all.len() >= 5).then(|| all[0] == b'a')
    });
    match found.await {
        Ok(Some(true)) => {
            let mut stream = incoming.accept().unwrap();
            let ahead = std::mem::take(&mut stream.ahead).concat();
            stream.send.send_data(ahead.into(), false).unwrap();
            echo(stream).await;
        }
        _ => incoming.refuse(StatusCode::UNAUTHORIZED, "not a"),
    }
}

#[test]
fn a_stream_that_was_looked_at_begins_where_it_began() {
    local(|| async {
        let ((pool, _), peer) = (pool(), Peer::new());
        let mut good = stream(&pool, &peer, "a", "10.0.0.1:83").await.unwrap();
        for part in ["a", "bcd"] {
            good.send.send_data(part.into(), false).unwrap();
            tokio::task::yield_now().await;
        }
        roundtrip_of(&mut good, "e", "abcde").await;
        roundtrip(&mut good, "more").await;
        // Opened to be looked at, it can be reset and nothing else.
        let mut bad = stream(&pool, &peer, "a", "10.0.0.1:83").await.unwrap();
        bad.send.send_data("xxxxx".into(), false).unwrap();
        assert!(bad.receive.data().await.unwrap().unwrap_err().is_reset());
        let mut ended = stream(&pool, &peer, "a", "10.0.0.1:83").await.unwrap();
        ended.send.send_data("a".into(), true).unwrap();
        assert!(ended.receive.data().await.unwrap().is_err());
        roundtrip(&mut good, "still").await;
    });
}

async fn roundtrip_of(stream: &mut TunnelStream, text: &'static str, answer: &str) {
    stream.send.send_data(text.into(), false).unwrap();
    let mut all = Vec::new();
    while all.len() < answer.len() {
        all.extend_from_slice(&stream.receive.data().await.unwrap().unwrap());
    }
    assert_eq!(all, answer.as_bytes());
}

async fn roundtrip(stream: &mut TunnelStream, text: &'static str) {
    stream.send.send_data(Bytes::from_static(text.as_bytes()), false).unwrap();
    let chunk = stream.receive.data().await.unwrap().unwrap();
    assert_eq!(chunk, text);
    stream.receive.flow_control().release_capacity(chunk.len()).unwrap();
}

fn local<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

fn pool() -> (Rc<Pool>, Arc<AtomicU64>) {
    let open = Arc::new(AtomicU64::new(0));
    (Rc::new(Pool::new(Arc::clone(&open))), open)
}

#[test]
fn a_burst_shares_one_tunnel() {
    local(|| async {
        let ((pool, open), peer) = (pool(), Peer::new());
        let opening = (0..50).map(|_| {
            let (pool, peer) = (&pool, &peer);
            async move {
                let mut stream = stream(pool, peer, "a", "10.0.0.1:80").await.unwrap();
                roundtrip(&mut stream, "hello").await;
                stream
            }
        });
        let streams = futures_util::future::join_all(opening).await;
        assert_eq!((streams.len(), peer.connects.get(), open.load(Ordering::Relaxed)), (50, 1, 1));
        let _other = stream(&pool, &peer, "b", "10.0.0.1:80").await.unwrap();
        assert_eq!(peer.connects.get(), 2, "another pod has a tunnel of its own");
    });
}

#[test]
fn a_full_tunnel_gets_a_sibling() {
    local(|| async {
        let ((pool, _), peer) = (pool(), Peer::new());
        let mut streams = Vec::new();
        for _ in 0..=MAX_STREAMS {
            streams.push(stream(&pool, &peer, "a", "10.0.0.1:80").await.unwrap());
        }
        assert_eq!(peer.connects.get(), 2);
    });
}

#[test]
fn streams_that_nobody_reads_hold_up_no_other() {
    local(|| async {
        let ((pool, _), peer) = (pool(), Peer::new());
        let mut unread = Vec::new();
        for _ in 0..15 {
            let mut stream = stream(&pool, &peer, "a", "10.0.0.1:84").await.unwrap();
            stream.send.send_data(Bytes::from_static(&[0; 8 << 20]), false).unwrap();
            unread.push(stream);
        }
        // As much of it as may has gone.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut other = stream(&pool, &peer, "a", "10.0.0.1:80").await.unwrap();
        tokio::time::timeout(PATIENCE, roundtrip(&mut other, "hello")).await.unwrap();
        assert_eq!(peer.connects.get(), 1);
    });
}

#[test]
fn refusals_carry_status_and_reason() {
    local(|| async {
        let ((pool, _), peer) = (pool(), Peer::new());
        let refused = stream(&pool, &peer, "a", "10.0.0.1:81").await;
        match refused.unwrap_err() {
            PoolError::Refused { status, reason, leaving: false } => {
                assert_eq!((status, reason.as_deref()), (StatusCode::UNAUTHORIZED, Some("denied by rule x")));
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_silent_peer_is_given_up() {
    local(|| async {
        let ((pool, _), peer) = (pool(), Peer::new());
        let silent = stream(&pool, &peer, "a", "10.0.0.1:82").await;
        assert!(matches!(silent.unwrap_err(), PoolError::Silent("CONNECT", _)));
    });
}

#[test]
fn a_failed_connect_is_the_callers_error_and_leaves_nothing() {
    local(|| async {
        let ((pool, open), peer) = (pool(), Peer::new());
        let failed = pool
            .open_stream(&key("a"), request("10.0.0.1:80"), PATIENCE, async || {
                Err::<DuplexStream, _>(io::Error::other("no route"))
            })
            .await;
        assert!(matches!(failed.unwrap_err(), PoolError::Open(error) if error.to_string() == "no route"));
        assert_eq!(open.load(Ordering::Relaxed), 0);
        assert!(stream(&pool, &peer, "a", "10.0.0.1:80").await.is_ok());
    });
}

#[test]
fn after_goaway_open_streams_go_on_and_new_ones_go_elsewhere() {
    local(|| async {
        let ((pool, _), peer) = (pool(), Peer::new());
        let mut old = stream(&pool, &peer, "a", "10.0.0.1:80").await.unwrap();
        roundtrip(&mut old, "before").await;
        let outlook = old.outlook().unwrap();
        assert!(!outlook.is_ending());
        peer.closing.borrow_mut().take();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(outlook.is_ending(), "it is known before anybody asks for a stream");
        let mut new = stream(&pool, &peer, "a", "10.0.0.1:80").await.unwrap();
        assert!(!new.outlook().unwrap().is_ending());
        roundtrip(&mut new, "new").await;
        roundtrip(&mut old, "after").await;
        assert_eq!(peer.connects.get(), 2);
    });
}

#[test]
fn an_idle_tunnel_is_closed() {
    local(|| async {
        let ((pool, open), peer) = (pool(), Peer::new());
        drop(stream(&pool, &peer, "a", "10.0.0.1:80").await.unwrap());
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(open.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_tunnel_of_a_pod_that_has_gone_is_closed_as_soon_as_it_is_empty() {
    local(|| async {
        let ((pool, open), peer) = (pool(), Peer::new());
        let count = || open.load(Ordering::Relaxed);
        let moment = || tokio::time::sleep(Duration::from_millis(1));
        drop(stream(&pool, &peer, "idle", "10.0.0.1:80").await.unwrap());
        let mut busy = stream(&pool, &peer, "busy", "10.0.0.1:80").await.unwrap();
        let _other = stream(&pool, &peer, "other", "10.0.0.1:80").await.unwrap();
        pool.close(|key| *key.destination_pod_uid != *"other");
        moment().await;
        assert_eq!(count(), 2, "the idle one is closed");
        roundtrip(&mut busy, "goes on").await;
        let new = stream(&pool, &peer, "busy", "10.0.0.1:80").await.unwrap();
        assert_eq!((peer.connects.get(), count()), (4, 3), "nobody else gets into it");
        drop(busy);
        moment().await;
        assert_eq!(count(), 2, "closed with its last stream");
        drop(new);
    });
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn real(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test());
}

#[test]
fn sockets_are_copied_with_half_close_and_counted() {
    real(async || {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let bytes = Arc::new(ByteCounters::default());
        let meter = Meter::new([Arc::clone(&bytes)]);
        let copy = tokio::task::spawn_local(async move { Relay::sockets(near, far).copy(&meter).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question", "the end of one direction arrives");
        server.write_all(&vec![7; 3 << 20]).await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 3 << 20, "and leaves the other open");
        copy.await.unwrap().unwrap();
        assert_eq!(bytes.totals(), (8, 3 << 20));
    });
}

#[test]
fn a_reset_is_reported_with_its_side() {
    real(async || {
        let ((client, near), (far, _server)) = (pair().await, pair().await);
        let mut relay = Relay::sockets(near, far);
        let copy = tokio::task::spawn_local(async move { relay.copy(&Meter::default()).await });
        crate::accept::reset(client);
        assert!(matches!(copy.await.unwrap(), Err(CopyError::Client(_))));
    });
}

/// client socket - copy - tunnel - copy - server socket, as the two agents do it.
async fn through_a_tunnel()
-> (TcpStream, TcpStream, tokio::task::JoinHandle<Result<(), CopyError>>, Arc<ByteCounters>) {
    let ((client, near), (far, server)) = (pair().await, pair().await);
    let (pipe, far_pipe) = tokio::io::duplex(1 << 16);
    let far = Rc::new(RefCell::new(Some(far)));
    tokio::task::spawn_local(async move {
        let _ = serve(
            far_pipe,
            config(),
            std::future::pending(),
            |incoming: Incoming| {
                let socket = far.borrow_mut().take().unwrap();
                tokio::task::spawn_local(async move {
                    if copy_tunnel(&socket, incoming.accept().unwrap(), false, &Meter::default())
                        .await
                        .is_err()
                    {
                        crate::accept::reset(socket);
                    }
                });
            },
            drop,
        )
        .await;
    });
    let bytes = Arc::new(ByteCounters::default());
    let meter = Meter::new([Arc::clone(&bytes)]);
    let pipe = Cell::new(Some(pipe));
    let (pool, _) = pool();
    let stream = pool
        .open_stream(&key("a"), request("10.0.0.1:80"), PATIENCE, async || {
            Ok::<_, io::Error>(pipe.take().unwrap())
        })
        .await
        .unwrap();
    let copy = tokio::task::spawn_local(async move {
        let result = copy_tunnel(&near, stream, true, &meter).await;
        if result.is_err() {
            crate::accept::reset(near);
        }
        drop(pool);
        result
    });
    (client, server, copy, bytes)
}

#[test]
fn a_tunnel_carries_both_directions_and_their_ends() {
    real(async || {
        let (mut client, mut server, copy, bytes) = through_a_tunnel().await;
        let sent: Vec<u8> = (0..5 << 20).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::task::spawn_local(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert!(heard == expected, "{} bytes arrived", heard.len());
        server.write_all(b"thanks").await.unwrap();
        drop(server);
        assert_eq!(writer.await.unwrap(), b"thanks");
        copy.await.unwrap().unwrap();
        assert_eq!(bytes.totals(), (5 << 20, 6));
    });
}

/// Not every peer has windows as large as ours: the default is smaller than one read of the copy loop.
#[test]
fn a_peer_with_a_small_window_is_not_kept_waiting() {
    real(async || {
        let (far, mut server) = pair().await;
        let (pipe, far_pipe) = tokio::io::duplex(1 << 16);
        let far = Rc::new(RefCell::new(Some(far)));
        tokio::task::spawn_local(async move {
            let _ = serve(
                far_pipe,
                config(),
                std::future::pending(),
                |incoming: Incoming| {
                    let socket = far.borrow_mut().take().unwrap();
                    let stream = incoming.accept().unwrap();
                    tokio::task::spawn_local(async move {
                        copy_tunnel(&socket, stream, false, &Meter::default()).await.unwrap();
                    });
                },
                drop,
            )
            .await;
        });
        let (mut send, connection) = h2::client::handshake(pipe).await.unwrap();
        tokio::task::spawn_local(connection);
        let (response, mut stream) = send.send_request(request("10.0.0.1:80"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for word in ["one", "two"] {
            server.write_all(word.as_bytes()).await.unwrap();
            let heard = tokio::time::timeout(Duration::from_secs(5), body.data()).await;
            assert_eq!(heard.expect("kept waiting").unwrap().unwrap(), word);
        }
        server.shutdown().await.unwrap();
        // END_STREAM comes on an empty frame.
        assert!(body.data().await.unwrap().unwrap().is_empty() && body.is_end_stream());
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    });
}

#[test]
fn a_reset_crosses_the_tunnel() {
    real(async || {
        let (mut client, mut server, copy, _) = through_a_tunnel().await;
        server.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        crate::accept::reset(server);
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "not an orderly end");
        assert!(matches!(copy.await.unwrap(), Err(CopyError::Tunnel(_))));
    });
}

/// A client that does as it pleases, with its connection running by itself.
async fn bare(peer: &Peer) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(peer.connect()).await.unwrap();
    tokio::task::spawn_local(async move { drop(connection.await) });
    send
}

/// As when an application answers a request that was given up a moment ago.
#[test]
fn a_reset_says_what_it_was_for_also_to_who_sends() {
    real(async || {
        let peer = Peer::new();
        let mut send = bare(&peer).await;
        let (_response, mut near) = send.send_request(request("10.0.0.1:82"), false).unwrap();
        let incoming = loop {
            let incoming = peer.held.borrow_mut().pop();
            match incoming {
                Some(incoming) => break incoming,
                None => tokio::task::yield_now().await,
            }
        };
        let mut far = incoming.accept().unwrap();
        let (socket, mut application) = pair().await;
        near.send_reset(h2::Reason::CANCEL);
        poll_fn(|cx| far.send.poll_reset(cx)).await.unwrap();
        application.write_all(b"answer").await.unwrap();
        socket.readable().await.unwrap();
        let error = copy_tunnel(&socket, far, false, &Meter::default()).await.unwrap_err();
        assert!(error.to_string().ends_with("stream no longer needed"), "{error}");
    });
}

#[test]
fn giant_headers_are_refused_by_name() {
    local(|| async {
        let peer = Peer::new();
        let mut send = bare(&peer).await;
        for (size, status, expected) in [
            (7 << 10, 200, None),
            (9 << 10, 431, Some(Excess::Headers(MAX_HEADER_LIST))),
            (31 << 10, 431, Some(Excess::Headers(MAX_HEADER_LIST))),
            (60 << 10, 431, Some(Excess::Malformed(MAX_HEADER_LIST_READ))),
        ] {
            send = send.ready().await.unwrap();
            let mut request = request("10.0.0.1:80");
            request.headers_mut().insert("x", "y".repeat(size).parse().unwrap());
            let (response, _stream) = send.send_request(request, false).unwrap();
            assert_eq!(response.await.unwrap().status(), status, "{size} bytes");
            tokio::task::yield_now().await;
            assert_eq!(peer.excess.borrow_mut().pop(), expected, "{size} bytes");
        }
        assert_eq!(peer.gone.get(), 0, "other streams of the tunnel are not concerned");
    });
}

#[test]
fn a_tunnel_without_streams_is_closed_even_if_its_peer_does_not_go() {
    local(|| async {
        let peer = Peer::new();
        let mut send = bare(&peer).await;
        let (response, _stream) = send.send_request(request("10.0.0.1:82"), false).unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(peer.gone.get(), 0, "there is a stream");
        drop((response, _stream));
        peer.held.borrow_mut().clear();
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(peer.gone.get(), 0, "not yet");
        tokio::time::sleep(Duration::from_secs(500)).await;
        assert_eq!(peer.gone.get(), 1);
        // Here is somebody who answers nothing, not even the question whether all has arrived.
        let (send, connection) = h2::client::handshake::<_>(peer.connect()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(700)).await;
        assert_eq!(peer.gone.get(), 2);
        drop((send, connection));
    });
}
