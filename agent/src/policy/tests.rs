//! Every row of AuthorizationPolicy's and PeerAuthentication's meaning on connections; in `laws` what holds for all.

mod laws;

use super::*;
use crate::pods::testing;
use PolicyAction::{Allow, Deny};
use warren_common::model::{
    AuthorizationPolicy, MtlsRule, PeerAuthentication, PolicyAction, PolicyMatch, PolicyRule, PolicyScope,
    ServiceAccountMatch, StringMatch, Workload,
};

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn glob(text: &str) -> StringMatch {
    StringMatch::Glob(text.into())
}

fn one() -> PolicyMatch {
    PolicyMatch::default()
}

fn rule(index: u32, clauses: Vec<Vec<PolicyMatch>>) -> PolicyRule {
    PolicyRule { index, clauses }
}

fn policy(name: &str, action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    let name = name.parse().unwrap();
    AuthorizationPolicy {
        name,
        scope: PolicyScope::Namespace,
        action,
        dry_run: false,
        only_ports: None,
        rules,
    }
}

/// One rule, one clause, one match.
fn simple(name: &str, action: PolicyAction, one: PolicyMatch) -> AuthorizationPolicy {
    policy(name, action, vec![rule(0, vec![vec![one]])])
}

/// Matches every connection.
fn all(name: &str, action: PolicyAction) -> AuthorizationPolicy {
    policy(name, action, vec![rule(0, vec![])])
}

fn book(policies: &[AuthorizationPolicy]) -> Policies {
    let mut book = Policies::default();
    book.told();
    for policy in policies {
        book.put(Arc::new(policy.clone()));
    }
    book.settle();
    book
}

/// A pod of the namespace `shop`.
fn pod(named: &[&str]) -> Workload {
    Workload {
        namespace: "shop".into(),
        identity: Identity::new("cluster.local", "shop", "web").unwrap(),
        authorization_policies: named.iter().map(|name| name.parse().unwrap()).collect(),
        ..Workload::clone(&testing::pod("web", "u", &[], true))
    }
}

fn client() -> Identity {
    Identity::new("cluster.local", "bank", "teller").unwrap()
}

fn from(source: Option<&Identity>) -> Connection<'_> {
    Connection {
        source,
        peer: [10, 0, 1, 2].into(),
        client: [10, 0, 1, 2].into(),
        destination: "10.0.2.3:8080".parse().unwrap(),
        server_name: Some("db.example.com"),
    }
}

fn judged(
    policies: &[AuthorizationPolicy],
    pod: &Workload,
    connection: &Connection<'_>,
) -> Result<String, String> {
    let decision = Effective::new(&book(policies), pod).judge(connection);
    decision.verdict.map(|permit| permit.rule().to_string()).map_err(|denial| denial.rule().to_string())
}

fn ok(rule: &str) -> Result<String, String> {
    Ok(rule.to_owned())
}

fn no(rule: &str) -> Result<String, String> {
    Err(rule.to_owned())
}

#[test]
fn actions_are_evaluated_in_order() {
    let (id, other) = (client(), one());
    let elsewhere = PolicyMatch { destination_ports: vec![1], ..other };
    let nothing = |name| policy(name, Allow, vec![]);
    for (policies, expected) in [
        (vec![], ok("allow (no ALLOW policy)")),
        (vec![all("shop/a", Allow)], ok("allow shop/a#0")),
        (vec![all("shop/a", Deny)], no("deny shop/a#0")),
        // DENY wins, whatever the names are.
        (vec![all("shop/a", Allow), all("shop/z", Deny)], no("deny shop/z#0")),
        (vec![all("shop/z", Allow), all("shop/a", Deny)], no("deny shop/a#0")),
        // A DENY that does not match leaves the decision to ALLOW, or to its absence.
        (vec![simple("shop/d", Deny, elsewhere.clone())], ok("allow (no ALLOW policy)")),
        (vec![simple("shop/d", Deny, elsewhere.clone()), all("shop/a", Allow)], ok("allow shop/a#0")),
        // With any ALLOW policy, what none of them matches is denied.
        (vec![simple("shop/a", Allow, elsewhere.clone())], no("deny (no ALLOW rule matched)")),
        (vec![simple("shop/a", Allow, elsewhere.clone()), all("shop/b", Allow)], ok("allow shop/b#0")),
        // `spec: {}`: ALLOW without rules denies everything; so does one whose rules were all dropped.
        (vec![nothing("shop/a")], no("deny (no ALLOW rule matched)")),
        (vec![nothing("shop/a"), all("shop/b", Allow)], ok("allow shop/b#0")),
        // The first matching rule decides, and is named by its place in the object.
        (
            vec![policy("shop/a", Allow, vec![rule(1, vec![vec![elsewhere.clone()]]), rule(4, vec![])])],
            ok("allow shop/a#4"),
        ),
    ] {
        assert_eq!(judged(&policies, &pod(&[]), &from(Some(&id))), expected, "{policies:?}");
    }
}

