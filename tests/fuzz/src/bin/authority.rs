//! `Host` and `:authority` of a request. What is read can be written again and is the same.
#![no_main]

use warren_agent::route::http::shadow;
use warren_common::model::Authority;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(authority) = Authority::parse(text) {
        assert!(!authority.host.is_empty() && authority.port != Some(0));
        let written = match authority.port {
            Some(port) => format!("{}:{port}", authority.host),
            None => authority.host.to_owned(),
        };
        assert_eq!(Authority::parse(&written), Ok(authority), "what was read must read the same again");
        assert!(Authority::parse(&shadow("web")).is_ok());
        assert!(http::uri::Authority::try_from(&*written).is_ok(), "other readers must agree: {written}");
    }
});
