//! HTTP/1.1 heads of the CONNECT exchange, from either peer.
#![no_main]

use http::Method;
use warren_agent::tunnel::{parse_authority, parse_request, parse_response};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((request, end))) = parse_request(bytes) {
        let head = &bytes[..end];
        assert!(head.ends_with(b"\r\n\r\n") && end <= 8 << 10);
        // What follows changes nothing, and less is not enough.
        assert!(matches!(parse_request(head), Ok(Some((_, again))) if again == end));
        assert!(matches!(parse_request(&bytes[..end - 1]), Ok(None)));
        assert!(request.headers().len() <= 64 && !request.headers().contains_key("transfer-encoding"));
        for value in request.headers().values() {
            assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
        if request.method() == Method::CONNECT {
            let host = request.headers()["host"].to_str().unwrap_or_default();
            if let Ok(address) = parse_authority(request.method(), request.uri()) {
                assert!(host.ends_with(&address.port().to_string()));
            }
        }
    }
    if let Ok(Some((status, headers, end))) = parse_response(bytes) {
        assert!(bytes[..end].ends_with(b"\r\n\r\n") && !status.is_informational());
        assert!(headers.len() <= 64);
    }
});
