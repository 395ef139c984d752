//! The request line and headers of a CONNECT from a peer.
#![no_main]

use http::{Method, Uri};
use warren_agent::tunnel::{parse_authority, parse_forwarded};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some((ip, port)) = parse_forwarded(text) {
        assert!(ip == ip.to_canonical(), "{port:?}");
    }
    if let Ok(uri) = Uri::try_from(text)
        && let Ok(address) = parse_authority(&Method::CONNECT, &uri)
    {
        assert!(address.port() != 0 && !address.ip().is_unspecified());
    }
});
