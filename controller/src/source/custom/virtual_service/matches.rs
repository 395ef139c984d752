//! Conditions of rules.

use super::super::MAX_TEXT;
use super::super::fields::{Fields, wrong};
use super::values::{text_match, text_match_or_presence};
use crate::objects::{Matching, NoteKind};
use crate::source::ConvertError;
use std::sync::Arc;
use warren_common::model::Cidr;
use warren_common::model::traffic::{
    Clients, HeaderMatch, HttpMatch, PathMatch, QueryMatch, TcpMatch, TextMatch, TlsMatch,
};

/// Conditions on headers by these names say nothing: there are fields for them.
const FIELDS_OF_THEIR_OWN: [&str; 4] = ["uri", "scheme", "method", "authority"];
const CLAIMS: &str = "@request.auth.claims";

/// `match` of an HTTP rule.
pub(super) fn request(mut entry: Fields<'_>, own: &Arc<str>) -> Result<Matching<HttpMatch>, ConvertError> {
    let gateways = super::gateways(&mut entry, own)?;
    let mut clients = clients(&mut entry)?;
    if !gateways.is_empty() {
        for (field, is_said) in
            [("sourceLabels", !clients.labels.is_empty()), ("sourceNamespace", clients.namespaces.is_some())]
        {
            if is_said {
                let why = "as in Istio, a match with gateways does not ask who the client is";
                entry.note(entry.at(field), NoteKind::Lost(why));
            }
        }
        clients = Clients::default();
    }
    let mut text = |name: &str| entry.fields(name)?.map(text_match).transpose();
    let (path, method, scheme, authority) =
        (text("uri")?, text("method")?, text("scheme")?, text("authority")?);
    entry.unsupported("statPrefix", "there are no statistics of single rules by a name of one's own");
    let mut never = false;
    let mut headers = headers(&mut entry, "headers", false, &mut never)?;
    headers.extend(self::headers(&mut entry, "withoutHeaders", true, &mut never)?);
    let notes = entry.notes();
    let query = entry.entries("queryParams", 256, |path, name, value| {
        let value = text_match_or_presence(Fields::of(value, path, notes)?)?;
        Ok(QueryMatch { name: name.into(), value })
    })?;
    let when = HttpMatch {
        name: entry.text("name", MAX_TEXT)?.unwrap_or_default(),
        clients,
        port: entry.port("port")?,
        path: path.and_then(|path| match path {
            TextMatch::Present => None,
            TextMatch::Exact(text) => Some(PathMatch::Exact(text)),
            TextMatch::Prefix(text) => Some(PathMatch::Prefix(text)),
            TextMatch::Regex(text) => Some(PathMatch::Regex(text)),
        }),
        ignore_path_case: entry.flag("ignoreUriCase")?.unwrap_or_default(),
        method,
        scheme,
        authority,
        headers,
        query,
    };
    Ok(Matching { gateways, when, never })
}

fn headers(
    entry: &mut Fields<'_>,
    field: &str,
    not: bool,
    never: &mut bool,
) -> Result<Vec<HeaderMatch>, ConvertError> {
    let (notes, mut of_claims, mut lost) = (entry.notes(), Vec::new(), Vec::new());
    let found = entry.entries(field, 256, |path, name, value| {
        if name.is_empty() || name.len() > MAX_TEXT {
            return Err(wrong(path, "not the name of a header"));
        }
        let name = name.to_ascii_lowercase();
        let value = text_match_or_presence(Fields::of(value, path.clone(), notes)?)?;
        if name.starts_with(CLAIMS) {
            of_claims.push(path);
            return Ok(None);
        }
        if FIELDS_OF_THEIR_OWN.contains(&name.as_str()) {
            lost.push(path);
            return Ok(None);
        }
        Ok(Some(HeaderMatch { name: name.into(), value, not }))
    })?;
    for path in lost {
        let why = "as in Istio, no header of this name counts: uri, scheme, method and authority are fields beside headers";
        entry.note(path, NoteKind::Lost(why));
    }
    *never |= !of_claims.is_empty();
    for path in of_claims {
        let why = "claims of a JWT are not known where clients' requests are routed; this match never holds";
        entry.note(path, NoteKind::Unsupported(why));
    }
    Ok(found.into_iter().flatten().collect())
}

/// `match` of a rule for TLS or TCP.
pub(super) fn connection(
    mut entry: Fields<'_>,
    own: &Arc<str>,
    tls: bool,
) -> Result<Matching<TlsMatch>, ConvertError> {
    let gateways = super::gateways(&mut entry, own)?;
    let mut names = Vec::new();
    if tls {
        for name in entry.texts("sniHosts", 256, MAX_TEXT)? {
            names.push(super::address(&name).map_err(|reason| entry.wrong("sniHosts", reason))?);
        }
        if names.is_empty() {
            return Err(entry.wrong("sniHosts", "it is missing"));
        }
    }
    let mut destinations = Vec::new();
    for text in entry.texts("destinationSubnets", 256, MAX_TEXT)? {
        let range: Cidr = text.parse().map_err(|_| {
            entry.wrong("destinationSubnets", format_args!("{text:?} is not a range of addresses (CIDR)"))
        })?;
        destinations.push(range);
    }
    if entry.take("sourceSubnet").is_some() {
        entry.note(entry.at("sourceSubnet"), NoteKind::Lost("it is not supported (nor is it in Istio)"));
    }
    let when = TcpMatch { clients: clients(&mut entry)?, port: entry.port("port")?, destinations };
    let when = TlsMatch { server_names: names, connection: when };
    Ok(Matching { gateways, when, never: false })
}

fn clients(entry: &mut Fields<'_>) -> Result<Clients, ConvertError> {
    let namespace = entry.text("sourceNamespace", MAX_TEXT)?;
    Ok(Clients { namespaces: namespace.map(|name| vec![name]), labels: entry.labels("sourceLabels")? })
}
