//! RE2 expressions: compiled once for all tables, matched in linear time.

use parking_lot::Mutex;
use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Longer expressions are refused: no API of ours allows more.
const MAX_LENGTH: usize = 4096;
/// Bytes of a compiled expression, and of what it keeps while it searches.
const MAX_SIZE: usize = 1 << 20;
/// Nested groups.
const MAX_DEPTH: u32 = 50;

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

/// Why an expression can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not RE2, or too large when compiled.
    #[error("{pattern:?} is not a usable regular expression: {why}")]
    Invalid {
        /// The expression.
        pattern: Arc<str>,
        /// What is wrong.
        why: String,
    },
    /// Its text is too long.
    #[error("a regular expression of {0} bytes is too long: {MAX_LENGTH} are allowed")]
    TooLong(usize),
}

/// What an expression has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// All of the text.
    Whole,
    /// Any part of it.
    Part,
}

impl Pattern {
    fn new(text: &Arc<str>, extent: Extent) -> Result<Self, PatternError> {
        if text.len() > MAX_LENGTH {
            return Err(PatternError::TooLong(text.len()));
        }
        let invalid = |error: &regex::Error| PatternError::Invalid {
            pattern: Arc::clone(text),
            // The last line of a syntax error says what it is; those before draw where.
            why: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        };
        // By itself first: `a)(b` must not become an expression by what is put around it.
        let alone = build(text).map_err(|error| invalid(&error))?;
        Ok(Self(match extent {
            Extent::Part => alone,
            Extent::Whole => build(&format!(r"\A(?:{text})\z")).map_err(|error| invalid(&error))?,
        }))
    }

    pub(super) fn holds(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    pub(super) fn regex(&self) -> &Regex {
        &self.0
    }
}

/// As RE2 reads it: `\d`, `\w` and `\s` are ASCII. What only makes sense with Unicode (`\p{L}`) is read with it.
fn build(text: &str) -> Result<Regex, regex::Error> {
    let with = |unicode| {
        RegexBuilder::new(text)
            .unicode(unicode)
            .size_limit(MAX_SIZE)
            .dfa_size_limit(MAX_SIZE)
            .nest_limit(MAX_DEPTH)
            .build()
    };
    with(false).or_else(|_| with(true))
}

/// Expressions in use, so that each is compiled once however many clients, services and versions name it.
#[derive(Debug, Default)]
pub struct Patterns {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    patterns: HashMap<(Extent, Arc<str>), Weak<Pattern>>,
    /// With so many, those that nobody uses any more are forgotten.
    full: usize,
}

impl Patterns {
    pub(super) fn get(&self, text: &Arc<str>, extent: Extent) -> Result<Arc<Pattern>, PatternError> {
        let mut known = self.known.lock();
        let key = (extent, Arc::clone(text));
        if let Some(pattern) = known.patterns.get(&key).and_then(Weak::upgrade) {
            return Ok(pattern);
        }
        let pattern = Arc::new(Pattern::new(text, extent)?);
        if known.patterns.len() >= known.full {
            known.patterns.retain(|_, pattern| pattern.strong_count() > 0);
            known.full = 64 + 2 * known.patterns.len();
        }
        known.patterns.insert(key, Arc::downgrade(&pattern));
        Ok(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str, text: &str) -> bool {
        Patterns::default().get(&pattern.into(), Extent::Whole).unwrap().holds(text.as_bytes())
    }

    #[test]
    fn all_of_the_text_has_to_match() {
        assert!(whole("/v[12]/.*", "/v1/a") && !whole("/v[12]", "/v1/a") && !whole("v1", "/v1"));
        assert!(whole("a|b", "b") && !whole("a|b", "ab"), "alternatives are one expression");
        assert!(!whole(r"\d+", "٣") && whole(r"\p{Nd}+", "٣"), "classes are ASCII, as in RE2");
        assert!(whole(".*", "caf\u{e9}"));
        assert!(!whole("a", "a\n"));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        let patterns = Patterns::default();
        for (pattern, why) in [
            ("a)(b", "unopened group"),
            ("(a", "unclosed group"),
            ("(?=a)", "look-around"),
            (r"(a)\1", "backreferences are not supported"),
            ("(a{1000}){1000}", "exceeds size limit"),
        ] {
            let error = patterns.get(&pattern.into(), Extent::Whole).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
        let long = "a".repeat(5000);
        assert_eq!(patterns.get(&long.into(), Extent::Whole).unwrap_err(), PatternError::TooLong(5000));
    }

    #[test]
    fn equal_expressions_are_shared_and_forgotten_with_their_last_user() {
        let patterns = Patterns::default();
        let get = |text: &str| patterns.get(&text.into(), Extent::Whole).unwrap();
        let first = get("a+");
        assert!(Arc::ptr_eq(&first, &get("a+")));
        for n in 0..1000 {
            get(&format!("b{n}"));
        }
        assert!(patterns.known.lock().patterns.len() <= 66);
        assert!(Arc::ptr_eq(&first, &get("a+")));
    }

    #[test]
    fn time_is_linear_in_the_text() {
        // Minutes for a matcher that backtracks.
        assert!(!whole("(a*)*b", &"a".repeat(50_000)));
    }
}
