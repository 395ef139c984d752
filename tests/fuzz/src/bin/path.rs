//! The path of a request, before rules see it. Normalised once, nothing is left to resolve.
#![no_main]

use warren_agent::route::http::{Normalization, normalize};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for how in [Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes] {
        let once = normalize(text, how);
        assert_eq!(normalize(&once, how), once, "once is enough");
        assert!(once.len() <= text.len(), "it only gets shorter");
        if text.starts_with('/') {
            assert!(once.starts_with('/'), "it stays a path");
            let read = once.replace("%2e", ".").replace("%2E", ".");
            assert!(!read.split('/').any(|segment| segment == "." || segment == ".."), "{once}");
        }
    }
});
