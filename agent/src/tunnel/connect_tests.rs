use super::*;
use proptest::prelude::*;

fn request(text: &str) -> Result<Option<(Request<()>, usize)>, HeadError> {
    parse_request(text.as_bytes())
}

#[test]
fn what_is_written_is_read() {
    let mut sent = Request::new(());
    *sent.method_mut() = Method::CONNECT;
    *sent.uri_mut() = Uri::from_static("[fd00::1]:80");
    sent.headers_mut().insert("forwarded", HeaderValue::from_static("for=\"10.0.0.1:5\""));
    sent.headers_mut().append("baggage", HeaderValue::from_static("k=v"));
    let mut head = write_request(&sent);
    let length = head.len();
    head.extend_from_slice(b"early data");
    let (read, end) = parse_request(&head).unwrap().unwrap();
    assert_eq!((read.method(), read.uri(), end), (sent.method(), sent.uri(), length));
    assert_eq!(read.headers()["forwarded"], "for=\"10.0.0.1:5\"");
    assert_eq!(read.headers().len(), 3);
    for cut in 0..length {
        assert_eq!(parse_request(&head[..cut]).unwrap().map(|_| ()), None, "{cut}");
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-warren-reason", HeaderValue::from_static("denied by x"));
    for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
        let head = write_response(status, &headers);
        let (read, headers, end) = parse_response(&head).unwrap().unwrap();
        assert_eq!((read, end), (status, head.len()));
        assert_eq!(headers["x-warren-reason"], "denied by x");
        assert!(parse_response(&head[..end - 1]).unwrap().is_none());
    }
}

#[test]
fn what_two_could_read_differently_is_refused() {
    for (text, expected) in [
        ("CONNECT 1.2.3.4:80 HTTP/1.0\r\nhost: 1.2.3.4:80\r\n\r\n", HeadError::FirstLine),
        ("CONNECT  1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\n\r\n", HeadError::FirstLine),
        ("CONNECT 1.2.3.4:80 HTTP/1.1 \r\nhost: 1.2.3.4:80\r\n\r\n", HeadError::FirstLine),
        ("\r\nCONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\n\r\n", HeadError::FirstLine),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\nhost: 1.2.3.4:80\r\n\r\n", HeadError::FirstLine),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\n\r\n", HeadError::Host),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.5:80\r\n\r\n", HeadError::Host),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\nhost: 1.2.3.4:80\r\n\r\n", HeadError::Host),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\na b: c\r\n\r\n", HeadError::Field),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost : 1.2.3.4:80\r\n\r\n", HeadError::Field),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\n folded\r\n\r\n", HeadError::Field),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\na: b\nc: d\r\n\r\n", HeadError::Field),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\na: b\rc\r\n\r\n", HeadError::Field),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\na: \0\r\n\r\n", HeadError::Field),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\ncontent-length: 0\r\n\r\n", HeadError::Body),
        ("CONNECT 1.2.3.4:80 HTTP/1.1\r\nhost: 1.2.3.4:80\r\ntransfer-encoding: x\r\n\r\n", HeadError::Body),
    ] {
        assert_eq!(request(text).map(|_| ()), Err(expected), "{text:?}");
    }
    for (text, expected) in [
        ("HTTP/1.0 200 OK\r\n\r\n", HeadError::FirstLine),
        ("HTTP/1.1 2000\r\n\r\n", HeadError::FirstLine),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", HeadError::Body),
        ("HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\n", HeadError::Body),
        ("HTTP/1.1 100 Continue\r\n\r\n", HeadError::Body),
    ] {
        assert_eq!(parse_response(text.as_bytes()).map(|_| ()), Err(expected), "{text:?}");
    }
    assert!(request("GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n").unwrap().is_some(), "refused by its method");
}

#[test]
fn a_head_is_bounded() {
    let long = format!("CONNECT 1.2.3.4:80 HTTP/1.1\r\na: {}\r\n", "x".repeat(MAX_HEAD));
    assert_eq!(request(&long).map(|_| ()), Err(HeadError::TooLong));
    let many = format!("CONNECT 1.2.3.4:80 HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
    assert_eq!(request(&many).map(|_| ()), Err(HeadError::TooLong));
    assert_eq!(request(&"x".repeat(MAX_HEAD - 1)).map(|_| ()), Ok(()), "more may come");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes);
    }
}
