use super::super::flows::{Departure, Fate, FlowMessage, SpanLeft, describe};
use super::super::{HandoverError, ask};
use super::*;
use crate::observe::{ObserveConfig, Observer};
use crate::pods::{Door, DoorSockets, Leaf};
use crate::tunnel::{RelayState, Way};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use warren_common::model::WorkloadUid;
use warren_common::model::admin::Direction;
use warren_common::runtime::{DrainTrigger, drain};

const DOOR: Leaf = Leaf { door: Door::Outbound, v6: false };

/// A predecessor with one pod.
struct Old {
    dir: tempfile::TempDir,
    pods: HeldPods,
    exits: Exits,
    retired: Arc<AtomicUsize>,
    ended: tokio::task::JoinHandle<Result<(), HandoverError>>,
    drain: DrainTrigger,
}

struct Count(Arc<AtomicUsize>, HeldPods);

impl Retire for Count {
    async fn retire(&self, endpoints: bool) {
        assert!(endpoints);
        self.0.fetch_add(1, Ordering::SeqCst);
        // Enrolled while the successor was busy.
        self.1.insert(&"late".into(), one_door());
    }
}

fn one_door() -> DoorSockets {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    DoorSockets { cookie: 7, sockets: [(DOOR, Arc::new(socket.into()))].into() }
}

