//! CNI configurations: what a container runtime hands the plugin, and what a network's provider has written.
#![no_main]

use warren_cni::{Entry, Environment, conflist, invoke};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for command in ["STATUS", "VERSION", "ADD"] {
        // Without a pod in its arguments ADD goes as far as the previous result.
        let environment = Environment { command: Some(command.to_owned()), ..Environment::default() };
        let outcome = invoke(&environment, Ok(text.to_owned()));
        assert!(outcome.success || outcome.output.contains("\"code\":"), "{outcome:?}");
    }
    let _ = conflist::convert(text, &Entry::default());
    if let (Ok(Some(added)), Ok(None)) = (conflist::add(text, &Entry::default()), conflist::remove(text)) {
        assert!(matches!(conflist::add(&added, &Entry::default()), Ok(None)));
        assert_eq!(conflist::remove(&added).ok().flatten().as_deref(), Some(text));
    }
});
