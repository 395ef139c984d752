//! Lists of values of a policy: every value is checked, and an empty one is none.

use crate::source::ConvertError;
use crate::source::convert::invalid;
use crate::source::custom::MAX_TEXT;
use serde::de::{Deserializer, Visitor};
use std::fmt;
use std::sync::Arc;
use warren_common::model::{Cidr, ServiceAccountMatch, StringMatch};

/// As Istio's API bounds it.
const MAX_ACCOUNTS: usize = 16;

/// A text that is one in YAML too: a number there is a mistake, as it is to the API server.
pub(super) struct Text(pub(super) String);

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OnlyText;
        impl Visitor<'_> for OnlyText {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string (numbers stand in quotes)")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
        }
        from.deserialize_any(OnlyText)
    }
}

type List = Option<Vec<Text>>;

fn checked<T>(
    list: List,
    field: &'static str,
    check: impl Fn(&str) -> Result<T, ConvertError>,
) -> Result<Vec<T>, ConvertError> {
    let value = |Text(text): Text| match text.as_str() {
        "" => Err(invalid(field, "", "a value")),
        text => check(text),
    };
    list.unwrap_or_default().into_iter().map(value).collect()
}

/// `abc`, `abc*`, `*abc`, `*`.
pub(super) fn texts(list: List, field: &'static str) -> Result<Vec<StringMatch>, ConvertError> {
    checked(list, field, |text| pattern(text, field))
}

/// The same, with stars anywhere.
pub(super) fn globs(list: List, field: &'static str) -> Result<Vec<StringMatch>, ConvertError> {
    let glob = |text: &str| match pattern(text, field) {
        // Longer than any namespace can be, it would only cost time.
        Err(_) if text.len() <= MAX_TEXT => Ok(StringMatch::Glob(text.into())),
        result => result,
    };
    checked(list, field, glob)
}

fn pattern(text: &str, field: &'static str) -> Result<StringMatch, ConvertError> {
    let (leading, trailing) = (text.strip_prefix('*'), text.strip_suffix('*'));
    let (kind, rest): (fn(Arc<str>) -> StringMatch, &str) = match (leading, trailing) {
        _ if text == "*" => return Ok(StringMatch::Presence),
        (None, None) => (StringMatch::Exact, text),
        (Some(rest), _) => (StringMatch::Suffix, rest),
        (None, Some(rest)) => (StringMatch::Prefix, rest),
    };
    if rest.contains('*') {
        return Err(invalid(field, text, "a text with at most one star, at its beginning or its end"));
    }
    Ok(kind(rest.into()))
}

/// `namespace/name`, or the name of one in the policy's own namespace.
pub(super) fn accounts(
    list: List,
    own: &Arc<str>,
    field: &'static str,
) -> Result<Vec<ServiceAccountMatch>, ConvertError> {
    let length = list.as_ref().map_or(0, Vec::len);
    if length > MAX_ACCOUNTS {
        return Err(invalid(field, &length.to_string(), "a list of at most 16 service accounts"));
    }
    checked(list, field, |text| {
        let (namespace, account) = text.split_once('/').unwrap_or((own, text));
        let is_name = |part: &str| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
            !part.is_empty() && part.len() <= 253 && part.bytes().all(allowed)
        };
        if !is_name(namespace) || !is_name(account) {
            return Err(invalid(field, text, "a service account: name or namespace/name, without wildcards"));
        }
        Ok(ServiceAccountMatch { namespace: namespace.into(), service_account: account.into() })
    })
}

pub(super) fn ranges(list: List, field: &'static str) -> Result<Vec<Cidr>, ConvertError> {
    checked(list, field, |text| {
        text.parse().map_err(|_| invalid(field, text, "an address or a range of addresses (CIDR)"))
    })
}

pub(super) fn ports(list: List, field: &'static str) -> Result<Vec<u16>, ConvertError> {
    checked(list, field, |text| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let port = text.parse().ok().filter(|port| digits && *port != 0);
        port.ok_or_else(|| invalid(field, text, "a port number (1 to 65535)"))
    })
}

/// How many there are: texts, or templates with `{*}` for a segment and `{**}` for all that follow.
pub(super) fn paths(list: List, field: &'static str) -> Result<usize, ConvertError> {
    let path = |text: &str| {
        if !text.contains(['{', '}']) {
            return pattern(text, field).map(drop);
        }
        let segments: Vec<_> = text.split('/').collect();
        let is_good = |(place, segment): (usize, &&str)| match *segment {
            "{*}" => true,
            "{**}" => place + 1 == segments.len(),
            other => !other.contains(['{', '}', '*']),
        };
        if segments.iter().enumerate().all(is_good) {
            Ok(())
        } else {
            Err(invalid(
                field,
                text,
                "a template: {*} and, at the end, {**} as whole segments, no other star or brace",
            ))
        }
    };
    Ok(checked(list, field, path)?.len())
}
