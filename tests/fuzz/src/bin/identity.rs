//! SPIFFE IDs. What parses must print as it was written.
#![no_main]

use warren_common::model::Identity;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
    }
});
