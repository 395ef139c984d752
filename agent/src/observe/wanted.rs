//! Which requests somebody wants to see.

use warren_common::model::admin::FlowRequest;

/// Conditions on a request that all have to hold. Without any, connections match too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// Statuses: `404`, `5xx`, or several with commas between; of a request without a response 0.
    pub status: Option<String>,
    /// The path with its query; `*` stands for anything.
    pub path: Option<String>,
    /// The method, in any case.
    pub method: Option<String>,
    /// The rule, by its name in flows; `*` stands for anything.
    pub route: Option<String>,
}

impl RequestFilter {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is one that is wanted.
    pub fn wants(&self, request: &FlowRequest) -> bool {
        let Self { status, path, method, route } = self;
        status.as_ref().is_none_or(|wanted| wanted.split(',').any(|one| is_status(one, request.status)))
            && path.as_ref().is_none_or(|wanted| is_like(wanted, &request.path))
            && method.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&request.method))
            && route.as_ref().is_none_or(|wanted| is_like(wanted, request.route.as_deref().unwrap_or("")))
    }

    /// Whether these are statuses.
    ///
    /// # Errors
    /// What is none, in words.
    pub fn check_status(wanted: &str) -> Result<(), String> {
        let is_good = |one: &str| {
            let bytes = one.as_bytes();
            one == "0"
                || matches!(bytes, [b'1'..=b'9', rest @ ..] if rest.len() == 2 && (
                rest.iter().all(u8::is_ascii_digit) || rest.eq_ignore_ascii_case(b"xx")))
        };
        match wanted.split(',').find(|one| !is_good(one)) {
            None => Ok(()),
            Some(one) => Err(format!("{one:?} is no status; write 404, 5xx, or several with commas between")),
        }
    }
}

fn is_status(wanted: &str, status: u16) -> bool {
    match wanted.get(1..).filter(|rest| rest.eq_ignore_ascii_case("xx")) {
        Some(_) => wanted.get(..1) == Some(&(status / 100).to_string()),
        None => wanted.parse() == Ok(status),
    }
}

/// `*` in `pattern` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part).and_then(|at| rest.get(at + part.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("/x", "/x", true),
            ("/x", "/xy", false),
            ("/x*", "/xy", true),
            ("/x*", "/y", false),
            ("*", "", true),
            ("*/b*", "/a/b?c", true),
            ("/a*a", "/a", false),
            ("/a*b*c", "/a-b-c", true),
            ("/a*b*c", "/a-c-b", false),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let request = FlowRequest {
            method: "GET".into(),
            path: "/cart?x".into(),
            route: Some("cart".into()),
            status: 503,
            ..FlowRequest::default()
        };
        let filter = |status: &str, path: &str, method: &str, route: &str| {
            let one = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            RequestFilter { status: one(status), path: one(path), method: one(method), route: one(route) }
        };
        for (wanted, expected) in [
            (filter("5xx", "/cart*", "get", "c*"), true),
            (filter("404,503", "", "", ""), true),
            (filter("5XX", "", "", ""), true),
            (filter("4xx,200", "", "", ""), false),
            (filter("", "/cart", "", ""), false),
            (filter("", "", "POST", ""), false),
            (filter("", "", "", "cart"), true),
            (filter("", "", "", "other"), false),
        ] {
            assert_eq!(wanted.wants(&request), expected, "{wanted:?}");
        }
        assert!(filter("", "", "", "").is_empty());
        for good in ["0", "404", "5xx", "5XX,200"] {
            assert_eq!(RequestFilter::check_status(good), Ok(()));
        }
        for bad in ["", "5x", "xx", "5xx,", "60000", "2é"] {
            assert!(RequestFilter::check_status(bad).is_err(), "{bad}");
        }
    }
}
