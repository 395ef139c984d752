//! A request as rules see it, and what they change of it: pure, for who sends it on and for who only explains it.

use super::headers::ORIGINAL_PATH;
use crate::route::http::{BackendRule, Normalization, PathPart, RequestView, Rule, Values, normalize};
use http::header::{HOST, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;
use warren_common::model::{Authority, AuthorityError};

/// A request as its client sent it: what rules match, and what changes of headers may name.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(super) method: Method,
    pub(super) authority: String,
    path: String,
    query: Option<String>,
    pub(super) headers: HeaderMap,
    start: SystemTime,
}

/// `Host` is none.
#[derive(Debug, thiserror::Error)]
#[error("Host is not usable: {0}")]
pub(crate) struct BadHost(#[from] AuthorityError);

impl Asked {
    /// Reads a request that came at `start`; its path is written in one way from here on.
    ///
    /// # Errors
    /// [`BadHost`].
    pub(crate) fn read(parts: &mut Parts, start: SystemTime) -> Result<Self, BadHost> {
        let authority = host_of(parts)?;
        normalise(parts);
        Ok(Self {
            method: parts.method.clone(),
            authority,
            path: if parts.method == Method::CONNECT { String::new() } else { parts.uri.path().to_owned() },
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers.clone(),
            start,
        })
    }

    /// As rules see it.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: self.method.as_str(),
            scheme: "http",
            authority: &self.authority,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }

    pub(super) fn values<'a>(
        &self,
        view: &'a RequestView<'a>,
        response: Option<&'a HeaderMap>,
        remote: SocketAddr,
    ) -> Values<'a> {
        Values { request: view, response, remote, start: self.start }
    }

    /// What rule and backend change on the way there, for a client at `remote`.
    pub(crate) fn change(
        &self,
        rule: &Rule,
        backend: &BackendRule,
        part: PathPart,
        remote: SocketAddr,
        parts: &mut Parts,
    ) {
        let view = self.view();
        let values = self.values(&view, None, remote);
        let by_rule = rule.request_headers.prepare(&values).apply(&mut parts.headers);
        let by_backend = backend.request_headers.prepare(&values).apply(&mut parts.headers);
        let rewrite = backend.rewrite.as_ref();
        let authority = rewrite.and_then(|rewrite| rewrite.authority.clone()).or(by_rule).or(by_backend);
        // What a rule puts together of the request's own headers may be none; then the client's stays.
        let is_one = |value: &HeaderValue| value.to_str().is_ok_and(|text| Authority::parse(text).is_ok());
        if let Some(authority) = authority.filter(is_one) {
            set_authority(parts, &authority);
        }
        if let Some(path) = rewrite.and_then(|rewrite| rewrite.path_and_query(&view, part)) {
            let before =
                parts.uri.path_and_query().and_then(|path| HeaderValue::from_str(path.as_str()).ok());
            if set_path(parts, &path)
                && let Some(before) = before
            {
                parts.headers.insert(ORIGINAL_PATH, before);
            }
        }
    }
}

/// The host, which must be one.
fn host_of(parts: &Parts) -> Result<String, BadHost> {
    let host = parts.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let written = match (parts.uri.authority(), host) {
        (Some(authority), _) => authority.as_str().to_owned(),
        (None, Some(host)) => host.into_owned(),
        // HTTP/1.0 knows none.
        (None, None) => return Ok(String::new()),
    };
    Authority::parse(&written)?;
    Ok(written)
}

/// Written in one way, before anybody looks at it.
fn normalise(parts: &mut Parts) {
    if let Cow::Owned(path) = normalize(parts.uri.path(), Normalization::Base) {
        let path = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        set_path(parts, &path);
    }
}

fn set_path(parts: &mut Parts, path: &str) -> bool {
    let Ok(path) = path.parse() else { return false };
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = Some(path);
    match Uri::from_parts(uri) {
        Ok(uri) => {
            parts.uri = uri;
            true
        }
        Err(_) => false,
    }
}

pub(super) fn set_authority(parts: &mut Parts, authority: &HeaderValue) {
    parts.headers.insert(HOST, authority.clone());
    let mut uri = parts.uri.clone().into_parts();
    if uri.authority.is_some()
        && let Ok(authority) = authority.as_bytes().try_into()
    {
        uri.authority = Some(authority);
        parts.uri = Uri::from_parts(uri).unwrap_or_else(|_| parts.uri.clone());
    }
}
