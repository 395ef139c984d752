//! What is asked for, read.

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Uri};
use std::net::IpAddr;
use warren_common::model::admin::WhyQuestion;

/// Why a question is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Where to.
    #[error(
        "{text:?} is nowhere to go: {why}\n  write http://web/path, or web:5432 for a connection that is not HTTP"
    )]
    To {
        /// What was written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The method.
    #[error("{0:?} is no method of a request")]
    Method(String),
    /// A header.
    #[error("{0:?} is no header; write 'Name: value'")]
    Header(String),
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Tls,
    Bytes,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) speaks: Speaks,
    /// A name, or an address.
    pub(super) host: String,
    pub(super) port: u16,
    /// The request, as its client would send it; of no use for anything but HTTP.
    pub(super) parts: Parts,
    pub(super) h2: bool,
    pub(super) is_grpc: bool,
    /// For people.
    pub(super) shown: String,
}

impl Ask {
    pub(super) fn new(question: &WhyQuestion) -> Result<Self, AskError> {
        let wrong = |why: &str| AskError::To { text: question.to.clone(), why: why.to_owned() };
        let to = question.to.split('#').next().unwrap_or_default();
        let (scheme, rest) = to.split_once("://").unwrap_or(("", to));
        let (speaks, port) = match scheme {
            "http" => (Speaks::Http, Some(80)),
            "grpc" => (Speaks::Http, None),
            "https" | "tls" => (Speaks::Tls, Some(443).filter(|_| scheme == "https")),
            "" | "tcp" => (Speaks::Bytes, None),
            _ => return Err(wrong("its scheme is none of http, https, grpc, tls and tcp")),
        };
        let start = rest.find(['/', '?']).unwrap_or(rest.len());
        let (written, target) = rest.split_at(start);
        if scheme.is_empty() && !target.is_empty() {
            return Err(wrong("it has no scheme"));
        }
        let authority: http::uri::Authority = written.parse().map_err(|error| wrong(&format!("{error}")))?;
        let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let port = authority.port_u16().or(port).ok_or_else(|| wrong("it has no port"))?;
        if host.is_empty() || written.contains('@') {
            return Err(wrong("it has no host, or more than one"));
        }
        let method = match &*question.method {
            "" if scheme == "grpc" => Method::POST,
            "" => Method::GET,
            method => method.parse().map_err(|_| AskError::Method(method.to_owned()))?,
        };
        let target = match target {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        let uri: Uri = target.parse().map_err(|error| wrong(&format!("{error}")))?;
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.uri) = (method, uri);
        parts.headers.insert(HOST, HeaderValue::from_str(written).map_err(|_| wrong("its host is none"))?);
        if scheme == "grpc" {
            parts.headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        for header in &question.headers {
            let (name, value) = read_header(header).ok_or_else(|| AskError::Header(header.clone()))?;
            // A client's own Host replaces that of the URL, as with curl.
            if name == HOST {
                parts.headers.remove(HOST);
            }
            parts.headers.append(name, value);
        }
        let content = parts.headers.get(http::header::CONTENT_TYPE);
        let is_grpc = content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"));
        let shown = match speaks {
            Speaks::Http => format!("{} http://{written}{target}", parts.method),
            Speaks::Tls => format!("TLS to {host}:{port}"),
            Speaks::Bytes => format!("connection to {written}"),
        };
        Ok(Self { speaks, host, port, parts, h2: question.h2 || is_grpc, is_grpc, shown })
    }

    /// The address, if it is one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The server name that a client of TLS sends.
    pub(super) fn server_name(&self) -> Option<&str> {
        (self.speaks == Speaks::Tls).then(|| if self.ip().is_some() { "" } else { &*self.host })
    }
}

fn read_header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
}
