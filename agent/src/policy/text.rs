//! Texts against patterns, without allocating.

use std::collections::HashSet;
use std::sync::Arc;
use warren_common::model::{Identity, StringMatch};

/// The longest principal: trust domain 255, namespace 63, service account 253, and what is between.
const LONGEST: usize = 255 + 63 + 253 + "/ns/".len() + "/sa/".len();

/// A list of patterns: what is exact is looked up, however many there are.
#[derive(Debug, Default)]
pub(super) struct Texts {
    exact: HashSet<Arc<str>>,
    patterns: Vec<StringMatch>,
}

impl Texts {
    pub(super) fn new(list: &[StringMatch]) -> Option<Self> {
        let mut texts = Self::default();
        for one in list {
            match one {
                StringMatch::Exact(text) => {
                    texts.exact.insert(text.clone());
                }
                pattern => texts.patterns.push(pattern.clone()),
            }
        }
        (!list.is_empty()).then_some(texts)
    }

    /// Whether any of them matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        // What is not there is like nothing.
        !text.is_empty()
            && (self.exact.contains(text) || self.patterns.iter().any(|pattern| matches(pattern, text)))
    }
}

/// Patterns for principals.
#[derive(Debug, Default)]
pub(super) struct Principals {
    exact: HashSet<Identity>,
    patterns: Vec<StringMatch>,
}

impl Principals {
    pub(super) fn new(list: &[StringMatch]) -> Option<Self> {
        let mut principals = Self::default();
        for one in list {
            match one {
                // What is no identity is nobody's.
                StringMatch::Exact(text) => {
                    principals.exact.extend(format!("spiffe://{text}").parse::<Identity>())
                }
                pattern => principals.patterns.push(pattern.clone()),
            }
        }
        (!list.is_empty()).then_some(principals)
    }

    /// Whether any of them matches; nobody does without an identity.
    pub(super) fn matches(&self, source: Option<&Identity>) -> bool {
        let Some(identity) = source else { return false };
        if self.exact.contains(identity) {
            return true;
        }
        if self.patterns.is_empty() {
            return false;
        }
        let mut buffer = [0; LONGEST];
        let text = principal(identity, &mut buffer);
        self.patterns.iter().any(|pattern| matches(pattern, text))
    }
}

/// `<trust domain>/ns/<namespace>/sa/<service account>`; empty should it ever not fit.
fn principal<'a>(identity: &Identity, buffer: &'a mut [u8; LONGEST]) -> &'a str {
    let mut length = 0;
    let parts = [identity.trust_domain(), "/ns/", identity.namespace(), "/sa/", identity.service_account()];
    for part in parts {
        let Some(place) = buffer.get_mut(length..length + part.len()) else { return "" };
        place.copy_from_slice(part.as_bytes());
        length += part.len();
    }
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// `text` is not empty.
fn matches(pattern: &StringMatch, text: &str) -> bool {
    match pattern {
        StringMatch::Exact(exact) => text == &**exact,
        StringMatch::Prefix(prefix) => text.starts_with(&**prefix),
        StringMatch::Suffix(suffix) => text.ends_with(&**suffix),
        StringMatch::Presence => true,
        StringMatch::Glob(glob) => matches_glob(glob, text),
    }
}

/// Each star stands for any text, also none. In O(n) stars, each looked for from where the last one ended.
fn matches_glob(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_identity_has_a_principal() {
        let [domain, namespace, account] = [255, 63, 253].map(|length| "a".repeat(length));
        let identity = Identity::new(&domain, &namespace, &account).unwrap();
        let whole = identity.to_string();
        assert_eq!(principal(&identity, &mut [0; LONGEST]), whole.strip_prefix("spiffe://").unwrap());
    }

    /// As slow and as plain as it gets.
    fn glob_by_trying(glob: &[u8], text: &[u8]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| glob_by_trying(rest, &text[skip..])),
            (Some((letter, rest)), Some((other, text))) => letter == other && glob_by_trying(rest, text),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_trying_everything(glob in "[ab*]{0,7}", text in "[ab]{0,9}") {
            prop_assert_eq!(matches_glob(&glob, &text), glob_by_trying(glob.as_bytes(), text.as_bytes()));
        }
    }
}
