//! The certificate a peer presents.
#![no_main]

use warren_agent::identity::peer_identity;

libfuzzer_sys::fuzz_target!(|der: &[u8]| {
    if let Ok(identity) = peer_identity(Some(&[der.into()]), "cluster.local") {
        assert_eq!(identity.trust_domain(), "cluster.local");
    }
});
