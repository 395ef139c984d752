//! `GET /v1/why`: where a request or a connection would go, and why.

use super::{Transport, Verdict};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// What is asked. The parameters of `/v1/why` are `client`, `to`, `method`, `header` (once for each) and `h2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhyQuestion {
    /// The pod that asks: `namespace/name`.
    pub client: String,
    /// A URL with `http`, `https`, `grpc` or `tcp`, or host and port.
    pub to: String,
    /// Empty: `GET`.
    pub method: String,
    /// `Name: value` each.
    pub headers: Vec<String>,
    /// The client speaks HTTP/2.
    pub h2: bool,
}

impl WhyQuestion {
    /// As the query of a URL.
    pub fn to_query(&self) -> String {
        let Self { client, to, method, headers, h2 } = self;
        let mut query = format!("client={}&to={}", encoded(client), encoded(to));
        let headers = headers.iter().map(|header| ("header", header));
        for (name, value) in std::iter::once(("method", method)).chain(headers) {
            if !value.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(query, "&{name}={}", encoded(value));
            }
        }
        if *h2 {
            query.push_str("&h2=true");
        }
        query
    }

    /// From the query of a URL.
    ///
    /// # Errors
    /// What is not understood, in words.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in parameters(query)? {
            match name {
                "client" => asked.client = value,
                "to" => asked.to = value,
                "method" => asked.method = value,
                "header" => asked.headers.push(value),
                "h2" => {
                    asked.h2 = value.parse().map_err(|_| format!("h2={value:?} must be true or false"))?;
                }
                _ => {
                    return Err(format!(
                        "{name:?} is not a parameter of /v1/why; it takes client, to, method, header, h2"
                    ));
                }
            }
        }
        Ok(asked)
    }
}

/// The parameters of a query, decoded. One without a value is `true`.
///
/// # Errors
/// What is not UTF-8 when decoded, in words.
pub fn parameters(query: &str) -> Result<Vec<(&str, String)>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let value = decoded(value).ok_or_else(|| format!("the value of {name:?} is not UTF-8"))?;
            Ok((name, value))
        })
        .collect()
}

/// With everything escaped that means something in a query.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                out.push(byte.into());
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// What is no valid escape stays as it is.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let escaped = match (first, after) {
            (b'%', [high, low, after @ ..]) => digit(high).zip(digit(low)).map(|digits| (digits, after)),
            _ => None,
        };
        match escaped {
            Some(((high, low), after)) => {
                out.push((high << 4 | low) as u8);
                rest = after;
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// What would become of it. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The client: `namespace/pod`.
    pub client: String,
    /// What it asks for: `GET http://web/cart`.
    pub asked: String,
    /// Every decision, in the order in which they are taken.
    pub steps: Vec<WhyStep>,
    /// What comes of them.
    pub outcome: WhyOutcome,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyStep {
    /// What it is about, in a word.
    pub about: String,
    /// What was decided, and why.
    pub text: String,
    /// What it was decided among.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<WhyRow>,
}

/// One thing of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyRow {
    /// What became of it.
    pub mark: WhyMark,
    /// What it is, and why that became of it.
    pub cells: Vec<String>,
}

/// What became of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhyMark {
    /// It is the one.
    Chosen,
    /// It might have been.
    Possible,
    /// It can't be.
    Excluded,
}

/// What would become of it, in the words of a [flow](super::Flow).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhyOutcome {
    /// In a sentence.
    pub text: String,
    /// Every request like this one takes the same way to the same service; false where chance decides.
    pub certain: bool,
    /// The rule that matches, as its object names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The objects that the rules come from, joined by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<String>,
    /// Where the rule sends it, in Envoy's form: `outbound|port|subset|host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Status of an answer that the mesh gives itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Envoy's flag of such an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// `Location` of a redirect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The pod that gets it, `namespace/name`: one of those that may, where chance decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// How it travels.
    pub transport: Transport,
    /// What the policies that are known here say at the server.
    pub verdict: Verdict,
    /// The rule that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_query() {
        let asked = WhyQuestion {
            client: "shop/web-1".into(),
            to: "http://web:80/a%20b?x=1&y=2#z ä".into(),
            method: "POST".into(),
            headers: vec!["user: jason + 1".into(), "x: a=b&c".into()],
            h2: true,
        };
        assert_eq!(WhyQuestion::from_query(&asked.to_query()), Ok(asked.clone()));
        let plain = WhyQuestion { method: String::new(), headers: vec![], h2: false, ..asked };
        assert_eq!(
            plain.to_query(),
            "client=shop/web-1&to=http://web:80/a%2520b%3Fx%3D1%26y%3D2%23z%20%C3%A4"
        );
        assert_eq!(WhyQuestion::from_query(&plain.to_query()), Ok(plain));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(WhyQuestion::from_query("pod=x").unwrap_err().contains("client"));
        assert!(WhyQuestion::from_query("to=%ff").unwrap_err().contains("UTF-8"));
        assert!(WhyQuestion::from_query("h2=perhaps").unwrap_err().contains("true or false"));
        assert_eq!(WhyQuestion::from_query("to=%zz%4").unwrap().to, "%zz%4");
    }
}
