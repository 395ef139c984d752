//! What one pod is guarded by: every policy that applies to it, in the order in which it counts.

use super::book::{Applying, Policies};
use super::compile::Compiled;
use super::{Connection, Decision, Denial, Permit, is_reserved};
use imbl::OrdSet;
use std::sync::{Arc, LazyLock};
use warren_common::model::{Identity, PeerAuthentication, PolicyAction, PolicyName, Workload};

/// The policies for one pod; made when they, or what of the pod counts, change.
#[derive(Debug)]
pub struct Effective {
    peer_authentication: PeerAuthentication,
    identity: Identity,
    revoked: OrdSet<Identity>,
    /// Nobody may enter: policies cannot be had.
    closed: Option<Denial>,
    /// Which.
    lacking: Vec<PolicyName>,
    // By name, so that the same connection is always judged by the same rule.
    enforced: ByAction,
    dry_run: ByAction,
    /// One of those enforced has a condition on the server name.
    names_servers: bool,
}

#[derive(Debug, Default)]
struct ByAction {
    deny: Vec<Arc<Compiled>>,
    allow: Vec<Arc<Compiled>>,
}

impl Effective {
    /// The policies for `workload`.
    pub fn new(policies: &Policies, workload: &Workload) -> Self {
        let index = policies.index();
        let mut closed = (!index.known).then_some(Denial::Unknown);
        let mut lacking = Vec::new();
        let mut close = |name: &PolicyName, denial: Denial| {
            lacking.push(name.clone());
            closed.get_or_insert(denial);
        };
        let mut good: Vec<Arc<Compiled>> = Vec::new();
        let of_namespace = index.by_namespace.get(&workload.namespace).into_iter().flatten();
        let named = |name: &PolicyName| index.by_name.get(name).ok_or_else(|| name.clone());
        let by_scope = index.global.iter().chain(of_namespace).map(Ok);
        for applying in by_scope.chain(workload.authorization_policies.iter().map(named)) {
            match applying {
                Ok(Applying::Good(policy)) => good.push(Arc::clone(policy)),
                Ok(Applying::Refused(policy, why)) => {
                    close(policy, Denial::Refused { policy: policy.clone(), why: Arc::clone(why) });
                }
                Err(name) => close(&name.clone(), Denial::Missing(name)),
            }
        }
        good.sort_by(|a, b| a.policy.name.cmp(&b.policy.name));
        good.dedup_by(|a, b| Arc::ptr_eq(a, b));
        let (mut enforced, mut dry_run) = (ByAction::default(), ByAction::default());
        for policy in good {
            let lists = if policy.policy.dry_run { &mut dry_run } else { &mut enforced };
            match policy.policy.action {
                PolicyAction::Deny => lists.deny.push(policy),
                PolicyAction::Allow => lists.allow.push(policy),
            }
        }
        let names_servers = enforced.deny.iter().chain(&enforced.allow).any(|policy| policy.names_servers());
        Self {
            peer_authentication: workload.peer_authentication.clone(),
            identity: workload.identity.clone(),
            revoked: index.revoked.clone(),
            closed,
            lacking,
            enforced,
            dry_run,
            names_servers,
        }
    }

    /// Whether every connection is judged the same by both: made of the very same policies.
    pub fn is_same(&self, other: &Self) -> bool {
        self.peer_authentication == other.peer_authentication
            && self.identity == other.identity
            && (self.revoked.ptr_eq(&other.revoked) || self.revoked == other.revoked)
            && self.closed == other.closed
            && self.enforced.is_same(&other.enforced)
            && self.dry_run.is_same(&other.dry_run)
    }

    /// Whether nobody may enter only because something has not come yet that is likely on its way.
    pub fn may_settle(&self) -> bool {
        self.closed.as_ref().is_some_and(Denial::may_settle)
    }

    /// The names of the policies that apply, enforced or not, with those that cannot be had.
    pub fn names(&self) -> Vec<PolicyName> {
        let lists = [&self.enforced.deny, &self.enforced.allow, &self.dry_run.deny, &self.dry_run.allow];
        let mut names: Vec<_> =
            lists.into_iter().flatten().map(|compiled| compiled.policy.name.clone()).collect();
        names.extend(self.lacking.iter().cloned());
        names.sort();
        names.dedup();
        names
    }

    /// Judges one connection. Allocates nothing for one that may enter.
    pub fn judge(&self, connection: &Connection<'_>) -> Decision {
        let verdict = self.verdict(connection, false, false);
        let is_dry = !self.dry_run.deny.is_empty() || !self.dry_run.allow.is_empty();
        let dry_run = is_dry.then(|| match self.verdict(connection, true, false) {
            Ok(permit) => permit.rule,
            Err(denial) => denial.rule(),
        });
        Decision { verdict, dry_run }
    }

    /// Whether the server name decides, which nobody has looked for yet: without it the connection may not enter, and with
    /// the right one it might. Dry-run policies never make anybody look.
    pub fn hinges_on_server_name(&self, connection: &Connection<'_>) -> bool {
        self.names_servers
            && connection.server_name.is_none()
            && self.verdict(connection, false, false).is_err()
            && self.verdict(connection, false, true).is_ok()
    }

    /// `hopeful`: as if a server name that nobody has read were the best one.
    fn verdict(
        &self,
        connection: &Connection<'_>,
        with_dry_run: bool,
        hopeful: bool,
    ) -> Result<Permit, Denial> {
        let port = connection.destination.port();
        if is_reserved(port) {
            return Err(Denial::ReservedPort(port));
        }
        let mut ends = connection.source.into_iter().chain([&self.identity]);
        if let Some(revoked) = ends.find(|identity| self.revoked.contains(*identity)) {
            return Err(Denial::Revoked(revoked.clone()));
        }
        let mtls = self.peer_authentication.of_port(port);
        if connection.source.is_none() && mtls.strict {
            return Err(Denial::Plaintext { rule: Arc::clone(&mtls.rule), port });
        }
        if let Some(denial) = &self.closed {
            return Err(denial.clone());
        }
        let lists = [Some(&self.enforced), with_dry_run.then_some(&self.dry_run)];
        let lists = || lists.into_iter().flatten();
        let denying = || lists().flat_map(|list| &list.deny).filter(|policy| policy.concerns(port));
        let allowing = || lists().flat_map(|list| &list.allow).filter(|policy| policy.concerns(port));
        if let Some(rule) = denying().find_map(|policy| policy.matching(connection, hopeful)) {
            return Err(Denial::Rule(Arc::clone(rule)));
        }
        if allowing().next().is_none() {
            let rule = match connection.source {
                Some(_) => &*NO_ALLOW,
                None if mtls.rule.is_empty() => &*PERMISSIVE,
                None => &mtls.rule,
            };
            return Ok(Permit::new(Arc::clone(rule)));
        }
        let allowed = allowing().find_map(|policy| policy.matching(connection, hopeful));
        allowed.map(|rule| Permit::new(Arc::clone(&rule.shown))).ok_or(Denial::NoRule)
    }
}

static NO_ALLOW: LazyLock<Arc<str>> = LazyLock::new(|| "allow (no ALLOW policy)".into());
static PERMISSIVE: LazyLock<Arc<str>> = LazyLock::new(|| "warren/permissive".into());

impl ByAction {
    fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Compiled>], b: &[Arc<Compiled>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        same(&self.deny, &other.deny) && same(&self.allow, &other.allow)
    }
}
