use super::super::flows::{Exits, Fate, SpanLeft, describe};
use super::*;
use crate::observe::{ObserveConfig, Observer};
use crate::tunnel::{RelayState, Way};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use warren_common::model::admin::Direction;

fn departure() -> (Departure, tokio::sync::oneshot::Receiver<Fate>) {
    let observer = Observer::new(ObserveConfig::new("n1".into()));
    let (moved, _) = observer.begin(Direction::Outbound, None, None).to_moved();
    let state = RelayState { up: Way::default(), down: Way::default(), tunnel: None };
    let pod = (WorkloadUid("pod".into()), "u1".into());
    let described = describe(moved, pod, None, &state, None, SpanLeft::default());
    let sockets = [(); 2].map(|()| UnixDatagram::unbound().unwrap().into());
    Departure::new(described, sockets, Vec::new())
}

/// It had room before the successor was lost, and says what it is afterwards.
#[tokio::test]
async fn who_had_room_when_the_successor_was_lost_stays() {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let exits = Exits::default();
    let mut departures = Departures::open(Arc::new(Wire::accepted(ours).unwrap()), &exits);
    let (mut first, mut second) = (exits.exit(), exits.exit());
    let (room, late) = (first.wait().await, second.wait().await);
    drop(theirs);
    let (one, its_fate) = departure();
    room.send(one);
    departures.step().await;
    assert!(departures.is_talking());
    departures.step().await;
    assert_eq!(its_fate.await.unwrap(), Fate::Lost, "its sockets may have left");
    let (one, its_fate) = departure();
    late.send(one);
    let fate = tokio::select! {
        fate = tokio::time::timeout(Duration::from_secs(5), its_fate) => fate,
        () = departures.step() => panic!("there is nobody to send to"),
    };
    assert_eq!(fate.unwrap().unwrap(), Fate::Stays);
}

/// One that can't leave would otherwise be asked again at once, for as long as the old agent lives.
#[tokio::test(start_paused = true)]
async fn who_could_not_leave_goes_on_for_a_while() {
    let exits = Exits::default();
    let mut exit = exits.exit();
    let _queue = exits.open();
    drop(exit.wait().await);
    exit.rest();
    // Others happen meanwhile, and the wait begins anew.
    for _ in 0..3 {
        let again = tokio::time::timeout(Duration::from_millis(300), exit.wait()).await;
        assert!(again.is_err());
    }
    tokio::time::timeout(Duration::from_millis(200), exit.wait()).await.unwrap();
    assert!(!exits.is_unused());
    drop(exit);
    assert!(exits.is_unused());
}