#[test]
fn policies_apply_by_scope() {
    let id = client();
    let scoped = |name, scope| AuthorizationPolicy { scope, ..all(name, Deny) };
    let (root, own, other) = ("istio-system/p", "shop/p", "bank/p");
    for (scope, name, named, denied) in [
        (PolicyScope::Global, root, &[][..], true),
        (PolicyScope::Namespace, own, &[], true),
        (PolicyScope::Namespace, other, &[], false),
        (PolicyScope::Workload, own, &[], false),
        (PolicyScope::Workload, own, &[own], true),
        (PolicyScope::Workload, other, &[], false),
        // A selector in the root namespace selects everywhere.
        (PolicyScope::Workload, root, &[root], true),
    ] {
        let verdict = judged(&[scoped(name, scope)], &pod(named), &from(Some(&id)));
        assert_eq!(verdict.is_err(), denied, "{name} {scope:?} named by {named:?}");
    }
    // Root and own namespace are united, nothing overrides.
    let both = [scoped(root, PolicyScope::Global), all(own, Allow)];
    assert_eq!(judged(&both, &pod(&[]), &from(Some(&id))), no("deny istio-system/p#0"));
}

#[test]
fn a_policy_of_some_ports_says_nothing_about_others() {
    let id = client();
    let only = |ports: &[u16], policy: AuthorizationPolicy| AuthorizationPolicy {
        only_ports: Some(ports.to_vec()),
        ..policy
    };
    let nothing = policy("shop/a", Allow, vec![]);
    for (policies, expected) in [
        (vec![only(&[8080], all("shop/d", Deny))], no("deny shop/d#0")),
        (vec![only(&[80, 81], all("shop/d", Deny))], ok("allow (no ALLOW policy)")),
        (vec![only(&[8080], nothing.clone())], no("deny (no ALLOW rule matched)")),
        // It asks for an ALLOW only there, and permits only there.
        (vec![only(&[80], nothing.clone())], ok("allow (no ALLOW policy)")),
        (
            vec![only(&[80], all("shop/a", Allow)), policy("shop/b", Allow, vec![])],
            no("deny (no ALLOW rule matched)"),
        ),
        (vec![only(&[8080], all("shop/a", Allow)), policy("shop/b", Allow, vec![])], ok("allow shop/a#0")),
        (vec![only(&[], nothing)], ok("allow (no ALLOW policy)")),
    ] {
        assert_eq!(judged(&policies, &pod(&[]), &from(Some(&id))), expected, "{policies:?}");
    }
}

