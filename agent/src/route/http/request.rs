//! What of a request routing looks at.

use http::HeaderMap;
use std::borrow::Cow;

/// A request, as its client sent it (after the path was normalised).
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// For example `GET`.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `:authority` or `Host`, with its port if it has one; case does not count.
    pub authority: &'a str,
    /// Without the query; empty for CONNECT.
    pub path: &'a str,
    /// What follows the first `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
}

impl<'a> RequestView<'a> {
    /// A header's value, several of one name joined with commas; a pseudo-header's as HTTP/2 has it.
    pub fn header(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        match name {
            ":authority" | "host" => Some(Cow::Borrowed(self.authority.as_bytes())),
            ":method" => Some(Cow::Borrowed(self.method.as_bytes())),
            ":scheme" => Some(Cow::Borrowed(self.scheme.as_bytes())),
            ":path" => Some(match self.query {
                None => Cow::Borrowed(self.path.as_bytes()),
                Some(query) => Cow::Owned([self.path, "?", query].concat().into_bytes()),
            }),
            _ => joined(self.headers, name),
        }
    }

    /// The first value of the query parameter `name`, decoded.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (*decoded(key) == *name.as_bytes()).then(|| decoded(value))
        })
    }
}

/// Every value of a header, joined with commas.
pub(super) fn joined<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// Percent-decoded; what is no valid escape stays as it is, and so does `+`, as Envoy reads it.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|digits| (digits, after)),
            _ => None,
        };
        let (byte, after) = escaped.map_or((first, after), |((high, low), after)| (high << 4 | low, after));
        out.push(byte);
        rest = after;
    }
    Cow::Owned(out)
}

pub(super) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_first_of_their_name_decoded() {
        let headers = HeaderMap::new();
        let of = |query: &str, name: &str| {
            let view = RequestView {
                method: "GET",
                scheme: "http",
                authority: "web",
                path: "/",
                query: Some(query),
                headers: &headers,
            };
            view.parameter(name).map(|value| String::from_utf8(value.into_owned()).unwrap())
        };
        for (query, name, value) in [
            ("a=1&b=2", "b", Some("2")),
            ("a=1&a=2", "a", Some("1")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("b=1", "a", None),
            ("A=1", "a", None),
            ("%61=%41%2f", "a", Some("A/")),
            ("a=b=c", "a", Some("b=c")),
            ("a=%4", "a", Some("%4")),
            ("a=%zz", "a", Some("%zz")),
            ("a=b+c", "a", Some("b+c")),
            ("", "a", None),
            ("&&a=1", "a", Some("1")),
        ] {
            assert_eq!(of(query, name).as_deref(), value, "{query}");
        }
    }

    #[test]
    fn headers_of_one_name_are_one() {
        let mut headers = HeaderMap::new();
        headers.append("x", "a".parse().unwrap());
        headers.append("x", "b".parse().unwrap());
        let view = RequestView {
            method: "GET",
            scheme: "http",
            authority: "web:80",
            path: "/p",
            query: Some("q"),
            headers: &headers,
        };
        let of = |name| view.header(name).map(|value| String::from_utf8(value.into_owned()).unwrap());
        assert_eq!(of("x").as_deref(), Some("a,b"));
        assert_eq!(of("y"), None);
        assert_eq!((of("host"), of(":path")), (Some("web:80".into()), Some("/p?q".into())));
    }
}
