//! Manifests: YAML of any kind, broken or hostile. What is read is resolved too, and as JSON it goes through the
//! door that the API server's objects come by.
#![no_main]

use warren_controller::index::Index;
use warren_controller::resolve::{ResolveConfig, resolve};
use warren_controller::source::manifests::parse;
use warren_controller::source::{BUILT_IN_KINDS, CUSTOM_KINDS, Change};

/// A reason is a sentence or two, whatever it quotes.
const LONGEST_REASON: usize = 4096;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(parsed) => {
            let config = ResolveConfig {
                cluster: "c".into(),
                cluster_domain: "cluster.local".into(),
                trust_domain: "cluster.local".into(),
            };
            let mut index = Index::default();
            for object in parsed.objects {
                for key in index.apply(&Change::Upsert(object)) {
                    resolve(&index, &config, &key);
                }
            }
        }
        Err(error) => {
            let lines = text.lines().count();
            assert!(error.line as usize <= lines + 1, "a line that the file does not have: {error}");
            assert!(error.reason.len() <= LONGEST_REASON, "{} bytes of reason", error.reason.len());
        }
    }
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        for served in BUILT_IN_KINDS.iter().chain(CUSTOM_KINDS) {
            if let Err(error) = served.object(value.clone()) {
                assert!(error.to_string().len() <= LONGEST_REASON, "{served:?}");
            }
        }
    }
});