#[test]
fn identities_match_as_they_are_written() {
    let id = client();
    let principals = |value| PolicyMatch { principals: vec![value], ..one() };
    let namespaces = |value| PolicyMatch { namespaces: vec![value], ..one() };
    let domains = |value| PolicyMatch { trust_domains: vec![value], ..one() };
    let account = |namespace: &str, account: &str| PolicyMatch {
        service_accounts: vec![ServiceAccountMatch {
            namespace: namespace.into(),
            service_account: account.into(),
        }],
        ..one()
    };
    for (condition, holds) in [
        (principals(exact("cluster.local/ns/bank/sa/teller")), true),
        (principals(exact("cluster.local/ns/bank/sa/telle")), false),
        (principals(exact("spiffe://cluster.local/ns/bank/sa/teller")), false),
        (principals(exact("Cluster.local/ns/bank/sa/teller")), false),
        (principals(exact("")), false),
        (principals(prefix("cluster.local/ns/bank/")), true),
        (principals(prefix("cluster.local/ns/shop/")), false),
        (principals(suffix("/ns/bank/sa/teller")), true),
        (principals(suffix("/sa/clerk")), false),
        (principals(StringMatch::Presence), true),
        (namespaces(exact("bank")), true),
        (namespaces(exact("ban")), false),
        (namespaces(exact("Bank")), false),
        (namespaces(prefix("ba")), true),
        (namespaces(prefix("an")), false),
        (namespaces(suffix("nk")), true),
        (namespaces(suffix("ba")), false),
        (namespaces(StringMatch::Presence), true),
        (namespaces(glob("b*n*")), true),
        (namespaces(glob("b*m*")), false),
        (account("bank", "teller"), true),
        (account("shop", "teller"), false),
        (account("bank", "clerk"), false),
        (domains(exact("cluster.local")), true),
        (domains(exact("other.example")), false),
        (domains(prefix("cluster.")), true),
        (domains(suffix(".local")), true),
        (domains(StringMatch::Presence), true),
    ] {
        let allow = [simple("shop/a", Allow, condition.clone())];
        let deny = [simple("shop/d", Deny, negated(&condition))];
        assert_eq!(judged(&allow, &pod(&[]), &from(Some(&id))).is_ok(), holds, "{condition:?}");
        assert_eq!(judged(&deny, &pod(&[]), &from(Some(&id))).is_ok(), holds, "not {condition:?}");
        // Without mutual TLS there is nothing to match: positive conditions fail, negations hold.
        assert!(judged(&allow, &pod(&[]), &from(None)).is_err(), "plaintext, {condition:?}");
        assert!(judged(&deny, &pod(&[]), &from(None)).is_err(), "plaintext, not {condition:?}");
    }
}

/// Every list on the other side.
fn negated(one: &PolicyMatch) -> PolicyMatch {
    let one = one.clone();
    PolicyMatch {
        namespaces: one.not_namespaces,
        not_namespaces: one.namespaces,
        principals: one.not_principals,
        not_principals: one.principals,
        service_accounts: one.not_service_accounts,
        not_service_accounts: one.service_accounts,
        trust_domains: one.not_trust_domains,
        not_trust_domains: one.trust_domains,
        source_ips: one.not_source_ips,
        not_source_ips: one.source_ips,
        remote_ips: one.not_remote_ips,
        not_remote_ips: one.remote_ips,
        destination_ips: one.not_destination_ips,
        not_destination_ips: one.destination_ips,
        destination_ports: one.not_destination_ports,
        not_destination_ports: one.destination_ports,
        server_names: one.not_server_names,
        not_server_names: one.server_names,
    }
}

