//! Texts that come again and again: methods, hosts, user agents. Records of requests share them instead of having copies, which
//! saves allocations, and memory in the ring of closed flows.

use foldhash::fast::FixedState;
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Texts that a thread keeps. A longer list would not be in its cache.
const KEPT: usize = 256;
/// Longer ones are seldom the same, bytes.
const LONGEST: usize = 128;

thread_local! {
    static WORDS: RefCell<Vec<Option<Arc<str>>>> = RefCell::new(vec![None; KEPT]);
}

/// The text, shared with who asked for the same a while ago on this thread.
pub(crate) fn shared(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return text.into();
    }
    let place = FixedState::default().hash_one(text) as usize % KEPT;
    WORDS.with_borrow_mut(|words| match words.get_mut(place) {
        Some(Some(word)) if **word == *text => Arc::clone(word),
        Some(word) => Arc::clone(word.insert(text.into())),
        None => text.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_the_same_allocation() {
        let (one, other) = (shared("GET"), shared("GET"));
        assert!(*one == *"GET" && Arc::ptr_eq(&one, &other));
        let long = "x".repeat(LONGEST + 1);
        assert!(*shared(&long) == *long && !Arc::ptr_eq(&shared(&long), &shared(&long)));
        // However many there are, each is what was asked for.
        for number in 0..10 * KEPT {
            assert_eq!(*shared(&number.to_string()), *number.to_string());
        }
    }
}
