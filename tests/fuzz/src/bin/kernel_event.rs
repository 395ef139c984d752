//! Records of the ring buffer.
#![no_main]

use std::net::SocketAddr;
use warren_agent::kernel::decode;

libfuzzer_sys::fuzz_target!(|record: &[u8]| {
    if let Some(event) = decode(record) {
        let _ = (SocketAddr::from(event.source), SocketAddr::from(event.destination));
    }
});
