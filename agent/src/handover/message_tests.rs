use super::*;
use crate::pods::Door;
use proptest::prelude::*;
use std::os::unix::net::UnixDatagram;

fn fds(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| UnixDatagram::unbound().unwrap().into()).collect()
}

const LEAF: Leaf = Leaf { door: Door::Hbone, v6: true };

fn one_pod() -> Answer {
    Answer::Pod { uid: "u".into(), cookie: 7, sockets: vec![LEAF] }
}

fn welcomed() -> Told {
    let mut told = Told::default();
    told.hear(Answer::Welcome { abi: "a".into(), flows: false }, vec![]).unwrap();
    told
}

#[test]
fn every_message_survives_the_wire() {
    for answer in [
        Answer::Refused { reason: "no".into() },
        Answer::Welcome { abi: "0123".into(), flows: true },
        one_pod(),
        Answer::Endpoint,
        Answer::End,
    ] {
        assert_eq!(decode::<Answer>(&encode(&answer)).unwrap(), answer);
    }
    for request in [
        Request::Hello { version: 1, node: "n".into(), flows: true },
        Request::Taken { endpoints: true },
        Request::Moved { id: 3 },
    ] {
        assert_eq!(decode::<Request>(&encode(&request)).unwrap(), request);
    }
    // What later versions may add is skipped.
    let later = br#"{"say":"hello","version":9,"node":"n","colour":"red"}"#;
    assert_eq!(
        decode::<Request>(later).unwrap(),
        Request::Hello { version: 9, node: "n".into(), flows: false }
    );
}

#[test]
fn a_full_pod_fits_into_a_message() {
    let leaves = [Door::Outbound, Door::Plaintext, Door::Hbone]
        .into_iter()
        .flat_map(|door| [false, true].map(|v6| Leaf { door, v6 }));
    let sockets: Vec<_> = leaves.collect();
    assert_eq!(sockets.len(), MAX_SOCKETS);
    let pod = Answer::Pod { uid: "x".repeat(253), cookie: u64::MAX, sockets };
    assert!(encode(&pod).len() < MAX_BYTES);
}

#[test]
fn answers_are_gathered_in_order() {
    let mut told = welcomed();
    assert!(!told.hear(one_pod(), fds(1)).unwrap());
    assert!(!told.hear(Answer::Endpoint, fds(1)).unwrap());
    assert!(told.hear(Answer::End, vec![]).unwrap());
    let (uid, sockets) = &told.pods[0];
    assert_eq!((&**uid, sockets.cookie, told.endpoints.len()), ("u", 7, 1));
    assert!(sockets.sockets.contains_key(&LEAF));
}

#[test]
fn a_refusal_is_the_end() {
    let mut told = Told::default();
    assert!(told.hear(Answer::Refused { reason: "version 2".into() }, vec![]).unwrap());
    assert_eq!(told.refused.as_deref(), Some("version 2"));
}

#[test]
fn what_breaks_the_protocol_is_named() {
    for (mut told, answer, sockets, expected) in [
        (Told::default(), one_pod(), 1, "before a welcome"),
        (Told::default(), Answer::End, 0, "before a welcome"),
        (welcomed(), one_pod(), 0, "0 sockets instead of 1"),
        (welcomed(), one_pod(), 3, "3 sockets instead of 1"),
        (welcomed(), Answer::Endpoint, 0, "0 sockets instead of 1"),
        (welcomed(), Answer::End, 2, "2 sockets instead of 0"),
    ] {
        let error = told.hear(answer, fds(sockets)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for bytes in [
        &b""[..],
        b"{}",
        b"{\"say\":\"pod\"}",
        b"\"hello\"",
        b"{\"say\":\"sing\"}",
        b"{\"say\":\"hello\",\"version\":-1,\"node\":\"\"}",
    ] {
        assert!(decode::<Request>(bytes).is_err() && decode::<Answer>(bytes).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Answer>(&bytes);
    }

    #[test]
    fn a_cut_message_is_refused(cut in 0_usize..60) {
        let whole = encode(&one_pod());
        prop_assume!(cut < whole.len());
        prop_assert!(decode::<Answer>(&whole[..cut]).is_err());
    }
}
