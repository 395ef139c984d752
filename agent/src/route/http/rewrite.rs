//! Another host and path for a request that is sent on.

use super::condition::PathPart;
use super::pattern::Patterns;
use super::request::RequestView;
use http::HeaderValue;
use regex::bytes::Captures;
use std::sync::Arc;
use warren_common::model::traffic::values::{Expression, Extent, RuleError, check_authority, check_path};
use warren_common::model::traffic::{PathChange, Rewrite};

/// Another host and path.
#[derive(Debug)]
pub struct Rewriter {
    /// Instead of the host.
    pub authority: Option<HeaderValue>,
    path: Option<PathEdit>,
}

impl Rewriter {
    pub(super) fn new(rewrite: &Rewrite, patterns: &Patterns) -> Result<Self, RuleError> {
        let path = rewrite.path.as_ref().map(|change| PathEdit::new(change, patterns)).transpose()?;
        Ok(Self { authority: rewrite.authority.as_ref().map(authority).transpose()?, path })
    }

    /// The path and query that are asked for; none: as they are.
    pub fn path_and_query(&self, request: &RequestView<'_>, part: PathPart) -> Option<String> {
        let path = self.path.as_ref()?.apply(request.path, part)?;
        Some(with_query(path, request.query))
    }
}

/// A host, or host and port, as a header's value.
fn authority(text: &Arc<str>) -> Result<HeaderValue, RuleError> {
    check_authority(text)?;
    HeaderValue::from_str(text).map_err(|_| RuleError::Authority(Arc::clone(text)))
}

/// `path` with the query of the request, unless it brings its own.
pub(super) fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query
        && !path.contains('?')
    {
        path.push('?');
        path.push_str(query);
    }
    path
}

