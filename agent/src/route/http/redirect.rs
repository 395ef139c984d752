//! Answers that send a client elsewhere.

use super::authority::split_port;
use super::condition::PathPart;
use super::pattern::Patterns;
use super::request::RequestView;
use super::rewrite::{PathEdit, with_query};
use std::sync::Arc;
use warren_common::model::traffic::values::{RuleError, check_authority};
use warren_common::model::traffic::{Redirect, RedirectPort};

/// An answer that sends a client elsewhere.
#[derive(Debug)]
pub struct Redirection {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    scheme: Option<Arc<str>>,
    authority: Option<Arc<str>>,
    port: RedirectPort,
    path: Option<PathEdit>,
}

impl Redirection {
    pub(super) fn new(redirect: &Redirect, patterns: &Patterns) -> Result<Self, RuleError> {
        if !matches!(redirect.status, 301 | 302 | 303 | 307 | 308) {
            return Err(RuleError::Status(redirect.status));
        }
        if let Some(text) = &redirect.authority {
            check_authority(text)?;
        }
        Ok(Self {
            status: redirect.status,
            scheme: redirect.scheme.clone(),
            authority: redirect.authority.clone(),
            port: redirect.port,
            path: redirect.path.as_ref().map(|change| PathEdit::new(change, patterns)).transpose()?,
        })
    }

    /// `Location`, for a request on a connection to `port` of the service.
    pub fn location(&self, request: &RequestView<'_>, part: PathPart, port: u16) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme);
        let (host, written) = split_port(self.authority.as_deref().unwrap_or(request.authority));
        let port = match self.port {
            RedirectPort::Number(port) => Some(port),
            RedirectPort::OfScheme => None,
            RedirectPort::OfConnection => Some(port),
            // The port that the old scheme implied means nothing with another one.
            RedirectPort::OfRequest if self.authority.is_none() && scheme != request.scheme => {
                written.filter(|port| Some(*port) != default_port(request.scheme))
            }
            RedirectPort::OfRequest => written,
        };
        let port = port.filter(|port| Some(*port) != default_port(scheme));
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let path = self.path.as_ref().and_then(|edit| edit.apply(request.path, part));
        let path = path.unwrap_or_else(|| request.path.to_owned());
        format!("{scheme}://{host}{port}{}", with_query(path, request.query))
    }
}

/// The port that a scheme implies.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_common::model::traffic::PathChange;

    fn to(
        scheme: Option<&str>,
        authority: Option<&str>,
        port: RedirectPort,
        path: Option<PathChange>,
    ) -> Redirect {
        let (scheme, authority) = (scheme.map(Into::into), authority.map(Into::into));
        Redirect { status: 302, scheme, authority, port, path }
    }

    fn location(redirect: &Redirect, from: &str, port: u16) -> String {
        let (scheme, rest) = from.split_once("://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let headers = http::HeaderMap::new();
        let request = RequestView { method: "GET", scheme, authority: host, path, query, headers: &headers };
        let redirection = Redirection::new(redirect, &Patterns::default()).unwrap();
        redirection.location(&request, PathPart::Prefix(4), port)
    }

    #[test]
    fn locations() {
        use RedirectPort::{Number, OfConnection, OfRequest, OfScheme};
        let full = |path: &str| Some(PathChange::Full(path.into()));
        for (redirect, from, port, expected) in [
            // Istio: whatever is not said is as it was.
            (to(None, None, OfRequest, full("/new")), "http://a:8080/old?q", 8080, "http://a:8080/new?q"),
            (to(None, None, OfRequest, full("/new?x")), "http://a/old?q", 80, "http://a/new?x"),
            (to(None, Some("b"), OfRequest, None), "http://a:8080/old", 8080, "http://b/old"),
            (to(None, Some("b:81"), OfRequest, None), "http://a/old", 80, "http://b:81/old"),
            (to(Some("https"), None, OfRequest, None), "http://a:80/old", 80, "https://a/old"),
            (to(Some("https"), None, OfRequest, None), "http://a:8080/old", 8080, "https://a:8080/old"),
            (to(None, None, Number(8083), None), "http://a:80/old", 80, "http://a:8083/old"),
            (to(None, None, Number(80), None), "http://a:8080/old", 80, "http://a/old"),
            (to(Some("https"), None, Number(443), None), "http://a/old", 80, "https://a/old"),
            (to(Some("https"), None, Number(80), None), "http://a/old", 80, "https://a:80/old"),
            (to(None, None, OfScheme, None), "http://a:8080/old", 8080, "http://a/old"),
            (to(None, None, OfConnection, None), "http://a/old", 8080, "http://a:8080/old"),
            // Gateway API.
            (to(None, Some("example.org"), OfConnection, None), "http://echo/h", 80, "http://example.org/h"),
            (
                to(None, Some("example.org"), OfConnection, None),
                "http://echo:8080/h",
                8080,
                "http://example.org:8080/h",
            ),
            (to(Some("https"), Some("b"), OfScheme, None), "http://a:8080/", 8080, "https://b/"),
            (
                to(None, None, OfConnection, Some(PathChange::Segments("/new".into()))),
                "http://a/old/lemon",
                80,
                "http://a/new/lemon",
            ),
            (to(None, None, OfConnection, full("new")), "http://a/old?q", 80, "http://a/new?q"),
            (to(None, None, OfConnection, full("")), "http://a/old", 80, "http://a/"),
            (to(None, None, Number(81), None), "http://[::1]:8080/old", 80, "http://[::1]:81/old"),
        ] {
            assert_eq!(location(&redirect, from, port), expected, "{redirect:?} {from}");
        }
    }

    #[test]
    fn other_answers_are_no_redirects() {
        let redirect = Redirect { status: 304, ..to(None, None, RedirectPort::OfRequest, None) };
        assert_eq!(Redirection::new(&redirect, &Patterns::default()).unwrap_err(), RuleError::Status(304));
    }
}
