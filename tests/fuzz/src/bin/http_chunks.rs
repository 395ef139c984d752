//! A chunked body, in any chunks with any extensions and in any pieces, comes out of guard and hyper as it went in, and goes back
//! the same.
#![no_main]

use warren_fuzz::{Message, read_chunks, serve};

libfuzzer_sys::fuzz_target!(|input: (u8, Vec<(u8, Vec<u8>)>, u8)| {
    let (piece, parts, trailers) = input;
    let head = "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (mut text, mut body) = (head.as_bytes().to_vec(), Vec::new());
    for (form, part) in parts.iter().filter(|(_, part)| !part.is_empty()) {
        let size = match form % 4 {
            0 => format!("{:x}\r\n", part.len()),
            1 => format!("{:X}\r\n", part.len()),
            2 => format!("{:08x}\r\n", part.len()),
            _ => format!("{:x};a=\"{form}\"; b\r\n", part.len()),
        };
        text.extend_from_slice(size.as_bytes());
        text.extend_from_slice(part);
        text.extend_from_slice(b"\r\n");
        body.extend_from_slice(part);
    }
    text.extend_from_slice(b"0\r\n");
    let trailers = usize::from(trailers % 4);
    for number in 0..trailers {
        text.extend_from_slice(format!("x-{number}: {piece}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    let found = read_chunks(&text[head.len()..]);
    assert_eq!(found, Some((body.clone(), trailers, text.len() - head.len())), "the slow reader is right");
    text.extend_from_slice(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n");

    let (read, written) = serve(&text, 1 + usize::from(piece));
    let post = Message { method: "POST".into(), headers: 2, body: body.clone(), trailers };
    let get = Message { method: "GET".into(), headers: 1, ..Message::default() };
    assert_eq!(read, [post, get]);
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = response.parse(&written) else {
        unreachable!("hyper answers: {written:?}")
    };
    assert!(written[length..].starts_with(&body));
});
