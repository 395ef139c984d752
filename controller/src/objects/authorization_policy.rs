//! AuthorizationPolicies: who may connect to which pods.

use super::{Map, Name};
use std::collections::BTreeSet;
use std::sync::Arc;
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
    /// `targetRefs`.
    Attached {
        /// Services of its namespace: it is for whom they lead to, at the ports that they lead to.
        services: BTreeSet<Arc<str>>,
        /// What else, as `kind name`: gateways and hosts outside, where nothing is judged.
        others: BTreeSet<Arc<str>>,
    },
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
    /// It is not understood, and never was: why. Then this stands for it, and denies all that it may be for.
    pub unread: Option<Arc<str>>,
}

impl AuthorizationPolicy {
    /// Whether connections are judged by it at all.
    pub fn judges(&self) -> bool {
        let is_for_somebody = match &self.target {
            PolicyTarget::Workloads(_) => true,
            PolicyTarget::Attached { services, .. } => !services.is_empty(),
        };
        self.action != PolicyAction::Audit && is_for_somebody
    }

    /// The services that it is attached to, if it judges.
    pub fn services(&self) -> impl Iterator<Item = Name> + '_ {
        let services = match &self.target {
            PolicyTarget::Attached { services, .. } if self.judges() => Some(services),
            _ => None,
        };
        services.into_iter().flatten().map(|name| Name::new(self.name.namespace.clone(), name.clone()))
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