#[test]
fn addresses_ports_and_names_match() {
    let id = client();
    let connection = Connection { client: [192, 0, 2, 7].into(), ..from(Some(&id)) };
    let ranges = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let peers = |list| PolicyMatch { source_ips: ranges(list), ..one() };
    let clients = |list| PolicyMatch { remote_ips: ranges(list), ..one() };
    let destinations = |list| PolicyMatch { destination_ips: ranges(list), ..one() };
    let ports = |ports: &[u16]| PolicyMatch { destination_ports: ports.to_vec(), ..one() };
    let server_names = |value| PolicyMatch { server_names: vec![value], ..one() };
    for (condition, holds) in [
        (peers(&["10.0.1.2"]), true),
        (peers(&["10.0.1.0/24"]), true),
        (peers(&["10.0.2.0/24"]), false),
        (peers(&["1.1.1.1", "10.0.0.0/8"]), true),
        (peers(&["::/0"]), false),
        // Behind a proxy both addresses count, each for itself.
        (peers(&["192.0.2.0/24"]), false),
        (clients(&["192.0.2.0/24"]), true),
        (clients(&["10.0.1.0/24"]), false),
        (destinations(&["10.0.2.3"]), true),
        (destinations(&["10.0.1.2"]), false),
        (ports(&[8080]), true),
        (ports(&[80, 443]), false),
        (ports(&[80, 8080]), true),
        (server_names(exact("db.example.com")), true),
        (server_names(exact("DB.example.com")), false),
        (server_names(suffix(".example.com")), true),
        (server_names(prefix("db.")), true),
        (server_names(StringMatch::Presence), true),
    ] {
        let allow = [simple("shop/a", Allow, condition.clone())];
        let deny = [simple("shop/d", Deny, negated(&condition))];
        assert_eq!(judged(&allow, &pod(&[]), &connection).is_ok(), holds, "{condition:?}");
        assert_eq!(judged(&deny, &pod(&[]), &connection).is_ok(), holds, "not {condition:?}");
    }
}

#[test]
fn a_server_name_nobody_has_looked_for_permits_nothing_and_excuses_nothing() {
    let id = client();
    let unread = Connection { server_name: None, ..from(Some(&id)) };
    let absent = Connection { server_name: Some(""), ..unread };
    let wanted = PolicyMatch { server_names: vec![exact("db.example.com")], ..one() };
    let unwanted = negated(&wanted);
    for (action, condition, connection, may_enter) in [
        (Allow, &wanted, &unread, false),
        (Allow, &unwanted, &unread, false),
        (Deny, &wanted, &unread, false),
        (Deny, &unwanted, &unread, false),
        (Allow, &wanted, &absent, false),
        (Allow, &unwanted, &absent, true),
        (Deny, &wanted, &absent, true),
        (Deny, &unwanted, &absent, false),
    ] {
        let policies = [simple("shop/p", action, condition.clone())];
        assert_eq!(judged(&policies, &pod(&[]), connection).is_ok(), may_enter, "{action:?} {condition:?}");
    }
    // The rest of a DENY still has to match.
    let elsewhere = PolicyMatch { destination_ports: vec![1], ..wanted };
    assert!(judged(&[simple("shop/p", Deny, elsewhere)], &pod(&[]), &unread).is_ok());
}

#[test]
fn a_server_name_is_looked_for_only_where_it_decides() {
    let id = client();
    let unread = Connection { server_name: None, ..from(Some(&id)) };
    let wanted = PolicyMatch { server_names: vec![exact("db.example.com")], ..one() };
    let elsewhere = PolicyMatch { destination_ports: vec![1], ..wanted.clone() };
    let dry = |policy: AuthorizationPolicy| AuthorizationPolicy { dry_run: true, ..policy };
    let strict = PeerAuthentication { all: mtls(true, "x"), ..PeerAuthentication::default() };
    let strict = Workload { peer_authentication: strict, ..pod(&[]) };
    for (policies, pod, connection, decides) in [
        (vec![], pod(&[]), unread, false),
        (vec![simple("shop/a", Allow, wanted.clone())], pod(&[]), unread, true),
        (vec![simple("shop/d", Deny, wanted.clone())], pod(&[]), unread, true),
        (vec![simple("shop/a", Allow, negated(&wanted))], pod(&[]), unread, true),
        // It is known already.
        (vec![simple("shop/a", Allow, wanted.clone())], pod(&[]), from(Some(&id)), false),
        // Not here: another port, another policy decides already, nobody may enter anyhow.
        (vec![simple("shop/d", Deny, elsewhere.clone())], pod(&[]), unread, false),
        (vec![simple("shop/a", Allow, elsewhere)], pod(&[]), unread, false),
        (vec![simple("shop/a", Allow, wanted.clone()), all("shop/b", Allow)], pod(&[]), unread, false),
        (vec![simple("shop/a", Allow, wanted.clone()), all("shop/d", Deny)], pod(&[]), unread, false),
        (vec![simple("shop/a", Allow, wanted.clone())], pod(&["shop/missing"]), unread, false),
        (vec![simple("shop/a", Allow, wanted.clone())], strict, Connection { source: None, ..unread }, false),
        // A dry run makes nobody wait.
        (vec![dry(simple("shop/a", Allow, wanted))], pod(&[]), unread, false),
    ] {
        let effective = Effective::new(&book(&policies), &pod);
        assert_eq!(effective.hinges_on_server_name(&connection), decides, "{policies:?}");
    }
}

