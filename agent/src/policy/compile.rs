//! A policy as connections are judged by it: made once when it arrives.

use super::text::{Principals, Texts};
use super::{Connection, RuleName};
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::{
    AuthorizationPolicy, Cidr, Identity, PolicyAction, PolicyMatch, PolicyRule, ServiceAccountMatch,
    StringMatch,
};

/// A policy, compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) policy: Arc<AuthorizationPolicy>,
    rules: Vec<CompiledRule>,
}

#[derive(Debug)]
struct CompiledRule {
    name: Arc<RuleName>,
    clauses: Vec<Vec<Match>>,
}

/// One alternative. What costs least is asked first.
#[derive(Debug)]
struct Match {
    ports: Pair<Vec<u16>>,
    destinations: Pair<Vec<Cidr>>,
    peers: Pair<Vec<Cidr>>,
    clients: Pair<Vec<Cidr>>,
    namespaces: Pair<Texts>,
    trust_domains: Pair<Texts>,
    service_accounts: Pair<Vec<ServiceAccountMatch>>,
    principals: Pair<Principals>,
    server_names: Pair<Texts>,
}

/// Any of the values, and none of those.
#[derive(Debug)]
struct Pair<T> {
    any: Option<T>,
    none: Option<T>,
}

impl<T> Pair<T> {
    fn holds(&self, matches: impl Fn(&T) -> bool) -> bool {
        self.any.as_ref().is_none_or(&matches) && !self.none.as_ref().is_some_and(&matches)
    }

    fn is_empty(&self) -> bool {
        self.any.is_none() && self.none.is_none()
    }
}

impl Compiled {
    pub(super) fn new(policy: Arc<AuthorizationPolicy>) -> Self {
        let rules = policy.rules.iter().map(|rule| CompiledRule::new(&policy, rule)).collect();
        Self { policy, rules }
    }

    /// The first rule that matches. A condition on a server name that nobody has read fails where that permits less, or,
    /// if `hopeful`, where that permits more.
    pub(super) fn matching(&self, connection: &Connection<'_>, hopeful: bool) -> Option<&Arc<RuleName>> {
        let unread = (self.policy.action == PolicyAction::Deny) != hopeful;
        let rule = self.rules.iter().find(|rule| rule.matches(connection, unread))?;
        Some(&rule.name)
    }

    /// Whether it says anything about connections to this port.
    pub(super) fn concerns(&self, port: u16) -> bool {
        self.policy.only_ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    /// Whether it has a condition on the server name.
    pub(super) fn names_servers(&self) -> bool {
        let mut all = self.rules.iter().flat_map(|rule| &rule.clauses).flatten();
        all.any(|one| !one.server_names.is_empty())
    }
}

impl CompiledRule {
    fn new(policy: &AuthorizationPolicy, rule: &PolicyRule) -> Self {
        let verb = match policy.action {
            PolicyAction::Allow => "allow",
            PolicyAction::Deny => "deny",
        };
        let shown = format!("{verb} {}#{}", policy.name, rule.index).into();
        let name = Arc::new(RuleName { policy: policy.name.clone(), index: rule.index, shown });
        let clauses = rule.clauses.iter().map(|clause| clause.iter().map(Match::new).collect()).collect();
        Self { name, clauses }
    }

    fn matches(&self, connection: &Connection<'_>, unread: bool) -> bool {
        self.clauses.iter().all(|clause| clause.iter().any(|one| one.holds(connection, unread)))
    }
}

impl Match {
    fn new(one: &PolicyMatch) -> Self {
        fn pair<T, U>(any: &[T], none: &[T], make: impl Fn(&[T]) -> Option<U>) -> Pair<U> {
            Pair { any: make(any), none: make(none) }
        }
        fn list<T: Clone>(values: &[T]) -> Option<Vec<T>> {
            (!values.is_empty()).then(|| values.to_vec())
        }
        let texts = |any: &[StringMatch], none: &[StringMatch]| pair(any, none, Texts::new);
        Self {
            ports: pair(&one.destination_ports, &one.not_destination_ports, list),
            destinations: pair(&one.destination_ips, &one.not_destination_ips, list),
            peers: pair(&one.source_ips, &one.not_source_ips, list),
            clients: pair(&one.remote_ips, &one.not_remote_ips, list),
            namespaces: texts(&one.namespaces, &one.not_namespaces),
            trust_domains: texts(&one.trust_domains, &one.not_trust_domains),
            service_accounts: pair(&one.service_accounts, &one.not_service_accounts, list),
            principals: pair(&one.principals, &one.not_principals, Principals::new),
            server_names: texts(&one.server_names, &one.not_server_names),
        }
    }

    /// `unread`: what a condition on a server name counts as that nobody has read.
    fn holds(&self, connection: &Connection<'_>, unread: bool) -> bool {
        let Connection { source, peer, client, destination, server_name } = *connection;
        let within = |ranges: &Vec<Cidr>, ip: IpAddr| ranges.iter().any(|range| range.contains(ip));
        let of_source = |texts: &Texts, part: fn(&Identity) -> &str| {
            source.is_some_and(|identity| texts.matches(part(identity)))
        };
        let is_account = |one: &ServiceAccountMatch| {
            source.is_some_and(|identity| {
                identity.namespace() == &*one.namespace && identity.service_account() == &*one.service_account
            })
        };
        self.ports.holds(|ports| ports.contains(&destination.port()))
            && self.destinations.holds(|ranges| within(ranges, destination.ip()))
            && self.peers.holds(|ranges| within(ranges, peer))
            && self.clients.holds(|ranges| within(ranges, client))
            && self.namespaces.holds(|texts| of_source(texts, Identity::namespace))
            && self.trust_domains.holds(|texts| of_source(texts, Identity::trust_domain))
            && self.service_accounts.holds(|accounts| accounts.iter().any(is_account))
            && self.principals.holds(|principals| principals.matches(source))
            && match server_name {
                Some(name) => self.server_names.holds(|texts| texts.matches(name)),
                None => self.server_names.is_empty() || unread,
            }
    }
}
