//! Why a request goes where it goes, in words, by the table that routes it.

use super::condition::{PathPart, Unmet};
use super::request::RequestView;
use super::table::{Entry, HttpTable, Matched};
use std::fmt::Write as _;
use std::sync::Arc;
use warren_common::model::traffic::{HttpMatch, PathMatch, TextMatch};

/// A decision and how it was come to.
#[derive(Clone, Debug)]
pub struct Trace<'t> {
    /// Every match that was asked, in order; the last one holds if `matched` is some.
    pub steps: Vec<Step<'t>>,
    /// What [`HttpTable::route`] says.
    pub matched: Option<Matched<'t>>,
}

/// A match that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'t> {
    /// Its name in logs; may be empty.
    pub name: &'t Arc<str>,
    /// What it holds, in words: `path prefix /api, method GET`.
    pub wants: String,
    /// What was not met, in words; none: it holds.
    pub unmet: Option<String>,
}

impl HttpTable {
    /// [`Self::route`], and why.
    pub fn explain(&self, request: &RequestView<'_>) -> Trace<'_> {
        let mut steps = Vec::new();
        let matched = self.scan(request, |entry, checked| steps.push(step(entry, request, checked)));
        Trace { steps, matched }
    }
}

fn step<'t>(entry: &'t Entry, request: &RequestView<'_>, checked: Result<PathPart, Unmet>) -> Step<'t> {
    let wants = entry.wanted.as_deref().map_or_else(|| "every request".to_owned(), describe);
    let unmet = checked.err().and_then(|unmet| Some(why(entry.wanted.as_deref()?, request, unmet)));
    Step { name: &entry.name, wants, unmet }
}

/// A match in words.
pub fn describe(wanted: &HttpMatch) -> String {
    let mut parts = Vec::new();
    if let Some(path) = &wanted.path {
        let case = if wanted.ignore_path_case { ", case ignored" } else { "" };
        parts.push(format!("{}{case}", path_text(path)));
    }
    let one =
        |name: &str, text: &Option<TextMatch>| text.as_ref().map(|text| format!("{name}{}", wants(text)));
    parts.extend(one("method", &wanted.method));
    parts.extend(one("scheme", &wanted.scheme));
    parts.extend(one("authority", &wanted.authority));
    for header in &wanted.headers {
        let not = if header.not { "not " } else { "" };
        parts.push(format!("{not}header {}{}", header.name, wants(&header.value)));
    }
    for parameter in &wanted.query {
        parts.push(format!("query parameter {}{}", parameter.name, wants(&parameter.value)));
    }
    if parts.is_empty() { "every request".to_owned() } else { parts.join(", ") }
}

fn path_text(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(text) => format!("path {text}"),
        PathMatch::Prefix(text) => format!("path prefix {text}"),
        PathMatch::Segments(text) if text.is_empty() => "path prefix / (segments)".to_owned(),
        PathMatch::Segments(text) => format!("path prefix {text} (segments)"),
        PathMatch::Regex(text) => format!("path expression {text}"),
    }
}

fn wants(text: &TextMatch) -> String {
    match text {
        TextMatch::Present => " present".to_owned(),
        TextMatch::Exact(text) => format!(" {text:?}"),
        TextMatch::Prefix(text) => format!(" prefix {text:?}"),
        TextMatch::Regex(text) => format!(" expression {text:?}"),
    }
}

fn why(wanted: &HttpMatch, request: &RequestView<'_>, unmet: Unmet) -> String {
    match unmet {
        Unmet::Path => format!("the path is {}", request.path),
        Unmet::Method => format!("the method is {}", request.method),
        Unmet::Scheme => format!("the scheme is {}", request.scheme),
        Unmet::Authority => format!("the authority is {}", request.authority),
        Unmet::Header(index) => wanted.headers.get(index).map_or_else(String::new, |header| {
            has("header", &header.name, request.header(&header.name).as_deref())
        }),
        Unmet::Query(index) => wanted.query.get(index).map_or_else(String::new, |parameter| {
            has("query parameter", &parameter.name, request.parameter(&parameter.name).as_deref())
        }),
    }
}

fn has(kind: &str, name: &str, value: Option<&[u8]>) -> String {
    match value {
        None => format!("there is no {kind} {name}"),
        Some(value) => {
            let mut text = format!("the {kind} {name} is ");
            // Writing to a string does not fail.
            let _ = write!(text, "{:?}", String::from_utf8_lossy(value));
            text
        }
    }
}