#[test]
fn rules_are_or_clauses_are_and_fields_are_and_values_are_or() {
    let id = client();
    let (yes, no) = (
        PolicyMatch { namespaces: vec![exact("bank")], ..one() },
        PolicyMatch { namespaces: vec![exact("shop")], ..one() },
    );
    let port = |ports: &[u16]| PolicyMatch { destination_ports: ports.to_vec(), ..yes.clone() };
    let both = PolicyMatch { not_namespaces: vec![prefix("ba")], ..yes.clone() };
    for (rules, holds) in [
        (vec![rule(0, vec![vec![no.clone()]]), rule(1, vec![vec![yes.clone()]])], true),
        (vec![rule(0, vec![vec![no.clone()]]), rule(1, vec![vec![no.clone()]])], false),
        (vec![rule(0, vec![vec![no.clone(), yes.clone()]])], true),
        (vec![rule(0, vec![vec![yes.clone()], vec![no.clone()]])], false),
        (vec![rule(0, vec![vec![yes.clone()], vec![yes.clone()]])], true),
        (vec![rule(0, vec![vec![port(&[1])]])], false),
        (vec![rule(0, vec![vec![port(&[1, 8080])]])], true),
        // Values and notValues of one field must both hold.
        (vec![rule(0, vec![vec![both]])], false),
        // No constraint matches everything; a clause without alternatives nothing.
        (vec![rule(0, vec![])], true),
        (vec![rule(0, vec![vec![one()]])], true),
        (vec![rule(0, vec![vec![]])], false),
    ] {
        let verdict = judged(&[policy("shop/a", Allow, rules.clone())], &pod(&[]), &from(Some(&id)));
        assert_eq!(verdict.is_ok(), holds, "{rules:?}");
    }
}

fn mtls(strict: bool, rule: &str) -> MtlsRule {
    MtlsRule { strict, rule: rule.into() }
}

#[test]
fn plaintext_enters_as_peer_authentication_says() {
    let id = client();
    let none = PeerAuthentication::default();
    let strict = PeerAuthentication {
        all: mtls(true, "PeerAuthentication shop/default"),
        ports: [(90, mtls(false, "PeerAuthentication shop/web"))].into(),
    };
    let strict_port = PeerAuthentication {
        all: mtls(false, ""),
        ports: [(90, mtls(true, "PeerAuthentication shop/web"))].into(),
    };
    for (peer_authentication, source, port, expected) in [
        (&none, Some(&id), 80, ok("allow (no ALLOW policy)")),
        (&none, None, 80, ok("warren/permissive")),
        (&strict, Some(&id), 80, ok("allow (no ALLOW policy)")),
        (&strict, None, 80, no("PeerAuthentication shop/default")),
        (&strict, None, 90, ok("PeerAuthentication shop/web")),
        (&strict_port, None, 80, ok("warren/permissive")),
        (&strict_port, None, 90, no("PeerAuthentication shop/web")),
        (&strict_port, Some(&id), 90, ok("allow (no ALLOW policy)")),
        (&none, Some(&id), 15001, no("warren/reserved-port")),
        (&none, Some(&id), 15006, no("warren/reserved-port")),
        (&none, Some(&id), 15008, no("warren/reserved-port")),
        (&none, Some(&id), 15053, no("warren/reserved-port")),
    ] {
        let pod = Workload { peer_authentication: peer_authentication.clone(), ..pod(&[]) };
        let destination = SocketAddr::new([10, 0, 2, 3].into(), port);
        let verdict = judged(&[], &pod, &Connection { destination, ..from(source) });
        assert_eq!(verdict, expected, "{source:?} to {port}");
    }
    // Plaintext that may enter is judged by policies like everything else, and STRICT is not excused by any.
    let deny_unknown =
        [simple("shop/d", Deny, PolicyMatch { not_principals: vec![StringMatch::Presence], ..one() })];
    assert_eq!(judged(&deny_unknown, &pod(&[]), &from(None)), no("deny shop/d#0"));
    assert!(judged(&deny_unknown, &pod(&[]), &from(Some(&id))).is_ok());
    let closed = Workload { peer_authentication: strict, ..pod(&[]) };
    let verdict = judged(&[all("shop/a", Allow)], &closed, &from(None));
    assert_eq!(verdict, no("PeerAuthentication shop/default"));
}

