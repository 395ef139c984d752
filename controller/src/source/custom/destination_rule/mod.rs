//! `networking.istio.io/DestinationRule`, with the checks of Istio's validation.

mod balancer;
mod pool;

use super::endpoint::host;
use super::fields::{Fields, Notes, wrong};
use super::visibility::exported_to;
use super::{Custom, MAX_TEXT};
use crate::objects::{self, NoteKind, Object};
use crate::source::ConvertError;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::traffic::{PortPolicy, Subset, TlsMode, TlsOrigination, TrafficPolicy};

const MAX_PORTS: usize = 4096;

/// As the API server hands it out.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(in crate::source) struct DestinationRule(Custom<Value>);

impl TryFrom<DestinationRule> for Object {
    type Error = ConvertError;

    fn try_from(DestinationRule(object): DestinationRule) -> Result<Self, ConvertError> {
        let (name, created) = (object.metadata.name()?, object.metadata.created()?);
        let notes = Notes::default();
        let mut rule = {
            let mut spec = Fields::of(object.spec.ok_or(ConvertError::Missing("spec"))?, "spec", &notes)?;
            let clients = spec
                .fields("workloadSelector")?
                .map(|mut selector| selector.labels("matchLabels"))
                .transpose()?;
            let policy = spec.fields("trafficPolicy")?.map(policy).transpose()?;
            let subsets = spec.list("subsets", 1024, subset)?;
            for (index, subset) in subsets.iter().enumerate() {
                if subsets[..index].iter().any(|earlier| earlier.name == subset.name) {
                    return Err(spec.wrong("subsets", format_args!("{} is there twice", subset.name)));
                }
            }
            objects::DestinationRule {
                host: pattern(&mut spec)?,
                exported_to: exported_to(&mut spec, &name.namespace, clients.is_some())?,
                name,
                created,
                clients,
                policy,
                subsets,
                notes: Vec::new(),
            }
        };
        rule.notes = notes.into_inner();
        Ok(Self::DestinationRule(Box::new(rule)))
    }
}

/// `host`: a name, an address, or `*` and a suffix.
fn pattern(spec: &mut Fields<'_>) -> Result<Arc<str>, ConvertError> {
    let text = spec.required("host", MAX_TEXT)?;
    if *text == *"*" || text.parse::<IpAddr>().is_ok() {
        return Ok(text);
    }
    let (star, name) = text.strip_prefix("*.").map_or(("", &*text), |name| ("*.", name));
    let name = host(name, "host");
    let name = name.map_err(|_| {
        spec.wrong("host", format_args!("{text:?} is not a DNS name, `*` or `*.` and a name"))
    })?;
    Ok(format!("{star}{name}").into())
}

fn subset(mut fields: Fields<'_>) -> Result<Subset, ConvertError> {
    let name = fields.required("name", 63)?;
    let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if !name.bytes().all(is_label) {
        return Err(fields.wrong("name", format_args!("{name:?} is not a name of letters, digits, - and .")));
    }
    let policy = fields.fields("trafficPolicy")?.map(policy).transpose()?;
    Ok(Subset { name, labels: fields.labels("labels")?, policy: policy.unwrap_or_default() })
}

fn policy(mut fields: Fields<'_>) -> Result<TrafficPolicy, ConvertError> {
    let all = parts(&mut fields)?;
    let mut ports = BTreeMap::new();
    let entries = fields.list("portLevelSettings", MAX_PORTS, |mut entry| {
        let mut port = entry.fields("port")?.ok_or_else(|| entry.wrong("port", "it is missing"))?;
        let number = port.port("number")?.ok_or_else(|| port.wrong("number", "it is missing"))?;
        Ok((number, parts(&mut entry)?))
    })?;
    for (number, parts) in entries {
        if ports.insert(number, parts).is_some() {
            return Err(fields.wrong("portLevelSettings", format_args!("port {number} is there twice")));
        }
    }
    let has_tunnel = fields
        .unsupported("tunnel", "connections are not wrapped into CONNECT for proxies outside of the mesh");
    let proxy = fields.unsupported("proxyProtocol", "the PROXY protocol is not spoken to endpoints");
    let budget = match fields.fields("retryBudget")? {
        None => None,
        Some(mut budget) => {
            let percent = budget.decimal("percent", 0.0, 100.0)?.unwrap_or(20.0);
            budget.unsupported("budgetInterval", "the budget is of what is active now");
            // Whole percents are enough; a fraction is not rounded down to never.
            Some((percent.ceil() as u8, budget.number32("minRetryConcurrency", u32::MAX)?.unwrap_or(3)))
        }
    };
    let policy = TrafficPolicy {
        all,
        ports,
        retry_budget_percent: budget.map(|(percent, _)| percent),
        retry_budget_min: budget.map(|(_, least)| least),
    };
    if policy == TrafficPolicy::default() && !has_tunnel && !proxy {
        return Err(wrong(fields.path(), "it says nothing"));
    }
    Ok(policy)
}

fn parts(fields: &mut Fields<'_>) -> Result<PortPolicy, ConvertError> {
    Ok(PortPolicy {
        balancer: fields.fields("loadBalancer")?.map(balancer::balancer).transpose()?,
        pool: fields.fields("connectionPool")?.map(pool::pool).transpose()?,
        outliers: fields.fields("outlierDetection")?.map(pool::outliers).transpose()?,
        tls: fields.fields("tls")?.map(tls).transpose()?,
    })
}

fn tls(mut fields: Fields<'_>) -> Result<TlsOrigination, ConvertError> {
    let modes = [
        ("DISABLE", TlsMode::Disable),
        ("SIMPLE", TlsMode::Simple),
        ("MUTUAL", TlsMode::Mutual),
        ("ISTIO_MUTUAL", TlsMode::IstioMutual),
    ];
    let mode = fields.choice("mode", &modes)?.unwrap_or(TlsMode::Disable);
    let mut file = |name: &str| fields.text(name, 4096);
    let (certificate_file, key_file, ca_file) =
        (file("clientCertificate")?, file("privateKey")?, file("caCertificates")?);
    let secret = fields.text("credentialName", MAX_TEXT)?;
    let revoked = fields.unsupported("caCrl", "certificates are not looked up in lists of revoked ones");
    let files = certificate_file.is_some() || key_file.is_some() || ca_file.is_some();
    if secret.is_some() {
        if files {
            return Err(fields.wrong("credentialName", "it excludes files"));
        }
        if mode == TlsMode::Mutual {
            return Err(
                fields.wrong("credentialName", "secrets are not read for clients; name files on the node")
            );
        }
        let why = "secrets are not read for clients; certificates are verified against the node's roots";
        fields.note(fields.at("credentialName"), NoteKind::Unsupported(why));
    }
    if mode == TlsMode::Mutual && (certificate_file.is_none() || key_file.is_none()) {
        return Err(wrong(fields.path(), "MUTUAL needs clientCertificate and privateKey"));
    }
    let insecure_skip_verify = fields.flag("insecureSkipVerify")?.unwrap_or_default();
    if mode == TlsMode::IstioMutual && (files || secret.is_some() || revoked || insecure_skip_verify) {
        return Err(wrong(fields.path(), "ISTIO_MUTUAL takes the mesh's own certificates, and no others"));
    }
    Ok(TlsOrigination {
        mode,
        sni: fields.text("sni", MAX_TEXT)?,
        subject_alt_names: fields.texts("subjectAltNames", 256, 2048)?,
        insecure_skip_verify,
        ca_file,
        certificate_file,
        key_file,
    })
}

#[cfg(test)]
mod tests;
