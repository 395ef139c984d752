//! Our record layer against rustls at the other end, and against what no peer should send.

use super::*;
use proptest::prelude::*;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Secrets(Mutex<[Vec<u8>; 2]>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _random: &[u8], secret: &[u8]) {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => self.0.lock().unwrap()[0] = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => self.0.lock().unwrap()[1] = secret.to_vec(),
            _ => {}
        }
    }
}

const SUITES: [(Suite, rustls::SupportedCipherSuite); 3] = [
    (Suite::Aes128, rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256),
    (Suite::Aes256, rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384),
    (Suite::Chacha20, rustls::crypto::aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
];

/// A client of rustls after its handshake, and the server's end as ours.
fn handshake(suite: rustls::SupportedCipherSuite) -> (ClientConnection, Channel) {
    let provider = Arc::new(rustls::crypto::CryptoProvider {
        cipher_suites: vec![suite],
        ..rustls::crypto::aws_lc_rs::default_provider()
    });
    let certified = rcgen::generate_simple_self_signed(["web".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let version = [&rustls::version::TLS13];
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&version)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let secrets = Arc::new(Secrets::default());
    server.key_log = secrets.clone();
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 2;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&version)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("web").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets().unwrap();
        wire.clear();
    }
    let number = u16::from(suite.suite());
    let extracted = server.dangerous_extract_secrets().unwrap();
    let [theirs, ours] = secrets.0.lock().unwrap().clone();
    let state = ChannelState {
        suite: number,
        seal: (Secret::new(&ours).unwrap(), extracted.tx.0),
        open: (Secret::new(&theirs).unwrap(), extracted.rx.0),
        partial: Bytes::new(),
        message: Bytes::new(),
        owed: false,
    };
    assert!(extracted.tx.0 > 0, "its tickets were the first record");
    (client, Channel::restore(state).unwrap())
}

/// What the client has to say.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

/// Opens all of `wire`; the data, and whether it ended.
fn opened(channel: &mut Channel, wire: &mut [u8]) -> Result<(Vec<u8>, bool), RecordError> {
    let (mut at, mut data, mut ended) = (0, Vec::new(), false);
    while let Some((what, end)) = channel.opener.open(wire, at, &channel.owed)? {
        at = end;
        match what {
            Opened::Data(range) => data.extend_from_slice(&wire[range]),
            Opened::End => ended = true,
            Opened::Control => {}
        }
    }
    assert_eq!(at, wire.len());
    Ok((data, ended))
}

fn heard(client: &mut ClientConnection, mut wire: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        let state = client.process_new_packets().unwrap();
        let mut part = vec![0; state.plaintext_bytes_to_read()];
        client.reader().read_exact(&mut part).unwrap();
        data.extend_from_slice(&part);
    }
    data
}