#[test]
fn dry_run_is_shown_and_never_enforced() {
    let id = client();
    let elsewhere = PolicyMatch { destination_ports: vec![1], ..one() };
    let dry = |policy: AuthorizationPolicy| AuthorizationPolicy { dry_run: true, ..policy };
    for (policies, enforced, shown) in [
        (vec![dry(all("shop/d", Deny))], ok("allow (no ALLOW policy)"), Some("deny shop/d#0")),
        (
            vec![dry(simple("shop/d", Deny, elsewhere.clone()))],
            ok("allow (no ALLOW policy)"),
            Some("allow (no ALLOW policy)"),
        ),
        // It does not switch to denying by default, and shows that it would.
        (
            vec![dry(simple("shop/a", Allow, elsewhere.clone()))],
            ok("allow (no ALLOW policy)"),
            Some("deny (no ALLOW rule matched)"),
        ),
        // It permits nothing either.
        (
            vec![simple("shop/a", Allow, elsewhere), dry(all("shop/b", Allow))],
            no("deny (no ALLOW rule matched)"),
            Some("allow shop/b#0"),
        ),
        (vec![all("shop/a", Allow)], ok("allow shop/a#0"), None),
    ] {
        let decision = Effective::new(&book(&policies), &pod(&[])).judge(&from(Some(&id)));
        let verdict = decision.verdict.map(|permit| permit.rule.to_string());
        assert_eq!(verdict.map_err(|denial| denial.rule().to_string()), enforced, "{policies:?}");
        assert_eq!(decision.dry_run.as_deref(), shown, "{policies:?}");
    }
}

#[test]
fn what_cannot_be_known_lets_nobody_in() {
    let id = client();
    let verdict = |book: &Policies, pod: &Workload| {
        let decision = Effective::new(book, pod).judge(&from(Some(&id)));
        decision.verdict.map(|permit| permit.rule.to_string()).map_err(|denial| denial.rule().to_string())
    };
    let refused = |scope| Refused { scope, why: "new".into(), content: Arc::default() };
    assert_eq!(verdict(&Policies::default(), &pod(&[])), no("warren/policies-unknown"));
    assert_eq!(verdict(&book(&[]), &pod(&["shop/p"])), no("deny shop/p (not known yet)"));
    let open = ok("allow (no ALLOW policy)");
    let closed = no("deny shop/p (not understood)");
    for (scope, name, named, expected) in [
        (Some(PolicyScope::Global), "root/p", &[][..], no("deny root/p (not understood)")),
        (Some(PolicyScope::Namespace), "shop/p", &[], closed.clone()),
        (Some(PolicyScope::Namespace), "bank/p", &[], open.clone()),
        (Some(PolicyScope::Workload), "shop/p", &[], open.clone()),
        (Some(PolicyScope::Workload), "shop/p", &["shop/p"], closed.clone()),
        // Whom it is for cannot be read: its namespace, and who names it.
        (None, "shop/p", &[], closed.clone()),
        (None, "bank/p", &[], open.clone()),
        (None, "bank/p", &["bank/p"], no("deny bank/p (not understood)")),
    ] {
        let mut book = book(&[all("shop/a", Allow)]);
        book.remove(&"shop/a".parse().unwrap());
        assert!(book.refuse(name.parse().unwrap(), refused(scope)));
        assert!(!book.refuse(name.parse().unwrap(), refused(scope)), "nothing new");
        book.settle();
        assert_eq!(verdict(&book, &pod(named)), expected, "{scope:?} {name} {named:?}");
        // Understood after all, or gone.
        let mut later = book.clone();
        later.put(Arc::new(AuthorizationPolicy { scope: PolicyScope::Workload, ..all(name, Allow) }));
        later.settle();
        assert!(verdict(&later, &pod(named)).is_ok());
        book.remove(&name.parse().unwrap());
        book.settle();
        assert_eq!(verdict(&book, &pod(&[])), open);
    }
    // The last good version stays.
    let mut book = book(&[all("shop/p", Allow)]);
    book.refuse("shop/p".parse().unwrap(), refused(Some(PolicyScope::Global)));
    book.settle();
    assert_eq!(verdict(&book, &pod(&[])), ok("allow shop/p#0"));
}

