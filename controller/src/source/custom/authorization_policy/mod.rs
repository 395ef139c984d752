//! `security.istio.io/AuthorizationPolicy`, with the checks of Istio's validation.

mod condition;
mod unread;
mod values;

use super::{Custom, MatchLabels, selector_labels};
use crate::objects::{self, Map, Object, PolicyAction, PolicyPart, PolicyRule, PolicyTarget};
use crate::source::ConvertError;
use crate::source::convert::invalid;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
pub(in crate::source) use unread::stand_in;
use values::{Text, accounts, globs, paths, ports, ranges, texts};
use warren_common::model::{PolicyMatch, PolicyName};

/// As the API server hands it out.
pub(in crate::source) type AuthorizationPolicy = Custom<Spec>;

const MAX_RULES: usize = 512;
const MAX_SOURCES: usize = 512;
const MAX_TARGETS: usize = 16;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::source) struct Spec {
    selector: Option<MatchLabels>,
    /// Deprecated, and still read by Istio.
    target_ref: Option<TargetRef>,
    target_refs: Option<Vec<TargetRef>>,
    action: Option<Action>,
    provider: Option<Provider>,
    rules: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetRef {
    #[serde(default)]
    group: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Action {
    Allow,
    Deny,
    Audit,
    Custom,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    from: Option<Vec<From>>,
    to: Option<Vec<To>>,
    when: Option<Vec<When>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    source: Option<Source>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    operation: Option<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Source {
    principals: Option<Vec<Text>>,
    not_principals: Option<Vec<Text>>,
    request_principals: Option<Vec<Text>>,
    not_request_principals: Option<Vec<Text>>,
    namespaces: Option<Vec<Text>>,
    not_namespaces: Option<Vec<Text>>,
    service_accounts: Option<Vec<Text>>,
    not_service_accounts: Option<Vec<Text>>,
    ip_blocks: Option<Vec<Text>>,
    not_ip_blocks: Option<Vec<Text>>,
    remote_ip_blocks: Option<Vec<Text>>,
    not_remote_ip_blocks: Option<Vec<Text>>,
    trust_domains: Option<Vec<Text>>,
    not_trust_domains: Option<Vec<Text>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Operation {
    hosts: Option<Vec<Text>>,
    not_hosts: Option<Vec<Text>>,
    ports: Option<Vec<Text>>,
    not_ports: Option<Vec<Text>>,
    methods: Option<Vec<Text>>,
    not_methods: Option<Vec<Text>>,
    paths: Option<Vec<Text>>,
    not_paths: Option<Vec<Text>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct When {
    key: String,
    values: Option<Vec<Text>>,
    not_values: Option<Vec<Text>>,
}

impl TryFrom<AuthorizationPolicy> for Object {
    type Error = ConvertError;

    fn try_from(object: AuthorizationPolicy) -> Result<Self, ConvertError> {
        let (name, dry_run) = (object.metadata.name()?, object.metadata.dry_run()?);
        PolicyName::new(&name.namespace, &name.name)
            .map_err(|_| invalid("metadata.name", &name.to_string(), "a name that Kubernetes allows"))?;
        let spec = object.spec.unwrap_or_default();
        let action = action(&spec, dry_run)?;
        let rules = spec.rules.unwrap_or_default();
        if rules.len() > MAX_RULES {
            return Err(invalid("spec.rules", &rules.len().to_string(), "a list of at most 512 rules"));
        }
        let rules = rules.into_iter().enumerate().map(|(index, wire)| {
            let error = |error| ConvertError::Rule { index, error: Box::new(error) };
            rule(wire, &name.namespace).map_err(error)
        });
        Ok(Self::AuthorizationPolicy(objects::AuthorizationPolicy {
            action,
            dry_run,
            rules: rules.collect::<Result<_, _>>()?,
            target: target(spec.selector, spec.target_ref, spec.target_refs)?,
            name,
            unread: None,
        }))
    }
}

/// The action, if it goes with what is around it.
fn action(spec: &Spec, dry_run: bool) -> Result<PolicyAction, ConvertError> {
    let action = match spec.action {
        None | Some(Action::Allow) => PolicyAction::Allow,
        Some(Action::Deny) => PolicyAction::Deny,
        Some(Action::Audit) => PolicyAction::Audit,
        Some(Action::Custom) => PolicyAction::Custom,
    };
    let is_custom = action == PolicyAction::Custom;
    let provider = spec.provider.as_ref().map(|provider| provider.name.as_str());
    let wrong = match action {
        PolicyAction::Deny | PolicyAction::Custom if spec.rules.as_ref().is_none_or(Vec::is_empty) => {
            "spec.rules is missing: without rules DENY and CUSTOM would match nothing (rules: [{}] matches everything)"
        }
        _ if is_custom && provider.is_none_or(str::is_empty) => "spec.provider.name: CUSTOM needs one",
        _ if !is_custom && provider.is_some() => "spec.provider goes with CUSTOM only",
        PolicyAction::Audit | PolicyAction::Custom if dry_run => {
            "metadata.annotations[istio.io/dry-run] goes with ALLOW and DENY only"
        }
        _ => return Ok(action),
    };
    Err(ConvertError::Contradiction(wrong))
}

fn target(
    selector: Option<MatchLabels>,
    single: Option<TargetRef>,
    several: Option<Vec<TargetRef>>,
) -> Result<PolicyTarget, ConvertError> {
    const FIELD: &str = "spec.targetRefs";
    let several = several.unwrap_or_default();
    if [selector.is_some(), single.is_some(), !several.is_empty()].into_iter().filter(|is| *is).count() > 1 {
        return Err(ConvertError::Contradiction("spec.selector and spec.targetRefs exclude each other"));
    }
    if several.len() > MAX_TARGETS {
        return Err(invalid(FIELD, &several.len().to_string(), "a list of at most 16 references"));
    }
    let targets: Vec<_> = single.into_iter().chain(several).collect();
    for TargetRef { group, kind, name, namespace } in &targets {
        let is_known = matches!(
            (group.as_str(), kind.as_str()),
            ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
                | ("" | "core", "Service")
                | ("networking.istio.io", "ServiceEntry")
        );
        if !is_known {
            let found = format!("{group}/{kind}");
            return Err(invalid(FIELD, &found, "a Gateway, GatewayClass, Service or ServiceEntry"));
        }
        if name.is_empty() {
            return Err(ConvertError::Missing("spec.targetRefs.name"));
        }
        if !namespace.is_empty() {
            return Err(invalid("spec.targetRefs.namespace", namespace, "empty, as it must be"));
        }
    }
    if !targets.is_empty() {
        let (mut services, mut others) = (BTreeSet::new(), BTreeSet::new());
        for TargetRef { kind, name, .. } in targets {
            match kind.as_str() {
                "Service" => services.insert(Arc::from(name)),
                _ => others.insert(format!("{kind} {name}").into()),
            };
        }
        return Ok(PolicyTarget::Attached { services, others });
    }
    let labels: Map =
        selector_labels(selector.unwrap_or_default().match_labels, "spec.selector.matchLabels")?;
    Ok(PolicyTarget::Workloads(labels))
}

fn rule(wire: Rule, own: &Arc<str>) -> Result<PolicyRule, ConvertError> {
    let Rule { from, to, when } = wire;
    if from.as_ref().is_some_and(Vec::is_empty) || to.as_ref().is_some_and(Vec::is_empty) {
        return Err(ConvertError::Contradiction(
            "from and to hold something or are absent: empty, they would match nothing",
        ));
    }
    let from = from.unwrap_or_default();
    if from.len() > MAX_SOURCES {
        return Err(invalid("from", &from.len().to_string(), "a list of at most 512 sources"));
    }
    let from = from.into_iter().map(|entry| source(entry.source.unwrap_or_default(), own));
    let to = to.unwrap_or_default().into_iter().map(|entry| operation(entry.operation.unwrap_or_default()));
    let when = when.unwrap_or_default().into_iter();
    let when = when.map(|When { key, values, not_values }| {
        condition::part(&key, values.unwrap_or_default(), not_values.unwrap_or_default(), own)
    });
    Ok(PolicyRule {
        from: from.collect::<Result<_, _>>()?,
        to: to.collect::<Result<_, _>>()?,
        when: when.collect::<Result<_, _>>()?,
    })
}

fn source(wire: Source, own: &Arc<str>) -> Result<PolicyPart, ConvertError> {
    let is_there = |list: &Option<Vec<Text>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let by_account = is_there(&wire.service_accounts) || is_there(&wire.not_service_accounts);
    let by_name = [&wire.principals, &wire.not_principals, &wire.namespaces, &wire.not_namespaces];
    if by_account && by_name.into_iter().any(is_there) {
        return Err(ConvertError::Contradiction(
            "source: serviceAccounts exclude principals and namespaces, which they already say",
        ));
    }
    let mut part = PolicyPart {
        connection: PolicyMatch {
            principals: texts(wire.principals, "principals")?,
            not_principals: texts(wire.not_principals, "notPrincipals")?,
            namespaces: globs(wire.namespaces, "namespaces")?,
            not_namespaces: globs(wire.not_namespaces, "notNamespaces")?,
            service_accounts: accounts(wire.service_accounts, own, "serviceAccounts")?,
            not_service_accounts: accounts(wire.not_service_accounts, own, "notServiceAccounts")?,
            trust_domains: texts(wire.trust_domains, "trustDomains")?,
            not_trust_domains: texts(wire.not_trust_domains, "notTrustDomains")?,
            source_ips: ranges(wire.ip_blocks, "ipBlocks")?,
            not_source_ips: ranges(wire.not_ip_blocks, "notIpBlocks")?,
            remote_ips: ranges(wire.remote_ip_blocks, "remoteIpBlocks")?,
            not_remote_ips: ranges(wire.not_remote_ip_blocks, "notRemoteIpBlocks")?,
            ..PolicyMatch::default()
        },
        http: Vec::new(),
    };
    for (list, field) in [
        (wire.request_principals, "requestPrincipals"),
        (wire.not_request_principals, "notRequestPrincipals"),
    ] {
        of_http(&mut part, texts(list, field)?.len(), field);
    }
    constraining(part, "source: it holds at least one field that is not empty")
}

fn operation(wire: Operation) -> Result<PolicyPart, ConvertError> {
    let mut part = PolicyPart {
        connection: PolicyMatch {
            destination_ports: ports(wire.ports, "ports")?,
            not_destination_ports: ports(wire.not_ports, "notPorts")?,
            ..PolicyMatch::default()
        },
        http: Vec::new(),
    };
    for (list, field) in [
        (wire.hosts, "hosts"),
        (wire.not_hosts, "notHosts"),
        (wire.methods, "methods"),
        (wire.not_methods, "notMethods"),
    ] {
        of_http(&mut part, texts(list, field)?.len(), field);
    }
    for (list, field) in [(wire.paths, "paths"), (wire.not_paths, "notPaths")] {
        of_http(&mut part, paths(list, field)?, field);
    }
    constraining(part, "operation: it holds at least one field that is not empty")
}

fn of_http(part: &mut PolicyPart, values: usize, field: &'static str) {
    if values > 0 {
        part.http.push(field);
    }
}

fn constraining(part: PolicyPart, otherwise: &'static str) -> Result<PolicyPart, ConvertError> {
    if part == PolicyPart::default() { Err(ConvertError::Contradiction(otherwise)) } else { Ok(part) }
}
