//! Which trace a request belongs to, as its headers say. Pure.
//!
//! W3C Trace Context (`traceparent`), then B3 (`b3`, or `x-b3-traceid` and `x-b3-sampled`). The headers themselves go on as they
//! came; here they are only read, so that a metric can lead to a trace.

use http::HeaderMap;
use std::fmt;
use std::num::NonZeroU128;

/// The number of a trace that is kept somewhere, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// The trace of a request with these headers; none, if there is none, if it is not sampled, or if they are malformed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let one = |name: &str| headers.get(name).map(|value| value.as_bytes().trim_ascii());
        if let Some(parent) = one("traceparent") {
            return w3c(parent);
        }
        if let Some(b3) = one("b3") {
            let mut parts = b3.split(|byte| *byte == b'-');
            let (trace, _span, sampled) = (parts.next()?, parts.next()?, parts.next());
            return is_sampled(sampled).then(|| b3_id(trace)).flatten();
        }
        let trace = b3_id(one("x-b3-traceid")?)?;
        let is_debug = one("x-b3-flags") == Some(b"1");
        (is_debug || is_sampled(one("x-b3-sampled"))).then_some(trace)
    }
}

/// As W3C writes it: 32 digits.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// `VERSION-TRACE-PARENT-FLAGS`; later versions may have more after that.
fn w3c(text: &[u8]) -> Option<TraceId> {
    let mut parts = text.split(|byte| *byte == b'-');
    let mut part = |length| parts.next().filter(|part| part.len() == length).and_then(hex);
    let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let has_more = parts.next().is_some();
    if version == 0xff || (version == 0 && has_more) || parent == 0 || flags & 1 == 0 {
        return None;
    }
    NonZeroU128::new(trace).map(TraceId)
}

/// 16 or 32 digits.
fn b3_id(text: &[u8]) -> Option<TraceId> {
    let is_long_enough = matches!(text.len(), 16 | 32);
    hex(text).filter(|_| is_long_enough).and_then(NonZeroU128::new).map(TraceId)
}

/// No word about it leaves it to whoever comes next.
fn is_sampled(value: Option<&[u8]>) -> bool {
    !matches!(value, Some(b"0" | b"false"))
}

/// At most 32 digits, in lower case as both ask for.
fn hex(text: &[u8]) -> Option<u128> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let is_number = !text.is_empty() && text.len() <= 32;
    text.iter().filter(|_| is_number).try_fold(0, |sum, byte| Some(sum << 4 | u128::from(digit(*byte)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn of(headers: &[(&'static str, &str)]) -> Option<String> {
        let map = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        TraceId::of(&map.collect()).map(|trace| trace.to_string())
    }

    #[test]
    fn a_trace_is_read_in_every_form() {
        let short = "a3ce929d0e0e4736";
        let padded = format!("{:0>32}", short);
        for (headers, wanted) in [
            (vec![("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))], TRACE),
            (vec![("traceparent", format!("cc-{TRACE}-00f067aa0ba902b7-01-later"))], TRACE),
            (vec![("b3", format!("{TRACE}-00f067aa0ba902b7-1"))], TRACE),
            (vec![("b3", format!("{TRACE}-00f067aa0ba902b7-d-05e3ac9a4f6e3b90"))], TRACE),
            (vec![("b3", format!("{short}-00f067aa0ba902b7"))], padded.as_str()),
            (vec![("x-b3-traceid", TRACE.into()), ("x-b3-sampled", "1".into())], TRACE),
            (vec![("x-b3-traceid", short.into())], padded.as_str()),
            (
                vec![
                    ("x-b3-traceid", short.into()),
                    ("x-b3-sampled", "0".into()),
                    ("x-b3-flags", "1".into()),
                ],
                &padded,
            ),
            (vec![("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")), ("b3", "0".into())], TRACE),
        ] {
            let borrowed: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(of(&borrowed).as_deref(), Some(wanted), "{headers:?}");
        }
    }

    #[test]
    fn what_is_not_sampled_or_malformed_is_none() {
        assert_eq!(of(&[]), None);
        for parent in [
            format!("00-{TRACE}-00f067aa0ba902b7-00"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{TRACE}1-00f067aa0ba902b7-01"),
            format!("00-{TRACE}"),
            "\u{fc}".into(),
        ] {
            assert_eq!(of(&[("traceparent", &parent)]), None, "{parent}");
        }
        for b3 in ["0", "d", "4bf9-1-1", "4bf92f3577b34da6-00f067aa0ba902b7-0", "", "--"] {
            assert_eq!(of(&[("b3", b3)]), None, "{b3}");
        }
        assert_eq!(of(&[("x-b3-traceid", "4bf92f3577b34da6"), ("x-b3-sampled", "0")]), None);
    }
}