#[test]
fn a_revoked_identity_neither_enters_nor_is_entered() {
    let (id, other) = (client(), Identity::new("cluster.local", "bank", "clerk").unwrap());
    let mut book = book(&[all("shop/a", Allow)]);
    let verdict = |book: &Policies, source| Effective::new(book, &pod(&[])).judge(&from(source)).verdict;
    let before = Effective::new(&book, &pod(&[]));
    assert!(book.revoke([id.clone()].into_iter().collect()));
    assert!(!book.revoke([id.clone()].into_iter().collect()));
    book.settle();
    assert!(!before.is_same(&Effective::new(&book, &pod(&[]))));
    assert_eq!(verdict(&book, Some(&id)).unwrap_err(), Denial::Revoked(id.clone()));
    assert!(verdict(&book, Some(&other)).is_ok() && verdict(&book, None).is_ok());
    book.revoke([pod(&[]).identity].into_iter().collect());
    book.settle();
    assert!(verdict(&book, Some(&id)).is_err() && verdict(&book, None).is_err());
}

#[test]
fn reasons_read_as_istios() {
    let id = client();
    let reason = |policies: &[AuthorizationPolicy]| {
        let decision = Effective::new(&book(policies), &pod(&[])).judge(&from(Some(&id)));
        decision.verdict.unwrap_err().to_string()
    };
    let denied = "rbac_access_denied_matched_policy[ns[shop]-policy[deny-all]-rule[0]]";
    assert_eq!(reason(&[all("shop/deny-all", Deny)]), denied);
    let none = reason(&[policy("shop/a", Allow, vec![])]);
    assert!(none.starts_with("rbac_access_denied_matched_policy[none]"), "{none}");
}

#[test]
fn only_what_counts_makes_another_verdict_possible() {
    let policies = [all("shop/a", Allow), all("bank/b", Deny)];
    let mut book = book(&policies);
    let before = Effective::new(&book, &pod(&[]));
    let snapshot = book.clone();
    assert!(!book.put(Arc::new(policies[0].clone())), "the same again is no change");
    assert!(book.is_same(&snapshot));
    // Another namespace's policy changes the book, not what guards this pod.
    assert!(book.put(Arc::new(all("bank/b", Allow))));
    book.settle();
    assert!(!book.is_same(&snapshot) && before.is_same(&Effective::new(&book, &pod(&[]))));
    let relabelled = Workload { labels: Arc::new([("a".into(), "b".into())].into()), ..pod(&[]) };
    assert!(before.is_same(&Effective::new(&book, &relabelled)));
    let strict = PeerAuthentication { all: mtls(true, "x"), ..PeerAuthentication::default() };
    let strict = Workload { peer_authentication: strict, ..pod(&[]) };
    assert!(!before.is_same(&Effective::new(&book, &strict)));
    book.put(Arc::new(all("shop/a", Deny)));
    book.settle();
    assert!(!before.is_same(&Effective::new(&book, &pod(&[]))));
}