impl Old {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pods = HeldPods::default();
        pods.insert(&"pod".into(), one_door());
        let endpoint: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
        let exits = Exits::default();
        let offered = Offer {
            node: "n1".into(),
            abi: "a",
            pods: pods.clone(),
            endpoints: vec![Arc::new(endpoint)],
            exits: exits.clone(),
        };
        let retired = Arc::new(AtomicUsize::new(0));
        let (trigger, watch) = drain();
        let retire = Count(Arc::clone(&retired), pods.clone());
        let ended = tokio::spawn(offer(dir.path().join("h.sock"), offered, retire, watch));
        let old = Self { dir, pods, exits, retired, ended, drain: trigger };
        while !old.socket().exists() {
            tokio::task::yield_now().await;
        }
        old
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("h.sock")
    }

    fn retired(&self) -> usize {
        self.retired.load(Ordering::SeqCst)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn ask_at(
    socket: &Path,
    node: &'static str,
) -> Result<Option<super::super::Predecessor>, HandoverError> {
    let socket = socket.to_owned();
    blocking(move || ask(&socket, node)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_gets_everything_and_the_other_stops() {
    let old = Old::start().await;
    let found = ask_at(&old.socket(), "n1").await.unwrap().unwrap();
    assert_eq!((found.abi.as_str(), found.endpoints.len(), old.retired()), ("a", 1, 0));
    let (uid, sockets) = &found.pods[0];
    assert_eq!((&**uid, sockets.cookie), ("pod", 7));
    // It is the same socket: who connects is met by the successor.
    let theirs = TcpListener::from(sockets.sockets[&DOOR].try_clone().unwrap());
    let _client = TcpStream::connect(theirs.local_addr().unwrap()).unwrap();
    theirs.accept().unwrap();

    let rest = blocking(move || found.taken(true)).await.unwrap();
    assert_eq!(old.retired(), 1);
    assert_eq!(rest.pods.iter().map(|(uid, _)| &**uid).collect::<Vec<_>>(), ["late"]);
    assert!(old.pods.snapshot().is_empty(), "the predecessor holds no listener any more");
    // The successor ends and nobody is in its place.
    drop(rest);
    assert!(matches!(old.ended.await.unwrap(), Err(HandoverError::Orphaned)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_dies_changes_nothing() {
    let old = Old::start().await;
    for _ in 0..3 {
        drop(ask_at(&old.socket(), "n1").await.unwrap().unwrap());
    }
    assert_eq!((old.retired(), old.pods.snapshot().len()), (0, 1));
    let socket = old.socket();
    assert!(old.drain.start(Duration::from_secs(5)).await);
    old.ended.await.unwrap().unwrap();
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_or_version_is_refused_with_a_reason() {
    let old = Old::start().await;
    let error = ask_at(&old.socket(), "n2").await.unwrap_err().to_string();
    assert!(error.contains("n1") && error.contains("n2") && error.contains("stop it first"), "{error}");
    let socket = old.socket();
    let refused = blocking(move || {
        let wire = Wire::connect(&socket, DEADLINE).unwrap();
        let hello = Request::Hello { version: 99, node: "n1".into(), flows: true };
        wire.send(&hello, std::iter::empty()).unwrap();
        let Packet::Message(Answer::Refused { reason }, _) = wire.receive().unwrap() else { panic!() };
        reason
    });
    let reason = refused.await;
    assert!(reason.contains("version 1") && reason.contains("99"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_survived() {
    let old = Old::start().await;
    let socket = old.socket();
    blocking(move || {
        for nonsense in [&b"\0\xff"[..], b"{}", &[b'x'; 20_000]] {
            let wire = Wire::connect(&socket, DEADLINE).unwrap();
            rustix::net::send(&wire, nonsense, rustix::net::SendFlags::NOSIGNAL).unwrap();
            assert!(matches!(wire.receive::<Answer>(), Ok(Packet::Gone)));
        }
        // Taken before hello; and sockets that nobody asked for.
        let wire = Wire::connect(&socket, DEADLINE).unwrap();
        wire.send(&Request::Taken { endpoints: true }, std::iter::once(wire.as_fd())).unwrap();
        assert!(matches!(wire.receive::<Answer>(), Ok(Packet::Gone)));
    })
    .await;
    assert!(ask_at(&old.socket(), "n1").await.unwrap().is_some());
    assert_eq!(old.retired(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_no_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ask_at(&dir.path().join("none.sock"), "n1").await.unwrap().is_none());
    // A socket of an agent that was killed.
    let dead = dir.path().join("dead.sock");
    drop(wire::listen(&dead).unwrap());
    assert!(ask_at(&dead, "n1").await.unwrap().is_none());
}

/// A flow between two sockets whose other ends are given too: `[client, server]` each.
fn flow(rest: usize) -> (Departure, tokio::sync::oneshot::Receiver<Fate>, [TcpStream; 2]) {
    let pair = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    };
    let ((client, near), (server, far)) = (pair(), pair());
    let observer = Observer::new(ObserveConfig::new("n1".into()));
    let (moved, _) = observer.begin(Direction::Outbound, None, None).to_moved();
    let up = Way { rest: vec![7; rest].into(), ended: true, passed_on: false };
    let state = RelayState { up, down: Way::default(), tunnel: None };
    let pod = (WorkloadUid("pod".into()), "u1".into());
    let described = describe(moved, pod, None, &state, None, SpanLeft::default());
    let (departure, fate) = Departure::new(described, [near.into(), far.into()], Vec::new());
    (departure, fate, [client, server])
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_follow_and_are_told_their_fate() {
    let old = Old::start().await;
    let found = ask_at(&old.socket(), "n1").await.unwrap().unwrap();
    let rest = blocking(move || found.taken(true)).await.unwrap();
    assert!(rest.flows);
    let mut exit = old.exits.exit();
    let waiting = tokio::time::timeout(Duration::from_millis(50), exit.wait()).await;
    assert!(waiting.is_err(), "the successor has not said that it is ready");
    let (arrived, mut flows) = tokio::sync::mpsc::unbounded_channel();
    let taking = tokio::task::spawn_blocking(move || {
        let mut left = 70;
        rest.lifeline.take_flows(|flow| {
            left -= 1;
            // The last one kills this successor before it is owned.
            assert!(left > 0, "as if killed");
            arrived.send(flow).unwrap();
        })
    });
    let mut fates = Vec::new();
    for number in 0..69 {
        let (departure, fate, ends) = flow(if number == 3 { 300_000 } else { number });
        exit.wait().await.send(departure);
        fates.push((fate, ends));
    }
    for (number, (fate, ends)) in fates.into_iter().enumerate() {
        assert_eq!(fate.await.unwrap(), Fate::Moved);
        let flow = flows.recv().await.unwrap();
        let (state, _) = flow.message.parts(&flow.tail).unwrap();
        assert_eq!(state.up.rest.len(), if number == 3 { 300_000 } else { number });
        assert!(state.up.ended && !state.up.passed_on && state.down == Way::default());
        // They are the flow's sockets, in this order.
        for (theirs, mut ours) in flow.sockets.into_iter().zip(ends) {
            use std::io::{Read, Write};
            TcpStream::from(theirs).write_all(b"x").unwrap();
            ours.read_exact(&mut [0]).unwrap();
        }
    }
    let (departure, fate, _ends) = flow(1);
    exit.wait().await.send(departure);
    assert_eq!(fate.await.unwrap(), Fate::Lost, "it has left and nobody owns it");
    assert!(taking.await.is_err());
    let (departure, fate, _ends) = flow(1);
    if let Ok(room) = tokio::time::timeout(Duration::from_millis(50), exit.wait()).await {
        room.send(departure);
        assert_eq!(fate.await.unwrap(), Fate::Stays, "nobody is there any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_of_before_flows_gets_none() {
    let old = Old::start().await;
    let (socket, mut exit) = (old.socket(), old.exits.exit());
    let wire = blocking(move || {
        let wire = Wire::connect(&socket, DEADLINE).unwrap();
        // As it was said then.
        wire.send_bytes(br#"{"say":"hello","version":1,"node":"n1"}"#, std::iter::empty()).unwrap();
        while !matches!(wire.receive().unwrap(), Packet::Message(Answer::End, _)) {}
        wire.send(&Request::Taken { endpoints: true }, std::iter::empty()).unwrap();
        while !matches!(wire.receive().unwrap(), Packet::Message(Answer::End, _)) {}
        wire
    })
    .await;
    assert!(tokio::time::timeout(Duration::from_millis(100), exit.wait()).await.is_err());
    drop(wire);
}

#[test]
fn an_agent_of_before_does_not_say_which_pod_of_a_name() {
    let (departure, ..) = flow(10);
    let mut said = serde_json::to_value(&departure.message).unwrap();
    assert_eq!(said.as_object_mut().unwrap().remove("pod_uid").unwrap(), "u1");
    let heard: FlowMessage = serde_json::from_value(said).unwrap();
    assert_eq!((&heard.pod, &*heard.pod_uid), (&departure.message.pod, ""));
}

#[test]
fn a_flow_s_bytes_are_what_its_message_says() {
    let (departure, ..) = flow(10);
    let mut tail = departure.tail.to_vec();
    assert!(departure.message.parts(&tail).is_some());
    tail.push(0);
    assert!(departure.message.parts(&tail).is_none(), "one too many");
    assert!(departure.message.parts(&tail[..9]).is_none(), "one too few");
}

/// A batch may take the successor a while: what waits behind it goes, too, although the agent is to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_successor_gets_all_flows_of_an_agent_that_is_to_stop() {
    let old = Old::start().await;
    let found = ask_at(&old.socket(), "n1").await.unwrap().unwrap();
    let rest = blocking(move || found.taken(true)).await.unwrap();
    let taking = tokio::task::spawn_blocking(move || {
        let (_nobody, busy) = std::sync::mpsc::channel::<()>();
        rest.lifeline.take_flows(|_| _ = busy.recv_timeout(Duration::from_millis(1500)))
    });
    let mut exit = old.exits.exit();
    let (first, its_fate, _ends) = flow(1);
    exit.wait().await.send(first);
    let stopping = tokio::spawn({
        let drain = old.drain;
        async move { drain.start(Duration::from_secs(20)).await }
    });
    // It has been sent, and this one only waits.
    let (second, other_fate, _others) = flow(2);
    exit.wait().await.send(second);
    assert_eq!((its_fate.await.unwrap(), other_fate.await.unwrap()), (Fate::Moved, Fate::Moved));
    // The last has gone: nothing is waited for.
    drop(exit);
    old.ended.await.unwrap().unwrap();
    assert!(stopping.await.unwrap());
    taking.await.unwrap().unwrap();
}

/// What it had said and nobody will read any more must not pass for a sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_dies_in_the_middle_of_a_word_is_missed() {
    let old = Old::start().await;
    let socket = old.socket();
    let wire = blocking(move || {
        let wire = Wire::connect(&socket, DEADLINE).unwrap();
        let hello = Request::Hello { version: VERSION, node: "n1".into(), flows: true };
        wire.send(&hello, std::iter::empty()).unwrap();
        while !matches!(wire.receive().unwrap(), Packet::Message(Answer::End, _)) {}
        wire.send(&Request::Taken { endpoints: true }, std::iter::empty()).unwrap();
        while !matches!(wire.receive().unwrap(), Packet::Message(Answer::End, _)) {}
        wire.send(&Request::Flows, std::iter::empty()).unwrap();
        wire
    })
    .await;
    let mut exit = old.exits.exit();
    let room = exit.wait().await;
    // More than anybody asks for.
    for id in 0..3 {
        wire.send(&Request::Moved { id }, std::iter::empty()).unwrap();
    }
    drop(wire);
    drop(room);
    let ended = tokio::time::timeout(Duration::from_secs(10), old.ended).await;
    assert!(matches!(ended.unwrap().unwrap(), Err(HandoverError::Orphaned)));
}
