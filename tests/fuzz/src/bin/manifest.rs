//! Manifests: YAML of any kind, broken or hostile.
#![no_main]

use warren_controller::source::manifests::parse;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = parse(text) {
        assert!(
            error.line as usize <= text.lines().count() + 1,
            "a line that the file does not have: {error}"
        );
    }
});
