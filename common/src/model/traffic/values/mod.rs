//! The values of rules: what a header, a path, a host or an expression may be. Who makes rules and who applies them read them
//! by these functions, so that nothing is told to an agent that it cannot apply.

mod expression;
mod header;

pub use expression::{Expression, ExpressionError, Extent};
pub use header::{HeaderField, ValuePiece};

use crate::model::Authority;
use std::sync::Arc;

/// Why a rule can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// An expression.
    #[error(transparent)]
    Pattern(#[from] ExpressionError),
    /// A header's name.
    #[error("{0:?} is no name of a header")]
    HeaderName(Arc<str>),
    /// A header's value.
    #[error("{0:?} can't be the value of a header: it has a line break or another control character")]
    HeaderValue(Arc<str>),
    /// A substitution in a header's value.
    #[error("{text:?} in the value of a header is not supported: {why}")]
    Substitution {
        /// What stands between the percent signs.
        text: Arc<str>,
        /// Why not.
        why: &'static str,
    },
    /// A path of a rewrite or a redirect.
    #[error(
        "{0:?} can't be part of a path: blanks, control characters, `#`, `<`, `>`, backticks and letters that are not ASCII \
         are not allowed; write them as %20 and the like"
    )]
    Path(Arc<str>),
    /// A host of a rewrite or a redirect.
    #[error("{0:?} is no host, or host and port")]
    Authority(Arc<str>),
    /// A status.
    #[error("{0} is no status of an answer")]
    Status(u16),
}

/// Whether a text can be the path, or a part of it, of a request that is sent on or of `Location`. It may have a query.
///
/// # Errors
/// [`RuleError::Path`].
pub fn check_path(text: &Arc<str>) -> Result<(), RuleError> {
    match text.bytes().all(|byte| byte.is_ascii_graphic() && !b"#<>`".contains(&byte)) {
        true => Ok(()),
        false => Err(RuleError::Path(Arc::clone(text))),
    }
}

/// Whether a text is a host, or host and port.
///
/// # Errors
/// [`RuleError::Authority`].
pub fn check_authority(text: &Arc<str>) -> Result<(), RuleError> {
    match Authority::parse(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(RuleError::Authority(Arc::clone(text))),
    }
}

/// Whether a text can be the name of a header (RFC 9110, token).
pub fn is_header_name(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// Whether a header is the host.
pub fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_hosts() {
        for text in ["", "/", "/a", "a", "/a?b=c", "/%20", "/a|b{c}\"^\\"] {
            assert_eq!(check_path(&text.into()), Ok(()), "{text}");
        }
        for text in ["/a b", " ", "/a#b", "/a\r\n", "/ä", "/a<b", "/a>", "/`"] {
            assert!(matches!(check_path(&text.into()), Err(RuleError::Path(_))), "{text}");
        }
        for (text, is_host) in
            [("a", true), ("a.b:80", true), ("a b", false), ("http://x", false), ("x:0", false)]
        {
            assert_eq!(check_authority(&text.into()).is_ok(), is_host, "{text}");
        }
    }

    #[test]
    fn names_of_headers() {
        assert!(
            is_header_name("X-a_b")
                && !is_header_name("a b")
                && !is_header_name(":path")
                && !is_header_name("")
        );
        assert!(is_host("Host") && is_host(":authority") && !is_host(":path"));
    }
}
