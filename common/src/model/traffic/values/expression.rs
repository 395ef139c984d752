//! RE2 expressions.

use regex::bytes::{Regex, RegexBuilder};
use std::sync::Arc;

/// Longer expressions are refused: no API of ours allows more.
const MAX_LENGTH: usize = 4096;
/// Bytes of a compiled expression, and of what it keeps while it searches.
const MAX_SIZE: usize = 1 << 20;
/// Nested groups.
const MAX_DEPTH: u32 = 50;

/// A compiled expression, matched in linear time.
#[derive(Clone, Debug)]
pub struct Expression(Regex);

/// Why an expression can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Not RE2, or too large when compiled.
    #[error("{pattern:?} is not a regular expression that can be used (RE2): {why}")]
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
pub enum Extent {
    /// All of the text.
    Whole,
    /// Any part of it.
    Part,
}

impl Expression {
    /// Compiles one.
    ///
    /// # Errors
    /// [`ExpressionError`].
    pub fn new(text: &str, extent: Extent) -> Result<Self, ExpressionError> {
        if text.len() > MAX_LENGTH {
            return Err(ExpressionError::TooLong(text.len()));
        }
        let invalid = |error: &regex::Error| ExpressionError::Invalid {
            pattern: text.into(),
            // The last line of a syntax error says what it is; those before draw where.
            why: error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .trim()
                .to_owned(),
        };
        let whole = || build(&format!(r"\A(?:{text})\z"));
        let built = match extent {
            Extent::Part => build(text),
            // By itself first: `a)(b` must not become an expression by what is put around it. Nothing else can.
            Extent::Whole if text.contains(')') => build(text).and_then(|_| whole()),
            Extent::Whole => whole().map_err(|error| build(text).err().unwrap_or(error)),
        };
        built.map(Self).map_err(|error| invalid(&error))
    }

    /// The machine.
    pub fn regex(&self) -> &Regex {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<Expression, ExpressionError> {
        Expression::new(text, Extent::Whole)
    }

    #[test]
    fn all_of_the_text_has_to_match() {
        let holds = |pattern: &str, text: &str| whole(pattern).unwrap().regex().is_match(text.as_bytes());
        assert!(holds("/v[12]/.*", "/v1/a") && !holds("/v[12]", "/v1/a") && !holds("v1", "/v1"));
        assert!(holds("a|b", "b") && !holds("a|b", "ab"), "alternatives are one expression");
        assert!(!holds(r"\d+", "٣") && holds(r"\p{Nd}+", "٣"), "classes are ASCII, as in RE2");
        assert!(
            holds(r"/users/[\w-]{36}", "/users/0b5f1c2e-3d4a-4f6b-8c7d-9e0f1a2b3c4d"),
            "small, for they are ASCII"
        );
        assert!(holds(".*", "caf\u{e9}"));
        assert!(!holds("a", "a\n"));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_a_reason() {
        let nested = format!("{}a{}", "(".repeat(60), ")".repeat(60));
        for (pattern, why) in [
            ("a)(b", "unopened group"),
            ("a)", "unopened group"),
            ("(a", "unclosed group"),
            ("[a", "unclosed character class"),
            ("a\\", "incomplete escape"),
            ("(?x)a#", "unclosed group"),
            ("(?=a)", "look-around"),
            (r"(a)\1", "backreferences are not supported"),
            ("(a{1000}){1000}", "exceeds size limit"),
            (&nested, "exceed the maximum number of nested"),
        ] {
            let error = whole(pattern).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
        assert_eq!(whole(&"a".repeat(5000)).unwrap_err(), ExpressionError::TooLong(5000));
    }

    #[test]
    fn time_is_linear_in_the_text() {
        // Minutes for a matcher that backtracks.
        assert!(!whole("(a*)*b").unwrap().regex().is_match("a".repeat(50_000).as_bytes()));
    }

    proptest::proptest! {
        /// What surrounds an expression never makes one of what is none.
        #[test]
        fn what_is_none_by_itself_is_none(text in r"[ab()\[\]{}|*?\\#^$:x1-]{0,8}") {
            let alone = Expression::new(&text, Extent::Part);
            proptest::prop_assert!(alone.is_ok() || whole(&text).is_err(), "{}", text);
        }
    }
}
