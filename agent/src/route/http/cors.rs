//! Cross-origin resource sharing: who may read a response in a browser.

use super::condition::Text;
use super::pattern::Patterns;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use warren_common::model::traffic::Cors;
use warren_common::model::traffic::values::RuleError;

/// A rule's [`Cors`], compiled.
#[derive(Debug)]
pub struct CorsPolicy {
    origins: Vec<Text>,
    methods: List,
    headers: List,
    expose: List,
    max_age: Option<HeaderValue>,
    credentials: bool,
    forward_unmatched: bool,
    gateway_api: bool,
}

/// What CORS says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsDecision {
    /// It goes on, and the response stays as it is: no origin, or one that is not let in.
    Unrelated,
    /// It is a preflight and answered here: 200, with these headers and no body.
    Preflight(HeaderMap),
    /// It goes on; [`put_on`] puts these headers on the response, whoever makes it.
    Allowed(HeaderMap),
}

#[derive(Debug)]
enum List {
    Nothing,
    Everything,
    Names(HeaderValue),
}

impl List {
    fn new(names: &[Arc<str>]) -> Result<Self, RuleError> {
        if names.is_empty() {
            return Ok(Self::Nothing);
        }
        if names.iter().any(|name| **name == *"*") {
            return Ok(Self::Everything);
        }
        let joined = names.join(",");
        let value = HeaderValue::from_str(&joined).map_err(|_| RuleError::HeaderValue(joined.into()))?;
        Ok(Self::Names(value))
    }
}

impl CorsPolicy {
    pub(super) fn new(cors: &Cors, patterns: &Patterns) -> Result<Self, RuleError> {
        let origins = cors.origins.iter().map(|origin| Text::new(origin, patterns));
        Ok(Self {
            origins: origins.collect::<Result<_, _>>()?,
            methods: List::new(&cors.methods)?,
            headers: List::new(&cors.headers)?,
            expose: List::new(&cors.expose)?,
            max_age: cors.max_age_s.map(HeaderValue::from),
            credentials: cors.credentials,
            forward_unmatched: cors.forward_unmatched,
            gateway_api: cors.gateway_api,
        })
    }

