//! Values of headers with Envoy's substitutions in them: `%REQ(name)%`, `%REQ(name?other):length%`, `%RESP(name)%`,
//! `%DOWNSTREAM_REMOTE_ADDRESS%`, `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`, `%START_TIME%` (RFC 3339, UTC, milliseconds),
//! and `%%` for a percent sign. Others are refused when they are compiled.

use super::request::{RequestView, joined};
use super::rule::RuleError;
use http::{HeaderMap, HeaderValue};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use warren_common::model::traffic::RouteApi;

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
    Pieces(Vec<Piece>),
}

#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Request(Field),
    Response(Field),
    RemoteAddress,
    RemoteIp,
    StartTime,
}

/// A header, another one for when it is absent, and the longest that is used of it.
#[derive(Debug)]
pub(super) struct Field {
    name: String,
    or: Option<String>,
    length: usize,
}

impl Template {
    pub(super) fn new(text: &Arc<str>, api: RouteApi) -> Result<Self, RuleError> {
        let constant =
            |value: &str| HeaderValue::from_str(value).map_err(|_| RuleError::HeaderValue(Arc::clone(text)));
        // A percent sign is nothing special in the Gateway API.
        if api == RouteApi::Gateway || !text.contains('%') {
            return constant(text).map(Self::Constant);
        }
        let pieces = pieces(text)?;
        if let [Piece::Text(text)] = &*pieces {
            return constant(text).map(Self::Constant);
        }
        for piece in &pieces {
            if let Piece::Text(text) = piece {
                constant(text)?;
            }
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
            piece.write(values, &mut out);
        }
        HeaderValue::from_bytes(&out).ok().filter(|value| !value.is_empty())
    }
}

impl Piece {
    fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) {
        let remote = values.remote;
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Request(field) => field.write(|name| values.request.header(name), out),
            Self::Response(field) => {
                field.write(|name| values.response.and_then(|headers| joined(headers, name)), out);
            }
            Self::RemoteAddress => out.extend_from_slice(remote.to_string().as_bytes()),
            Self::RemoteIp => out.extend_from_slice(remote.ip().to_canonical().to_string().as_bytes()),
            Self::StartTime => {
                let start = time::OffsetDateTime::from(values.start).format(START_TIME);
                out.extend_from_slice(start.unwrap_or_default().as_bytes());
            }
        }
    }
}

impl Field {
    fn write<'a>(&self, header: impl Fn(&str) -> Option<std::borrow::Cow<'a, [u8]>>, out: &mut Vec<u8>) {
        let value = header(&self.name).or_else(|| header(self.or.as_deref()?));
        if let Some(value) = value {
            out.extend_from_slice(value.get(..self.length).unwrap_or(&value));
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, RuleError> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let unclosed = || RuleError::Substitution {
            text: after.into(),
            why: "no percent sign ends it; write %% for one",
        };
        let (command, after) = after.split_once('%').ok_or_else(unclosed)?;
        rest = after;
        if command.is_empty() {
            plain.push('%');
            continue;
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(substitution(command)?);
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn substitution(command: &str) -> Result<Piece, RuleError> {
    let refused = |why| RuleError::Substitution { text: command.into(), why };
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
        let field = Field { name: name.to_ascii_lowercase(), or, length };
        let is_name = |name: &str| {
            let name = name.strip_prefix(':').unwrap_or(name);
            http::HeaderName::from_bytes(name.as_bytes()).is_ok()
        };
        match is_name(&field.name) && field.or.as_deref().is_none_or(is_name) {
            true => Ok(field),
            false => Err(refused("it names no header")),
        }
    };
    match command {
        "DOWNSTREAM_REMOTE_ADDRESS" => Ok(Piece::RemoteAddress),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Ok(Piece::RemoteIp),
        "START_TIME" => Ok(Piece::StartTime),
        _ => match command.split_once('(') {
            Some(("REQ", arguments)) => field(arguments).map(Piece::Request),
            Some(("RESP", arguments)) => field(arguments).map(Piece::Response),
            _ => Err(refused("only REQ, RESP, DOWNSTREAM_REMOTE_ADDRESS(_WITHOUT_PORT) and START_TIME are")),
        },
    }
}
