//! The conditions of one match, compiled.

use super::pattern::Patterns;
use super::request::RequestView;
use std::sync::Arc;
use warren_common::model::traffic::values::{Expression, ExpressionError, Extent};
use warren_common::model::traffic::{HttpMatch, PathMatch, TextMatch};

/// The condition that a request did not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The path's.
    Path,
    /// The method's.
    Method,
    /// The scheme's.
    Scheme,
    /// The authority's.
    Authority,
    /// That of the header of this index in the match.
    Header(usize),
    /// That of the query parameter of this index in the match.
    Query(usize),
}

/// What of the path was matched, for rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPart {
    /// Nothing: there is no condition.
    Unasked,
    /// All of it.
    Whole,
    /// So many bytes of its beginning.
    Prefix(usize),
}

/// Of a text.
#[derive(Debug)]
pub(super) enum Text {
    Present,
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Regex(Arc<Expression>),
}

impl Text {
    pub(super) fn new(wanted: &TextMatch, patterns: &Patterns) -> Result<Self, ExpressionError> {
        Ok(match wanted {
            TextMatch::Present => Self::Present,
            TextMatch::Exact(text) => Self::Exact(Arc::clone(text)),
            TextMatch::Prefix(text) => Self::Prefix(Arc::clone(text)),
            TextMatch::Regex(text) => Self::Regex(patterns.get(text, Extent::Whole)?),
        })
    }

    pub(super) fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(text) => *text.as_bytes() == *value,
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Regex(pattern) => pattern.regex().is_match(value),
        }
    }

    /// `not`: it must not hold, and what is absent counts as empty for a value.
    fn meets(&self, value: Option<&[u8]>, not: bool) -> bool {
        match (value, not, self) {
            (Some(value), ..) => self.holds(value) != not,
            (None, false, _) => false,
            (None, true, Self::Present) => true,
            (None, true, _) => !self.holds(b""),
        }
    }
}

/// Of a path. How it is found among thousands is the [index](super::index)'s business; this has the last word.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) test: PathTest,
    pub(super) ignore_case: bool,
}

#[derive(Debug)]
pub(super) enum PathTest {
    Any,
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Segments(Arc<str>),
    Regex(Arc<Expression>),
}

impl Path {
    pub(super) fn new(
        wanted: Option<&PathMatch>,
        ignore_case: bool,
        patterns: &Patterns,
    ) -> Result<Self, ExpressionError> {
        let test = match wanted {
            None => PathTest::Any,
            Some(PathMatch::Exact(text)) => PathTest::Exact(Arc::clone(text)),
            Some(PathMatch::Prefix(text)) => PathTest::Prefix(Arc::clone(text)),
            Some(PathMatch::Segments(text)) => PathTest::Segments(text.trim_end_matches('/').into()),
            Some(PathMatch::Regex(text)) => PathTest::Regex(patterns.get(text, Extent::Whole)?),
        };
        Ok(Self { test, ignore_case })
    }

    /// What of `path` is matched; none if it isn't.
    fn part(&self, path: &str) -> Option<PathPart> {
        let path = path.as_bytes();
        let begins = |with: &str| {
            let start = path.get(..with.len())?;
            let same = match self.ignore_case {
                true => start.eq_ignore_ascii_case(with.as_bytes()),
                false => *start == *with.as_bytes(),
            };
            same.then_some(PathPart::Prefix(with.len()))
        };
        match &self.test {
            PathTest::Any => Some(PathPart::Unasked),
            PathTest::Exact(text) => {
                begins(text).filter(|_| path.len() == text.len()).map(|_| PathPart::Whole)
            }
            PathTest::Prefix(text) => begins(text),
            PathTest::Segments(text) => {
                begins(text).filter(|_| matches!(path.get(text.len()), None | Some(b'/')))
            }
            PathTest::Regex(pattern) => pattern.regex().is_match(path).then_some(PathPart::Whole),
        }
    }
}

/// Everything that has to hold.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) path: Path,
    // Most matches have nothing but a path.
    others: Option<Box<Others>>,
}

#[derive(Debug, Default)]
struct Others {
    method: Option<Text>,
    scheme: Option<Text>,
    authority: Option<Text>,
    headers: Box<[Header]>,
    query: Box<[(Arc<str>, Text)]>,
}

#[derive(Debug)]
struct Header {
    name: Arc<str>,
    value: Text,
    not: bool,
}

impl Conditions {
    pub(super) fn new(wanted: &HttpMatch, patterns: &Patterns) -> Result<Self, ExpressionError> {
        let path = Path::new(wanted.path.as_ref(), wanted.ignore_path_case, patterns)?;
        let text = |wanted: &Option<TextMatch>| {
            wanted.as_ref().map(|wanted| Text::new(wanted, patterns)).transpose()
        };
        let headers: Result<_, _> = wanted
            .headers
            .iter()
            .map(|header| {
                let value = Text::new(&header.value, patterns)?;
                Ok(Header { name: Arc::clone(&header.name), value, not: header.not })
            })
            .collect();
        let query: Result<_, _> = wanted
            .query
            .iter()
            .map(|parameter| Ok((Arc::clone(&parameter.name), Text::new(&parameter.value, patterns)?)))
            .collect();
        let others = Others {
            method: text(&wanted.method)?,
            scheme: text(&wanted.scheme)?,
            authority: text(&wanted.authority)?,
            headers: headers?,
            query: query?,
        };
        let others = (!others.is_empty()).then(|| Box::new(others));
        Ok(Self { path, others })
    }

    /// Whether every request meets them: what comes after is never reached.
    pub(super) fn hold_everything(&self, wanted: &HttpMatch) -> bool {
        let any_path = match &self.path.test {
            PathTest::Any => true,
            PathTest::Prefix(text) => matches!(&**text, "" | "/"),
            PathTest::Segments(text) => text.is_empty(),
            PathTest::Regex(_) => {
                matches!(&wanted.path, Some(PathMatch::Regex(text)) if **text == *".*")
            }
            PathTest::Exact(_) => false,
        };
        any_path && self.others.is_none()
    }

    /// What of the path is matched, if everything holds.
    pub(super) fn check(&self, request: &RequestView<'_>) -> Result<PathPart, Unmet> {
        let part = self.path.part(request.path).ok_or(Unmet::Path)?;
        match &self.others {
            None => Ok(part),
            Some(others) => others.check(request).map(|()| part),
        }
    }
}

impl Others {
    fn is_empty(&self) -> bool {
        let Self { method, scheme, authority, headers, query } = self;
        method.is_none() && scheme.is_none() && authority.is_none() && headers.is_empty() && query.is_empty()
    }

    fn check(&self, request: &RequestView<'_>) -> Result<(), Unmet> {
        let holds =
            |text: &Option<Text>, value: &str| text.as_ref().is_none_or(|text| text.holds(value.as_bytes()));
        if !holds(&self.method, request.method) {
            return Err(Unmet::Method);
        }
        if !holds(&self.scheme, request.scheme) {
            return Err(Unmet::Scheme);
        }
        if !holds(&self.authority, request.authority) {
            return Err(Unmet::Authority);
        }
        for (index, header) in self.headers.iter().enumerate() {
            let value = request.header(&header.name);
            if !header.value.meets(value.as_deref(), header.not) {
                return Err(Unmet::Header(index));
            }
        }
        for (index, (name, value)) in self.query.iter().enumerate() {
            if !value.meets(request.parameter(name).as_deref(), false) {
                return Err(Unmet::Query(index));
            }
        }
        Ok(())
    }
}
