//! Values of headers with Envoy's substitutions in them: `%REQ(name)%`, `%REQ(name?other):length%`, `%RESP(name)%`,
//! `%DOWNSTREAM_REMOTE_ADDRESS%`, `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`, `%START_TIME%` (RFC 3339, UTC, milliseconds),
//! and `%%` for a percent sign. Others are refused. In the Gateway API a percent sign is nothing special.

use super::super::{HeaderChange, RouteApi};
use super::{RuleError, check_authority, is_header_name, is_host};
use std::sync::Arc;

/// What a header's value is put together of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValuePiece {
    /// As it is.
    Text(Arc<str>),
    /// A header of the request.
    Request(HeaderField),
    /// A header of the response.
    Response(HeaderField),
    /// The client's address and port.
    RemoteAddress,
    /// The client's address.
    RemoteIp,
    /// When the request began.
    StartTime,
}

/// A header, another one for when it is absent, and the longest that is used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// In lower case.
    pub name: String,
    /// In lower case.
    pub or: Option<String>,
    /// Bytes.
    pub length: usize,
}

impl HeaderChange {
    /// What its value is put together of, one text for a constant one, if it is a change that can be made.
    ///
    /// # Errors
    /// [`RuleError`]: of the name, or of the value.
    pub fn pieces(&self, api: RouteApi) -> Result<Vec<ValuePiece>, RuleError> {
        if !is_host(&self.name) && !is_header_name(&self.name) {
            return Err(RuleError::HeaderName(Arc::clone(&self.name)));
        }
        let is_foreign = |byte: u8| (byte < 0x20 && byte != b'\t') || byte == 0x7f;
        if self.value.bytes().any(is_foreign) {
            return Err(RuleError::HeaderValue(Arc::clone(&self.value)));
        }
        let constant = |text| vec![ValuePiece::Text(text)];
        let pieces = match api {
            RouteApi::Istio if self.value.contains('%') => pieces(&self.value)?,
            _ => constant(Arc::clone(&self.value)),
        };
        if let ([ValuePiece::Text(host)], true) = (&*pieces, is_host(&self.name)) {
            check_authority(host)?;
        }
        Ok(pieces)
    }
}

fn pieces(text: &str) -> Result<Vec<ValuePiece>, RuleError> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let unclosed = || RuleError::Substitution {
            text: format!("%{after}").into(),
            why: "no percent sign ends it; write %% for one",
        };
        let (command, after) = after.split_once('%').ok_or_else(unclosed)?;
        rest = after;
        if command.is_empty() {
            plain.push('%');
            continue;
        }
        if !plain.is_empty() {
            pieces.push(ValuePiece::Text(std::mem::take(&mut plain).into()));
        }
        pieces.push(substitution(command)?);
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(ValuePiece::Text(plain.into()));
    }
    Ok(pieces)
}

fn substitution(command: &str) -> Result<ValuePiece, RuleError> {
    let refused = |why| RuleError::Substitution { text: format!("%{command}%").into(), why };
    let field = |arguments: &str| {
        let (names, length) = match arguments.split_once("):") {
            Some((names, length)) => {
                let length = length.parse().map_err(|_| refused("the length is no number"))?;
                (names, length)
            }
            None => {
                (arguments.strip_suffix(')').ok_or_else(|| refused("no parenthesis ends it"))?, usize::MAX)
            }
        };
        let (name, or) = names.split_once('?').map_or((names, None), |(name, or)| (name, Some(or)));
        let or = or.map(str::to_ascii_lowercase);
        let field = HeaderField { name: name.to_ascii_lowercase(), or, length };
        let is_name = |name: &str| is_header_name(name.strip_prefix(':').unwrap_or(name));
        match is_name(&field.name) && field.or.as_deref().is_none_or(is_name) {
            true => Ok(field),
            false => Err(refused("it names no header")),
        }
    };
    match command {
        "DOWNSTREAM_REMOTE_ADDRESS" => Ok(ValuePiece::RemoteAddress),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Ok(ValuePiece::RemoteIp),
        "START_TIME" => Ok(ValuePiece::StartTime),
        _ => match command.split_once('(') {
            Some(("REQ", arguments)) => field(arguments).map(ValuePiece::Request),
            Some(("RESP", arguments)) => field(arguments).map(ValuePiece::Response),
            _ => Err(refused(
                "only REQ, RESP, DOWNSTREAM_REMOTE_ADDRESS(_WITHOUT_PORT) and START_TIME are; write %% for a percent sign",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str, api: RouteApi) -> Result<Vec<ValuePiece>, RuleError> {
        HeaderChange { name: name.into(), value: value.into() }.pieces(api)
    }

    #[test]
    fn values_are_taken_apart() {
        let text = |text: &str| ValuePiece::Text(text.into());
        let field = HeaderField { name: "x".into(), or: Some(":path".into()), length: 3 };
        for (value, pieces) in [
            ("", vec![text("")]),
            ("caf\u{e9}\t1", vec![text("caf\u{e9}\t1")]),
            ("50%%", vec![text("50%")]),
            ("a%START_TIME%b", vec![text("a"), ValuePiece::StartTime, text("b")]),
            ("%REQ(X?:path):3%", vec![ValuePiece::Request(field)]),
        ] {
            assert_eq!(read("a", value, RouteApi::Istio), Ok(pieces), "{value}");
        }
        for value in ["50%", "%HOSTNAME%", "50%%", "%REQ(x)%"] {
            assert_eq!(read("a", value, RouteApi::Gateway), Ok(vec![text(value)]), "{value}");
        }
        assert!(read("Host", "%REQ(x)%", RouteApi::Istio).is_ok(), "what it will be is not known");
    }

    #[test]
    fn what_cannot_be_a_header_is_refused() {
        let refused = |name: &str, value: &str| read(name, value, RouteApi::Istio).unwrap_err();
        assert!(matches!(refused("a b", "1"), RuleError::HeaderName(_)));
        assert!(matches!(refused(":path", "1"), RuleError::HeaderName(_)));
        assert!(matches!(refused("a", "1\r\nb: 2"), RuleError::HeaderValue(_)));
        assert!(matches!(refused("a", "1\n%REQ(x)%"), RuleError::HeaderValue(_)));
        for value in ["50%", "%HOSTNAME%", "%REQ(x%", "%REQ(x):y%", "%REQ()%", "%REQ(a b)%"] {
            assert!(matches!(refused("a", value), RuleError::Substitution { .. }), "{value}");
        }
        for host in ["a b", "http://x", "x:0", ""] {
            assert!(matches!(refused(":authority", host), RuleError::Authority(_)), "{host}");
        }
    }
}