    /// What becomes of a request with these headers.
    pub fn decide(&self, method: &str, request: &HeaderMap) -> CorsDecision {
        let Some(origin) = request.get(ORIGIN) else { return CorsDecision::Unrelated };
        let preflight = request.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| method == "OPTIONS");
        match (self.lets_in(origin), preflight) {
            (true, Some(wanted)) => CorsDecision::Preflight(self.preflight(origin, wanted, request)),
            (true, None) => CorsDecision::Allowed(self.simple(origin)),
            (false, Some(_)) if !self.forward_unmatched => CorsDecision::Preflight(HeaderMap::new()),
            (false, _) => CorsDecision::Unrelated,
        }
    }

    /// `exact: "*"` lets everybody in, as Envoy reads it.
    fn lets_in(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|known| known.holds(b"*") || known.holds(origin.as_bytes()))
    }

    fn preflight(&self, origin: &HeaderValue, method: &HeaderValue, request: &HeaderMap) -> HeaderMap {
        let mut headers = self.common(origin);
        let wanted = request.get(ACCESS_CONTROL_REQUEST_HEADERS);
        self.tell(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, &self.methods, Some(method));
        if wanted.is_some() || !self.gateway_api {
            self.tell(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, wanted);
        }
        // Browsers read it from the response alone; the Gateway API's conformance suite wants it here too (HTTPRouteCORS).
        if self.gateway_api {
            self.tell(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose, None);
        }
        if let Some(age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
        }
        headers
    }

    fn simple(&self, origin: &HeaderValue) -> HeaderMap {
        let mut headers = self.common(origin);
        self.tell(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose, None);
        headers
    }

    fn common(&self, origin: &HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // The answer is another one for another origin: no cache may mix them up.
        headers.insert(VARY, HeaderValue::from_static("origin"));
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers
    }

    /// Browsers take `*` literally when there are credentials; the Gateway API has what was asked for in its place.
    fn tell(&self, headers: &mut HeaderMap, name: HeaderName, list: &List, asked: Option<&HeaderValue>) {
        let value = match list {
            List::Nothing => None,
            List::Names(names) => Some(names.clone()),
            List::Everything if self.gateway_api && self.credentials => asked.cloned(),
            List::Everything => Some(HeaderValue::from_static("*")),
        };
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// Puts CORS headers on a response: `Vary` beside its own, the others instead of its own.
pub fn put_on(response: &mut HeaderMap, cors: HeaderMap) {
    for (name, value) in cors {
        match name {
            Some(name) if name == VARY => {
                let _ = response.try_append(name, value);
            }
            Some(name) => {
                response.insert(name, value);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_common::model::traffic::TextMatch;

    fn names(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    fn istio() -> Cors {
        Cors {
            origins: vec![
                TextMatch::Exact("https://a.example".into()),
                TextMatch::Regex("https://.*\\.b".into()),
            ],
            methods: names(&["GET", "POST"]),
            headers: names(&["x-one", "x-two"]),
            expose: names(&["x-shown"]),
            max_age_s: Some(86_400),
            credentials: true,
            forward_unmatched: true,
            gateway_api: false,
        }
    }

    fn decide(cors: &Cors, method: &str, request: &[(&'static str, &str)]) -> CorsDecision {
        let request = request
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        CorsPolicy::new(cors, &Patterns::default()).unwrap().decide(method, &request.collect())
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let mut all: Vec<_> = headers
            .iter()
            .filter(|(name, _)| **name != VARY)
            .map(|(name, value)| {
                let name = name.as_str().strip_prefix("access-control-").unwrap();
                format!("{name}={}", value.to_str().unwrap())
            })
            .collect();
        all.sort();
        all
    }

    const PREFLIGHT: &str = "access-control-request-method";
    const WANTED: &str = "access-control-request-headers";

    #[test]
    fn preflights_and_simple_requests_of_istio() {
        let CorsDecision::Preflight(headers) =
            decide(&istio(), "OPTIONS", &[("origin", "https://a.example"), (PREFLIGHT, "PUT")])
        else {
            panic!("no preflight");
        };
        assert_eq!(
            text(&headers),
            [
                "allow-credentials=true",
                "allow-headers=x-one,x-two",
                "allow-methods=GET,POST",
                "allow-origin=https://a.example",
                "max-age=86400",
            ]
        );
        let CorsDecision::Allowed(headers) = decide(&istio(), "GET", &[("origin", "https://x.b")]) else {
            panic!("not allowed");
        };
        assert_eq!(
            text(&headers),
            ["allow-credentials=true", "allow-origin=https://x.b", "expose-headers=x-shown"]
        );
    }

    #[test]
    fn what_has_nothing_to_do_with_it_goes_on() {
        let stranger = [("origin", "https://evil"), (PREFLIGHT, "GET")];
        assert_eq!(decide(&istio(), "GET", &[]), CorsDecision::Unrelated);
        assert_eq!(decide(&istio(), "GET", &[("origin", "https://evil")]), CorsDecision::Unrelated);
        assert_eq!(decide(&istio(), "OPTIONS", &stranger), CorsDecision::Unrelated, "FORWARD");
        let ignore = Cors { forward_unmatched: false, ..istio() };
        assert_eq!(decide(&ignore, "OPTIONS", &stranger), CorsDecision::Preflight(HeaderMap::new()));
        let options = decide(&istio(), "OPTIONS", &[("origin", "https://a.example")]);
        assert!(matches!(options, CorsDecision::Allowed(_)), "OPTIONS alone is no preflight");
        let star = Cors { origins: vec![TextMatch::Exact("*".into())], ..istio() };
        assert!(matches!(decide(&star, "GET", &[("origin", "https://evil")]), CorsDecision::Allowed(_)));
    }

    #[test]
    fn the_gateway_api_never_says_star_with_credentials() {
        let all = names(&["*"]);
        let mut cors = Cors {
            origins: vec![TextMatch::Present],
            methods: all.clone(),
            headers: all.clone(),
            expose: all,
            max_age_s: Some(5),
            credentials: true,
            forward_unmatched: false,
            gateway_api: true,
        };
        let ask = |cors: &Cors, wanted: bool| {
            let asked = [("origin", "https://a"), (PREFLIGHT, "PUT"), (WANTED, "x-a, x-b")];
            match decide(cors, "OPTIONS", if wanted { &asked } else { &asked[..2] }) {
                CorsDecision::Preflight(headers) => text(&headers),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            ask(&cors, true),
            [
                "allow-credentials=true",
                "allow-headers=x-a, x-b",
                "allow-methods=PUT",
                "allow-origin=https://a",
                "max-age=5"
            ]
        );
        assert!(!ask(&cors, false).iter().any(|header| header.starts_with("allow-headers")));
        let CorsDecision::Allowed(headers) = decide(&cors, "GET", &[("origin", "https://a")]) else {
            panic!("not allowed");
        };
        assert_eq!(text(&headers), ["allow-credentials=true", "allow-origin=https://a"]);
        cors.credentials = false;
        assert!(ask(&cors, true).contains(&"allow-headers=*".to_owned()));
        cors.expose = names(&["x-shown", "x-too"]);
        assert!(ask(&cors, true).contains(&"expose-headers=x-shown,x-too".to_owned()));
    }

    #[test]
    fn responses_keep_their_own_vary() {
        let mut response = HeaderMap::from_iter([
            (VARY, HeaderValue::from_static("accept")),
            (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        ]);
        let CorsDecision::Allowed(cors) = decide(&istio(), "GET", &[("origin", "https://x.b")]) else {
            panic!("not allowed");
        };
        put_on(&mut response, cors);
        assert_eq!(response.get_all(VARY).iter().count(), 2);
        assert_eq!(response.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect::<Vec<_>>(), ["https://x.b"]);
    }
}
