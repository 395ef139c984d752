//! `istio.workload.Address` from a controller. What decodes must survive its own encoding.
#![no_main]

use warren_common::proto::{decode_address, encode_address};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(resource) = decode_address(bytes) {
        let again = decode_address(&encode_address(&resource));
        assert_eq!(again.ok().as_ref(), Some(&resource), "what was accepted must survive the wire");
    }
});
