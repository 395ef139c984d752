//! An application's HTTP/1 connection: what the guard lets pass begins and ends where another reader says, and hyper behind it
//! reads the same, so that no request hides in a body; however the bytes come.
#![no_main]

use warren_agent::http::guard::Framing;
use warren_fuzz::{Message, read_chunks, serve};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (passed, bad) = pass(bytes, usize::MAX);
    let piece = 1 + usize::from(bytes.last().copied().unwrap_or_default() % 7);
    // Of a bad body more or less has passed when that is seen, and nothing can be taken for its end.
    let (in_pieces, also_bad) = pass(bytes, piece);
    assert!(also_bad == bad && (bad || in_pieces == passed), "in pieces of {piece} it is the same");
    let all = messages(&bytes[..passed]);
    assert_eq!(messages(&bytes[..in_pieces]), all, "in pieces of {piece} it is the same");
    for (message, end) in &all {
        assert!(is_between(&bytes[..*end]), "the guard does not end it here: {message:?}");
    }
    let expected: Vec<_> = all.into_iter().map(|(message, _)| message).collect();
    let (read, written) = serve(bytes, piece * 16);
    assert!(expected.starts_with(&read), "hyper reads {read:?} instead of {expected:?}");
    // It may say that it reads no more, or that it will not answer any more: HTTP/1.0, `Connection: close`.
    let says = |bytes: &[u8], word: &str| {
        bytes.to_ascii_lowercase().windows(word.len()).any(|part| part == word.as_bytes())
    };
    let may_stop = says(&written, "http/1.1 4") || says(bytes, "http/1.0") || says(bytes, "close");
    assert!(may_stop || read.len() == expected.len(), "hyper reads only {read:?} of {expected:?}");
});

/// How many bytes the guard lets pass that gets them in pieces, and whether it refuses what comes then. Nobody gets another
/// protocol.
fn pass(bytes: &[u8], piece: usize) -> (usize, bool) {
    let (mut framing, mut passed, mut end) = (Framing::default(), 0, 0_usize);
    loop {
        let more = framing.pass(&bytes[passed..end]);
        passed += match more {
            Ok(more) => more,
            Err(_) => return (passed, true),
        };
        if framing.is_undecided() {
            framing.decide(false);
        } else if end < bytes.len() {
            end = end.saturating_add(piece).min(bytes.len());
        } else if more == Ok(0) {
            return (passed, false);
        }
    }
}

/// Whether the guard is between two messages after `bytes`, all of which pass.
fn is_between(bytes: &[u8]) -> bool {
    // A body would take these bytes, or call them a bad chunk; a head is held back until it ends.
    let mut probe = bytes.to_vec();
    probe.extend_from_slice(b"GET \0");
    let is_held = pass(&probe, usize::MAX) == (bytes.len(), false);
    probe.extend_from_slice(b"\r\n\r\n");
    is_held && pass(&probe, usize::MAX) == (bytes.len(), true)
}

/// What another reader finds, and where each message ends: httparse for heads, and a slow reader of chunks.
fn messages(bytes: &[u8]) -> Vec<(Message, usize)> {
    let (mut messages, mut at) = (Vec::new(), 0);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 2000];
        let mut head = httparse::Request::new(&mut headers);
        at += match head.parse(&bytes[at..]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => {
                let is_blank = bytes[at..].iter().all(|byte| b"\r\n".contains(byte));
                assert!(is_blank, "half a head has passed: {:?}", &bytes[at..]);
                return messages;
            }
            // The same reader is in hyper, which answers 400.
            Err(_) => return messages,
        };
        let header = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let rest = &bytes[at..];
        let body = match (header("transfer-encoding"), header("content-length")) {
            (Some(_), _) => read_chunks(rest),
            (None, None) => Some((Vec::new(), 0, 0)),
            (None, Some(header)) => {
                let size = std::str::from_utf8(header.value).ok().and_then(|size| size.parse().ok());
                let size: usize = size.expect("the guard lets only numbers pass");
                rest.get(..size).map(|body| (body.to_vec(), 0, size))
            }
        };
        let Some((body, trailers, size)) = body else { return messages };
        at += size;
        let (method, headers) = (head.method.unwrap_or_default().to_owned(), head.headers.len());
        messages.push((Message { method, headers, body, trailers }, at));
    }
}