/// What becomes of a path.
#[derive(Debug)]
pub(super) enum PathEdit {
    Full(Arc<str>),
    Prefix(Arc<str>),
    Segments(Arc<str>),
    Regex(Arc<Expression>, Vec<Piece>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

impl PathEdit {
    pub(super) fn new(change: &PathChange, patterns: &Patterns) -> Result<Self, RuleError> {
        let checked = |text: &Arc<str>| check_path(text).map(|()| Arc::clone(text));
        Ok(match change {
            PathChange::Full(text) => Self::Full(checked(text)?),
            PathChange::Prefix(text) => Self::Prefix(checked(text)?),
            PathChange::Segments(text) => Self::Segments(checked(text)?.trim_end_matches('/').into()),
            PathChange::Regex { pattern, substitution } => {
                let pattern = patterns.get(pattern, Extent::Part)?;
                let pieces = pieces(&checked(substitution)?);
                Self::Regex(pattern, pieces)
            }
        })
    }

    /// The other path; none for what has no path (`*`, CONNECT) and where nothing changes.
    pub(super) fn apply(&self, path: &str, part: PathPart) -> Option<String> {
        if !path.starts_with('/') {
            return None;
        }
        let after = |length: usize| path.get(length..).unwrap_or_default();
        let changed = match (self, part) {
            (Self::Full(text), _) | (Self::Prefix(text), PathPart::Whole | PathPart::Unasked) => {
                text.to_string()
            }
            (Self::Prefix(text), PathPart::Prefix(length)) => [text, after(length)].concat(),
            (Self::Segments(text), PathPart::Whole) => in_segments(text, ""),
            (Self::Segments(text), PathPart::Unasked) => in_segments(text, path),
            (Self::Segments(text), PathPart::Prefix(length)) => in_segments(text, after(length)),
            (Self::Regex(pattern, pieces), _) => {
                let expand = |found: &Captures<'_>| -> Vec<u8> {
                    let piece = |piece: &Piece| match piece {
                        Piece::Text(text) => text.clone(),
                        Piece::Group(index) => {
                            found.get(*index).map_or(vec![], |group| group.as_bytes().to_vec())
                        }
                    };
                    pieces.iter().map(piece).collect::<Vec<_>>().concat()
                };
                let changed = pattern.regex().replace_all(path.as_bytes(), expand);
                String::from_utf8_lossy(&changed).into_owned()
            }
        };
        // Whatever was put in its place: it is a path.
        Some(if changed.starts_with('/') { changed } else { format!("/{changed}") })
    }
}

/// Never an empty path, never two slashes.
fn in_segments(replacement: &str, rest: &str) -> String {
    match (replacement, rest) {
        ("", "") => "/".to_owned(),
        (_, "") => replacement.to_owned(),
        _ if rest.starts_with('/') => [replacement, rest].concat(),
        _ => [replacement, "/", rest].concat(),
    }
}

/// RE2's substitutions: `\0` to `\9` are groups, `\\` is one backslash.
fn pieces(substitution: &str) -> Vec<Piece> {
    let (mut pieces, mut text) = (Vec::new(), Vec::new());
    let mut bytes = substitution.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.clone().next()) {
            (b'\\', Some(digit @ b'0'..=b'9')) => {
                bytes.next();
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Group(usize::from(digit - b'0')));
            }
            (b'\\', Some(b'\\')) => {
                bytes.next();
                text.push(b'\\');
            }
            _ => text.push(byte),
        }
    }
    pieces.push(Piece::Text(text));
    pieces.retain(|piece| *piece != Piece::Text(Vec::new()));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(change: &PathChange, path: &str, part: PathPart) -> String {
        let edit = PathEdit::new(change, &Patterns::default()).unwrap();
        edit.apply(path, part).unwrap_or_else(|| "as it was".into())
    }

    #[test]
    fn prefixes_of_istio_are_letters() {
        for (text, path, part, changed) in [
            ("/v2", "/v1/a", PathPart::Prefix(3), "/v2/a"),
            ("/v2/", "/v1/a", PathPart::Prefix(3), "/v2//a"),
            ("/", "/foo/bar", PathPart::Prefix(4), "//bar"),
            ("/b", "/foobar", PathPart::Prefix(4), "/bbar"),
            ("/v2", "/v1/a", PathPart::Whole, "/v2"),
            ("/v2", "/v1/a", PathPart::Unasked, "/v2"),
            ("v2", "/v1/a", PathPart::Prefix(3), "/v2/a"),
            ("v2", "/v1/a", PathPart::Whole, "/v2"),
            ("/v2", "*", PathPart::Unasked, "as it was"),
            ("/v2", "", PathPart::Unasked, "as it was"),
        ] {
            assert_eq!(edit(&PathChange::Prefix(text.into()), path, part), changed, "{text} {path}");
        }
    }

    #[test]
    fn prefixes_of_the_gateway_api_are_segments() {
        // The table of ReplacePrefixMatch.
        for (path, prefix, text, changed) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
            // What the CRD lets through besides.
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
            ("/foo", "/foo", "xyz/", "/xyz"),
        ] {
            let change = PathChange::Segments(text.into());
            assert_eq!(edit(&change, path, PathPart::Prefix(prefix.len())), changed, "{path} {text}");
        }
        assert_eq!(edit(&PathChange::Segments("/x".into()), "/a", PathPart::Unasked), "/x/a");
    }

    #[test]
    fn expressions_substitute_groups() {
        let change = |pattern: &str, substitution: &str| PathChange::Regex {
            pattern: pattern.into(),
            substitution: substitution.into(),
        };
        for (pattern, substitution, path, changed) in [
            ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("b", r"\0\0\\\9", "/abc", r"/abb\c"),
            ("nothing", "x", "/abc", "/abc"),
            ("^/a/(.*)$", r"\1", "/a/b", "/b"),
            (".*", "", "/a", "/"),
        ] {
            assert_eq!(edit(&change(pattern, substitution), path, PathPart::Whole), changed, "{pattern}");
        }
    }

    #[test]
    fn queries_stay_and_bad_paths_are_refused() {
        let headers = http::HeaderMap::new();
        let request = RequestView {
            method: "GET",
            scheme: "http",
            authority: "web",
            path: "/a",
            query: Some("q=1"),
            headers: &headers,
        };
        let rewriter = |path: &str, authority: Option<&str>| {
            let path = Some(PathChange::Full(path.into()));
            Rewriter::new(&Rewrite { authority: authority.map(Into::into), path }, &Patterns::default())
        };
        let changed = |path| rewriter(path, None).unwrap().path_and_query(&request, PathPart::Whole);
        assert_eq!(changed("/b").as_deref(), Some("/b?q=1"));
        assert_eq!(changed("/b?x").as_deref(), Some("/b?x"));
        assert_eq!(changed("new").as_deref(), Some("/new?q=1"));
        assert_eq!(changed("").as_deref(), Some("/?q=1"));
        for path in ["/a b", "/a#b", "/a\r\n", "/ä"] {
            assert!(matches!(rewriter(path, None), Err(RuleError::Path(_))), "{path}");
        }
        assert!(matches!(rewriter("/", Some("a b")), Err(RuleError::Authority(_))));
    }
}
