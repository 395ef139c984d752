//! `istio.security.Authorization` from a controller. What decodes must survive its own encoding.
#![no_main]

use warren_common::proto::{decode_authorization, encode_authorization};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = decode_authorization(bytes) {
        let again = decode_authorization(&encode_authorization(&policy));
        assert_eq!(again.ok().as_ref(), Some(&policy), "what was accepted must survive the wire");
    }
});
