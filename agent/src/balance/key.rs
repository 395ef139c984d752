//! What a request is hashed by.

use super::hash::hash_of;
use crate::route::http::RequestView;
use http::header::COOKIE;
use std::fmt::Write as _;
use std::net::IpAddr;
use warren_common::model::traffic::HashKey;

/// What a request is hashed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashInput {
    /// Nothing: the header, parameter or cookie is absent. Any endpoint.
    Absent,
    /// This hash.
    Hash(u64),
    /// This hash, of a cookie that its client gets with the response (`Set-Cookie`).
    NewCookie {
        /// The hash.
        hash: u64,
        /// The value of `Set-Cookie`.
        set_cookie: String,
    },
}

impl HashInput {
    /// The hash.
    pub fn hash(&self) -> Option<u64> {
        match self {
            Self::Absent => None,
            Self::Hash(hash) | Self::NewCookie { hash, .. } => Some(*hash),
        }
    }
}

/// What a connection that nobody looks into is hashed by: its client's address, if the key is that.
pub fn hash_of_connection(key: &HashKey, client: IpAddr) -> HashInput {
    match key {
        HashKey::SourceIp => HashInput::Hash(hash_of_ip(client)),
        HashKey::Header(_) | HashKey::Query(_) | HashKey::Cookie { .. } => HashInput::Absent,
    }
}

fn hash_of_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => hash_of(&ip.octets()),
        IpAddr::V6(ip) => hash_of(&ip.octets()),
    }
}

/// What `request`, of a client with this address, is hashed by. A new cookie's value is made of `entropy`.
pub fn hash_input(key: &HashKey, request: &RequestView<'_>, client: IpAddr, entropy: u64) -> HashInput {
    let of = |value: Option<&[u8]>| value.map_or(HashInput::Absent, |value| HashInput::Hash(hash_of(value)));
    match key {
        HashKey::Header(name) => of(request.header(name).as_deref()),
        HashKey::Query(name) => of(request.parameter(name).as_deref()),
        HashKey::SourceIp => HashInput::Hash(hash_of_ip(client)),
        HashKey::Cookie { name, path, ttl_s, attributes } => match (cookie(request, name), ttl_s) {
            (Some(value), _) => HashInput::Hash(hash_of(value)),
            (None, None) => HashInput::Absent,
            (None, Some(ttl)) => {
                let value = format!("{entropy:016x}");
                let hash = hash_of(value.as_bytes());
                let mut set_cookie = format!("{name}=\"{value}\"");
                // Writing to a string does not fail.
                if *ttl > 0 {
                    let _ = write!(set_cookie, "; Max-Age={ttl}");
                }
                if let Some(path) = path {
                    let _ = write!(set_cookie, "; Path={path}");
                }
                for (name, value) in attributes {
                    let _ = match value.is_empty() {
                        true => write!(set_cookie, "; {name}"),
                        false => write!(set_cookie, "; {name}={value}"),
                    };
                }
                set_cookie.push_str("; HttpOnly");
                HashInput::NewCookie { hash, set_cookie }
            }
        },
    }
}

/// The first cookie of that name, without quotes.
fn cookie<'a>(request: &RequestView<'a>, name: &str) -> Option<&'a [u8]> {
    let all =
        request.headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let mut found = all.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        (*key == *name.as_bytes()).then_some(value)
    });
    let value = found.next()?;
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn of(key: &HashKey, headers: &[(&'static str, &str)], query: Option<&str>, client: &str) -> HashInput {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let request =
            RequestView { method: "GET", scheme: "http", authority: "web", path: "/", query, headers: &map };
        hash_input(key, &request, client.parse().unwrap(), 0xabc)
    }

    #[test]
    fn every_kind_of_key() {
        let hash = |text: &str| HashInput::Hash(hash_of(text.as_bytes()));
        let header = HashKey::Header("x-user".into());
        let query = HashKey::Query("user".into());
        let cookie = |ttl_s| HashKey::Cookie {
            name: "user".into(),
            path: Some("/".into()),
            ttl_s,
            attributes: vec![],
        };
        for (key, headers, expected) in [
            (&header, &[("x-user", "jason")][..], hash("jason")),
            (&header, &[], HashInput::Absent),
            (&query, &[], hash("a b")),
            (&cookie(None), &[("cookie", "a=1; user=jason; user=mary")], hash("jason")),
            (&cookie(None), &[("cookie", "a=1"), ("cookie", "user=\"jason\"")], hash("jason")),
            (&cookie(Some(0)), &[("cookie", "user=jason")], hash("jason")),
            (&cookie(None), &[("cookie", "user")], HashInput::Absent),
        ] {
            assert_eq!(of(key, headers, Some("user=a%20b"), "10.0.0.1"), expected, "{key:?} {headers:?}");
        }
        let ip = |client| of(&HashKey::SourceIp, &[], None, client);
        assert_eq!(ip("10.0.0.1"), ip("::ffff:10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
        let connection = |key| hash_of_connection(key, "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(connection(&HashKey::SourceIp), ip("10.0.0.1"), "requests and connections go to the same");
        assert_eq!(connection(&header), HashInput::Absent, "there is no header");
    }

    #[test]
    fn cookies_are_made_and_found_again() {
        let key = |ttl| HashKey::Cookie {
            name: "user".into(),
            path: Some("/shop".into()),
            ttl_s: Some(ttl),
            attributes: vec![("SameSite".into(), "Strict".into()), ("Secure".into(), "".into())],
        };
        let HashInput::NewCookie { hash, set_cookie } = of(&key(60), &[], None, "10.0.0.1") else {
            panic!("no cookie");
        };
        assert_eq!(
            set_cookie,
            "user=\"0000000000000abc\"; Max-Age=60; Path=/shop; SameSite=Strict; Secure; HttpOnly"
        );
        let sent = set_cookie.split(';').next().unwrap();
        assert_eq!(of(&key(60), &[("cookie", sent)], None, "10.0.0.1"), HashInput::Hash(hash));
        let HashInput::NewCookie { set_cookie, .. } = of(&key(0), &[], None, "10.0.0.1") else {
            panic!("no cookie");
        };
        assert!(!set_cookie.contains("Max-Age"), "until the browser ends");
    }
}
