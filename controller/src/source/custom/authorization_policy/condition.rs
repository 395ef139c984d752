//! `when`: an attribute by its key.

use super::values::{Text, accounts, globs, ports, ranges, texts};
use crate::objects::PolicyPart;
use crate::source::ConvertError;
use crate::source::convert::invalid;
use std::sync::Arc;
use warren_common::model::PolicyMatch;

pub(super) fn part(
    key: &str,
    values: Vec<Text>,
    not_values: Vec<Text>,
    own: &Arc<str>,
) -> Result<PolicyPart, ConvertError> {
    if values.is_empty() && not_values.is_empty() {
        return Err(invalid("when.key", key, "followed by values or notValues, as it must be"));
    }
    let (values, not_values) = (Some(values), Some(not_values));
    const VALUES: &str = "when.values";
    const NOT_VALUES: &str = "when.notValues";
    let mut one = PolicyMatch::default();
    match key {
        "source.ip" => {
            (one.source_ips, one.not_source_ips) = (ranges(values, VALUES)?, ranges(not_values, NOT_VALUES)?);
        }
        "remote.ip" => {
            (one.remote_ips, one.not_remote_ips) = (ranges(values, VALUES)?, ranges(not_values, NOT_VALUES)?);
        }
        "destination.ip" => {
            one.destination_ips = ranges(values, VALUES)?;
            one.not_destination_ips = ranges(not_values, NOT_VALUES)?;
        }
        "destination.port" => {
            one.destination_ports = ports(values, VALUES)?;
            one.not_destination_ports = ports(not_values, NOT_VALUES)?;
        }
        "source.namespace" => {
            (one.namespaces, one.not_namespaces) = (globs(values, VALUES)?, globs(not_values, NOT_VALUES)?);
        }
        "source.principal" => {
            (one.principals, one.not_principals) = (texts(values, VALUES)?, texts(not_values, NOT_VALUES)?);
        }
        "source.serviceAccount" => {
            one.service_accounts = accounts(values, own, VALUES)?;
            one.not_service_accounts = accounts(not_values, own, NOT_VALUES)?;
        }
        "source.trustDomain" => {
            one.trust_domains = texts(values, VALUES)?;
            one.not_trust_domains = texts(not_values, NOT_VALUES)?;
        }
        "connection.sni" => {
            // Host names know no upper case, and agents compare with lower case.
            let lower = |list: Option<Vec<Text>>| {
                list.map(|list| list.into_iter().map(|text| Text(text.0.to_ascii_lowercase())).collect())
            };
            one.server_names = texts(lower(values), VALUES)?;
            one.not_server_names = texts(lower(not_values), NOT_VALUES)?;
        }
        _ => {
            let field = of_http(key)
                .ok_or_else(|| invalid("when.key", key, "an attribute that policies can be made of"))?;
            texts(values, VALUES)?;
            texts(not_values, NOT_VALUES)?;
            return Ok(PolicyPart { connection: one, http: vec![field] });
        }
    }
    Ok(PolicyPart { connection: one, http: Vec::new() })
}

/// The name of an attribute of HTTP requests, without what stands in its brackets.
fn of_http(key: &str) -> Option<&'static str> {
    let bracketed = |name: &str, several: bool| {
        let inside = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
        let good = |part: &str| !part.is_empty() && !part.contains(['[', ']']);
        if several { inside.split("][").all(good).then_some(()) } else { good(inside).then_some(()) }
    };
    match key {
        "request.auth.principal" => Some("request.auth.principal"),
        "request.auth.audiences" => Some("request.auth.audiences"),
        "request.auth.presenter" => Some("request.auth.presenter"),
        _ if bracketed("request.headers", false).is_some() => Some("request.headers"),
        _ if bracketed("request.auth.claims", true).is_some() => Some("request.auth.claims"),
        _ => None,
    }
}
