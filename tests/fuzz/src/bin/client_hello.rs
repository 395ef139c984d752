//! The first bytes of a connection, in which a server name is looked for: the answer is the same however they come.
#![no_main]

use warren_agent::policy::{ClientHello, ServerName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let at_once = ClientHello::default().read(bytes);
    let mut hello = ClientHello::default();
    let one_by_one = bytes.iter().find_map(|byte| hello.read(std::slice::from_ref(byte)));
    assert_eq!(at_once, one_by_one);
    if let Some(ServerName::Named(name)) = at_once {
        assert!(name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
    }
});
