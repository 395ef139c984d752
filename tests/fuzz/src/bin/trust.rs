//! `warren.v1.TrustBundle` from a controller. What decodes must survive its own encoding.
#![no_main]

use warren_common::proto::{decode_trust, encode_trust};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(bundle) = decode_trust(bytes) {
        let again = decode_trust(&encode_trust(&bundle));
        assert_eq!(again.ok().as_ref(), Some(&bundle), "what was accepted must survive the wire");
    }
});
