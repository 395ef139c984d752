//! What comes over the agent's CNI socket. A request that is understood is written as it was meant.
#![no_main]

use warren_cni::frame::{decode, encode};
use warren_common::model::cni::Request;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(request)) = decode::<Request>(bytes) {
        let again = encode(&request).expect("a message as short as the one it came in");
        assert_eq!(decode(&again).expect("our own"), Some(request));
    }
});
