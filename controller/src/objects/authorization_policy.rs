//! AuthorizationPolicies: who may connect to which pods.

use super::{Map, Name};
use warren_common::model::PolicyMatch;

/// `action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyAction {
    /// `ALLOW`: what matches may enter, and whoever has such a policy takes nothing else.
    #[default]
    Allow,
    /// `DENY`: what matches may not enter.
    Deny,
    /// `AUDIT`: what matches is marked.
    Audit,
    /// `CUSTOM`: somebody outside of the mesh is asked about what matches.
    Custom,
}

/// What a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyTarget {
    /// Workloads with these labels; without any: all of the namespace, or of the mesh.
    Workloads(Map),
    /// `targetRefs`: gateways and services, whose requests are looked into.
    Attached,
}

/// One source, one operation or one condition, split into what every connection has and what needs HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyPart {
    /// What holds of a connection.
    pub connection: PolicyMatch,
    /// Fields that only an HTTP request has, by their names.
    pub http: Vec<&'static str>,
}

/// One of `rules`: any source (if there are any), any operation (if there are any) and every condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// `from`.
    pub from: Vec<PolicyPart>,
    /// `to`.
    pub to: Vec<PolicyPart>,
    /// `when`.
    pub when: Vec<PolicyPart>,
}

/// A `security.istio.io/AuthorizationPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Namespace and name.
    pub name: Name,
    /// `action`.
    pub action: PolicyAction,
    /// Annotated `istio.io/dry-run`: evaluated and shown, never enforced.
    pub dry_run: bool,
    /// Whom it is for.
    pub target: PolicyTarget,
    /// `rules`.
    pub rules: Vec<PolicyRule>,
}

impl AuthorizationPolicy {
    /// Whether connections are judged by it at all.
    pub fn judges(&self) -> bool {
        self.action != PolicyAction::Audit && self.target != PolicyTarget::Attached
    }

    /// The labels that it selects workloads by, if it judges and selects.
    pub fn selector(&self) -> Option<&Map> {
        match &self.target {
            PolicyTarget::Workloads(labels) if self.judges() && !labels.is_empty() => Some(labels),
            _ => None,
        }
    }
}

impl PolicyRule {
    /// Every part.
    pub fn parts(&self) -> impl Iterator<Item = &PolicyPart> {
        self.from.iter().chain(&self.to).chain(&self.when)
    }
}
