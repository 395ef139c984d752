//! Values of headers, put together for each request ([`ValuePiece`]).

use super::request::{RequestView, joined};
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use warren_common::model::traffic::values::{HeaderField, RuleError, ValuePiece};
use warren_common::model::traffic::{HeaderChange, RouteApi};

const START_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What substitutions may name.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The request, as its client sent it.
    pub request: &'a RequestView<'a>,
    /// The response's headers, as they came; none before there is one.
    pub response: Option<&'a HeaderMap>,
    /// The client's address.
    pub remote: SocketAddr,
    /// When the request began.
    pub start: SystemTime,
}

/// A header's value.
#[derive(Debug)]
pub(super) enum Template {
    Constant(HeaderValue),
    Pieces(Vec<ValuePiece>),
}

impl Template {
    pub(super) fn new(change: &HeaderChange, api: RouteApi) -> Result<Self, RuleError> {
        let pieces = change.pieces(api)?;
        if let [ValuePiece::Text(text)] = &*pieces {
            let value = HeaderValue::from_str(text).map_err(|_| RuleError::HeaderValue(text.clone()))?;
            return Ok(Self::Constant(value));
        }
        Ok(Self::Pieces(pieces))
    }

    /// The value; none if nothing is left of it, as Envoy leaves such a header out.
    pub(super) fn value(&self, values: &Values<'_>) -> Option<HeaderValue> {
        let pieces = match self {
            Self::Constant(value) => return Some(value.clone()),
            Self::Pieces(pieces) => pieces,
        };
        let mut out = Vec::new();
        for piece in pieces {
            write(piece, values, &mut out);
        }
        HeaderValue::from_bytes(&out).ok().filter(|value| !value.is_empty())
    }
}

fn write(piece: &ValuePiece, values: &Values<'_>, out: &mut Vec<u8>) {
    let remote = values.remote;
    match piece {
        ValuePiece::Text(text) => out.extend_from_slice(text.as_bytes()),
        ValuePiece::Request(field) => write_field(field, |name| values.request.header(name), out),
        ValuePiece::Response(field) => {
            write_field(field, |name| values.response.and_then(|headers| joined(headers, name)), out);
        }
        ValuePiece::RemoteAddress => out.extend_from_slice(remote.to_string().as_bytes()),
        ValuePiece::RemoteIp => out.extend_from_slice(remote.ip().to_canonical().to_string().as_bytes()),
        ValuePiece::StartTime => {
            let start = time::OffsetDateTime::from(values.start).format(START_TIME);
            out.extend_from_slice(start.unwrap_or_default().as_bytes());
        }
    }
}

fn write_field<'a>(field: &HeaderField, header: impl Fn(&str) -> Option<Cow<'a, [u8]>>, out: &mut Vec<u8>) {
    let value = header(&field.name).or_else(|| header(field.or.as_deref()?));
    if let Some(value) = value {
        out.extend_from_slice(value.get(..field.length).unwrap_or(&value));
    }
}