#[test]
fn both_directions_with_key_updates_and_the_end() {
    for (ours, suite) in SUITES {
        let rustls::SupportedCipherSuite::Tls13(tls13) = suite else { panic!() };
        assert_eq!(ours.record_limit(), tls13.common.confidentiality_limit);
        let (mut client, mut channel) = handshake(suite);
        let long: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
        let mut out = Vec::new();
        for round in 0..6 {
            client.writer().write_all(&long[..40_000]).unwrap();
            assert_eq!(
                opened(&mut channel, &mut said(&mut client)).unwrap(),
                (long[..40_000].to_vec(), false)
            );
            out.clear();
            if channel.owed.take() {
                channel.sealer.update(&mut out).unwrap();
            }
            channel.sealer.seal(&long, &mut out).unwrap();
            assert_eq!(heard(&mut client, &out), long);
            match round {
                // New keys of the client, who wants ours too.
                1 => client.refresh_traffic_keys().unwrap(),
                2 => {
                    let mut update = Vec::new();
                    channel.sealer.update(&mut update).unwrap();
                    assert!(heard(&mut client, &update).is_empty());
                }
                // In another process from here on.
                3 => channel = Channel::restore(channel.state()).unwrap(),
                _ => {}
            }
        }
        client.send_close_notify();
        assert_eq!(opened(&mut channel, &mut said(&mut client)).unwrap(), (vec![], true));
        out.clear();
        channel.sealer.close(&mut out).unwrap();
        let mut wire = &out[..];
        client.read_tls(&mut wire).unwrap();
        assert!(client.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn keys_are_changed_before_they_have_done_too_much() {
    let (mut client, mut channel) = handshake(SUITES[0].1);
    channel.sealer.limit(10);
    let (mut out, data) = (Vec::new(), vec![5; 30 * MAX_PLAIN]);
    channel.sealer.seal(&data, &mut out).unwrap();
    assert_eq!(heard(&mut client, &out), data);
    assert!(channel.sealer.position().1 < 10);
}

#[test]
fn what_was_altered_is_not_opened() {
    let (mut client, mut channel) = handshake(SUITES[0].1);
    client.writer().write_all(b"hello").unwrap();
    let mut wire = said(&mut client);
    *wire.last_mut().unwrap() ^= 1;
    assert!(matches!(opened(&mut channel, &mut wire), Err(RecordError::Decrypt)));
    for (nonsense, said) in [
        (&[21, 3, 3, 0, 20][..], "not protected"),
        (&[20, 3, 3, 0, 1], "change_cipher_spec"),
        (&[23, 2, 0, 0, 20], "no TLS"),
        (&[23, 3, 3, 0, 16], "length"),
        (&[23, 3, 3, 0xff, 0xff], "length"),
    ] {
        let error = opened(&mut channel, &mut nonsense.to_vec()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Two of ours against each other, so that anything can be said.
fn couple() -> (Channel, Channel) {
    let end = |ours, theirs| {
        let secret = |byte| Secret::new(&[byte; 32]).unwrap();
        let (partial, message) = (Bytes::new(), Bytes::new());
        let (seal, open) = ((secret(ours), 0), (secret(theirs), 0));
        Channel::restore(ChannelState { suite: 0x1301, seal, open, partial, message, owed: false }).unwrap()
    };
    (end(1, 2), end(2, 1))
}

#[test]
fn messages_of_a_peer_are_skipped_or_refused() {
    const IDLE: &[&[u8]] = &[b"" as &[u8]; 70];
    type Case = (&'static [&'static [u8]], Result<(), &'static str>);
    let cases: [Case; 9] = [
        (&[&[4, 0, 0, 2, 9, 9]], Ok(())),
        (&[&[4, 0, 0, 2, 9, 9, 4, 0, 0, 0]], Ok(())),
        (&[&[4, 0, 0], &[2, 9, 9]], Ok(())),
        (&[&[24, 0, 0, 1, 2]], Err("KeyUpdate")),
        (&[&[24, 0, 0, 2, 1, 1]], Err("KeyUpdate")),
        (&[&[24, 0, 0, 1, 0, 4, 0, 0, 0]], Err("across")),
        (&[&[1, 0, 0, 0]], Err("unexpected handshake")),
        (&[&[4, 1, 0, 1]], Err("too long")),
        (IDLE, Err("too many records")),
    ];
    for (records, expected) in cases {
        let (mut near, mut far) = couple();
        let mut wire = Vec::new();
        for record in records {
            near.sealer.record(HANDSHAKE, record, &mut wire).unwrap();
        }
        match (opened(&mut far, &mut wire), expected) {
            (Ok((data, false)), Ok(())) => assert!(data.is_empty()),
            (Err(error), Err(said)) => assert!(error.to_string().contains(said), "{error}"),
            (got, _) => panic!("{records:?}: {got:?}"),
        }
    }
    let (mut near, mut far) = couple();
    let mut wire = Vec::new();
    near.sealer.record(HANDSHAKE, &[4, 0, 0], &mut wire).unwrap();
    near.sealer.seal(b"data", &mut wire).unwrap();
    let error = opened(&mut far, &mut wire).unwrap_err().to_string();
    assert!(error.contains("in the middle"), "{error}");
    for (alert, expected) in [(&[2, 40][..], "alert 40"), (&[1], "malformed alert")] {
        let (mut near, mut far) = couple();
        let mut wire = Vec::new();
        near.sealer.record(ALERT, alert, &mut wire).unwrap();
        let error = opened(&mut far, &mut wire).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_no_state_is_refused() {
    let state = || couple().0.state();
    assert!(Channel::restore(ChannelState { suite: 0x1399, ..state() }).is_err());
    let short = (Secret::new(&[1; 16]).unwrap(), 0);
    assert!(Channel::restore(ChannelState { seal: short, ..state() }).is_err());
    assert!(Secret::new(&[1; 49]).is_none());
    assert_eq!(format!("{:?}", state()), "ChannelState { suite: 4865, .. }", "no secrets");
}

proptest! {
    /// However records are cut on their way, and whenever the state moves, the same bytes come out.
    #[test]
    fn boundaries_mean_nothing(parts in prop::collection::vec((0_usize..20_000, any::<bool>()), 1..12), cut in 1_usize..9_000) {
        let (mut near, mut far) = couple();
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for (index, (length, update)) in parts.iter().enumerate() {
            let data: Vec<u8> = (0..*length).map(|i| (i + index) as u8).collect();
            near.sealer.seal(&data, &mut wire).unwrap();
            sent.extend(data);
            if *update {
                near.sealer.update(&mut wire).unwrap();
                near = Channel::restore(near.state()).unwrap();
            }
        }
        near.sealer.close(&mut wire).unwrap();
        let (mut got, mut ended, mut buffer) = (Vec::new(), false, vec![0; 40_000]);
        for chunk in wire.chunks(cut) {
            let held = far.opener.take_partial(&mut buffer);
            buffer[held..held + chunk.len()].copy_from_slice(chunk);
            let bytes = &mut buffer[..held + chunk.len()];
            let mut at = 0;
            while let Some((what, end)) = far.opener.open(bytes, at, &far.owed).unwrap() {
                at = end;
                match what {
                    Opened::Data(range) => got.extend_from_slice(&bytes[range]),
                    Opened::End => ended = true,
                    Opened::Control => {}
                }
            }
            far.opener.keep_partial(&bytes[at..]);
            prop_assert!(!far.opener.has_record());
            far = Channel::restore(far.state()).unwrap();
        }
        prop_assert!(ended && got == sent);
    }

    #[test]
    fn any_bytes_are_survived(mut bytes: Vec<u8>) {
        let (_, mut far) = couple();
        let _ = far.opener.open(&mut bytes, 0, &Cell::new(false));
    }
}
