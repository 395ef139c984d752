//! Every row of AuthorizationPolicy's and PeerAuthentication's meaning on connections, and laws that hold for all.

use super::*;
use crate::pods::testing;
use PolicyAction::{Allow, Deny};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use warren_common::model::{
    AuthorizationPolicy, MtlsRule, PeerAuthentication, PolicyAction, PolicyMatch, PolicyRule, PolicyScope,
    ServiceAccountMatch, StringMatch, Workload,
};
use warren_common::proto::ztunnel_form;

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

fn rule(index: u32, clauses: &[&[PolicyMatch]]) -> PolicyRule {
    PolicyRule { index, clauses: clauses.iter().map(|clause| clause.to_vec()).collect() }
}

fn policy(name: &str, action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    let name = name.parse().unwrap();
    AuthorizationPolicy { name, scope: PolicyScope::Namespace, action, dry_run: false, rules }
}

/// One rule, one clause, one match.
fn simple(name: &str, action: PolicyAction, one: PolicyMatch) -> AuthorizationPolicy {
    policy(name, action, vec![rule(0, &[&[one]])])
}

/// Matches every connection.
fn all(name: &str, action: PolicyAction) -> AuthorizationPolicy {
    policy(name, action, vec![rule(0, &[])])
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
            vec![policy("shop/a", Allow, vec![rule(1, &[&[elsewhere.clone()]]), rule(4, &[])])],
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
fn rules_are_or_clauses_are_and_fields_are_and_values_are_or() {
    let id = client();
    let (yes, no) = (
        PolicyMatch { namespaces: vec![exact("bank")], ..one() },
        PolicyMatch { namespaces: vec![exact("shop")], ..one() },
    );
    let port = |ports: &[u16]| PolicyMatch { destination_ports: ports.to_vec(), ..yes.clone() };
    let both = PolicyMatch { not_namespaces: vec![prefix("ba")], ..yes.clone() };
    for (rules, holds) in [
        (vec![rule(0, &[&[no.clone()]]), rule(1, &[&[yes.clone()]])], true),
        (vec![rule(0, &[&[no.clone()]]), rule(1, &[&[no.clone()]])], false),
        (vec![rule(0, &[&[no.clone(), yes.clone()]])], true),
        (vec![rule(0, &[&[yes.clone()], &[no.clone()]])], false),
        (vec![rule(0, &[&[yes.clone()], &[yes.clone()]])], true),
        (vec![rule(0, &[&[port(&[1])]])], false),
        (vec![rule(0, &[&[port(&[1, 8080])]])], true),
        // Values and notValues of one field must both hold.
        (vec![rule(0, &[&[both]])], false),
        // No constraint matches everything; a clause without alternatives nothing.
        (vec![rule(0, &[])], true),
        (vec![rule(0, &[&[one()]])], true),
        (vec![rule(0, &[&[]])], false),
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

fn any_text() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        3 => select(&["bank", "shop", "cluster.local", "cluster.local/ns/bank/sa/teller", ""][..]).prop_map(exact),
        1 => select(&["b", "cluster.local/ns/", ""][..]).prop_map(prefix),
        1 => select(&["k", "/sa/teller", "local"][..]).prop_map(suffix),
        1 => select(&["b*k", "*a*", "s*p"][..]).prop_map(glob),
        1 => Just(StringMatch::Presence),
    ]
}

fn any_match() -> impl Strategy<Value = PolicyMatch> {
    let range =
        || select(&["10.0.0.0/8", "10.0.1.2", "192.0.2.0/24"][..]).prop_map(|text| text.parse().unwrap());
    let account =
        (select(&["bank", "shop"][..]), select(&["teller", "web"][..])).prop_map(|(namespace, account)| {
            ServiceAccountMatch { namespace: namespace.into(), service_account: account.into() }
        });
    let lists = (vec(any_text(), 1..3), vec(range(), 1..3), vec(account, 1..3), vec(8080..8082_u16, 1..3));
    vec((0..18_u8, lists), 0..3).prop_map(|filled| {
        let mut made = one();
        for (which, (texts, ranges, accounts, ports)) in filled {
            match which {
                0 => made.namespaces = texts,
                1 => made.not_namespaces = texts,
                2 => made.principals = texts,
                3 => made.not_principals = texts,
                4 => made.service_accounts = accounts,
                5 => made.not_service_accounts = accounts,
                6 => made.trust_domains = texts,
                7 => made.not_trust_domains = texts,
                8 => made.source_ips = ranges,
                9 => made.not_source_ips = ranges,
                10 => made.remote_ips = ranges,
                11 => made.not_remote_ips = ranges,
                12 => made.destination_ips = ranges,
                13 => made.not_destination_ips = ranges,
                14 => made.destination_ports = ports,
                15 => made.not_destination_ports = ports,
                16 => made.server_names = texts,
                _ => made.not_server_names = texts,
            }
        }
        made
    })
}

/// Up to five policies of different names.
fn any_policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let rules = vec(vec(vec(any_match(), 0..3), 0..3), 0..3);
    let scope = select(&[PolicyScope::Global, PolicyScope::Namespace, PolicyScope::Workload][..]);
    let one =
        (rules, scope, select(&[Allow, Deny][..]), prop::bool::weighted(0.2), select(&["shop", "bank"][..]));
    vec(one, 0..6).prop_map(|policies| {
        let policy = |(number, (rules, scope, action, dry_run, namespace))| {
            let rules: Vec<Vec<Vec<PolicyMatch>>> = rules;
            let rule = |(index, clauses)| PolicyRule { index, clauses };
            let rules = (0..).zip(rules).map(rule).collect();
            AuthorizationPolicy { scope, dry_run, ..policy(&format!("{namespace}/p{number}"), action, rules) }
        };
        (0..).zip(policies).map(|(number, parts): (u32, _)| policy((number, parts))).collect()
    })
}

#[derive(Clone, Debug)]
struct AnyConnection {
    source: Option<Identity>,
    peer: IpAddr,
    client: IpAddr,
    port: u16,
    server_name: Option<&'static str>,
}

impl AnyConnection {
    fn get(&self) -> Connection<'_> {
        Connection {
            source: self.source.as_ref(),
            peer: self.peer,
            client: self.client,
            destination: SocketAddr::new([10, 0, 2, 3].into(), self.port),
            server_name: self.server_name,
        }
    }
}

fn any_connection() -> impl Strategy<Value = AnyConnection> {
    let source = (
        prop::bool::weighted(0.8),
        select(&["cluster.local", "bank"][..]),
        select(&["bank", "shop"][..]),
        select(&["teller", "web"][..]),
    );
    let ip = || select(&[[10, 0, 1, 2], [10, 9, 9, 9], [192, 0, 2, 7]][..]).prop_map(IpAddr::from);
    let server_name = select(&[None, Some(""), Some("bank"), Some("shop")][..]);
    (source, ip(), ip(), 8080..8082_u16, server_name).prop_map(
        |((known, td, ns, sa), peer, client, port, server_name)| {
            let source = known.then(|| Identity::new(td, ns, sa).unwrap());
            AnyConnection { source, peer, client, port, server_name }
        },
    )
}

/// Names some of the policies, also such that do not exist.
fn any_pod() -> impl Strategy<Value = Workload> {
    let named = vec(0..6_u32, 0..3);
    (named, prop::bool::weighted(0.2), prop::bool::weighted(0.5)).prop_map(|(named, strict, shop)| {
        let namespace = if shop { "shop" } else { "bank" };
        let names: Vec<_> = named.iter().map(|number| format!("{namespace}/p{number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let peer_authentication = PeerAuthentication {
            all: mtls(strict, if strict { "strict" } else { "" }),
            ..PeerAuthentication::default()
        };
        Workload { peer_authentication, ..pod(&names) }
    })
}

fn verdict(policies: &[AuthorizationPolicy], pod: &Workload, connection: &AnyConnection) -> (bool, String) {
    match judged(policies, pod, &connection.get()) {
        Ok(rule) => (true, rule),
        Err(rule) => (false, rule),
    }
}

/// What `policy` says to `connection` when it is alone.
fn matches(policy: &AuthorizationPolicy, pod: &Workload, connection: &AnyConnection) -> bool {
    let alone = AuthorizationPolicy { scope: PolicyScope::Global, action: policy.action, ..policy.clone() };
    let pod = Workload {
        authorization_policies: vec![],
        peer_authentication: PeerAuthentication::default(),
        ..pod.clone()
    };
    let (entered, _) = verdict(&[AuthorizationPolicy { dry_run: false, ..alone }], &pod, connection);
    entered == (policy.action == Allow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_slow_and_obvious_model_agrees(policies in any_policies(), pod in any_pod(), connection in any_connection()) {
        let decision = Effective::new(&book(&policies), &pod).judge(&connection.get());
        let (may_enter, by) = reference::judge(&policies, &pod, &connection.get(), false);
        prop_assert_eq!(decision.verdict.is_ok(), may_enter);
        if let Some((name, index)) = by {
            let rule = match &decision.verdict { Ok(permit) => permit.rule().clone(), Err(denial) => denial.rule() };
            let verb = if may_enter { "allow" } else { "deny" };
            prop_assert_eq!(&*rule, format!("{verb} {name}#{index}"));
        }
        if let Some(shown) = decision.dry_run {
            let (would_enter, _) = reference::judge(&policies, &pod, &connection.get(), true);
            let is_allowing = |rule: &str| !rule.starts_with("deny ") && rule != "strict";
            prop_assert_eq!(is_allowing(&shown), would_enter, "{}", shown);
        }
    }

    #[test]
    fn the_order_of_policies_means_nothing(
        policies in any_policies(), pod in any_pod(), connection in any_connection(), seed in any::<u64>(),
    ) {
        let mut shuffled = policies.clone();
        shuffled.sort_by_key(|policy| {
            use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
            BuildHasherDefault::<DefaultHasher>::default().hash_one((seed, policy.name.to_string()))
        });
        let mut named = pod.clone();
        named.authorization_policies.reverse();
        prop_assert_eq!(verdict(&policies, &pod, &connection).0, verdict(&shuffled, &named, &connection).0);
        prop_assert_eq!(verdict(&policies, &pod, &connection), verdict(&shuffled, &pod, &connection));
    }

    #[test]
    fn deny_wins(policies in any_policies(), pod in any_pod(), connection in any_connection()) {
        let mut denying = policies
            .iter()
            .filter(|policy| policy.action == Deny && !policy.dry_run && reference::applies(policy, &pod));
        if denying.any(|policy| matches(policy, &pod, &connection)) {
            prop_assert!(!verdict(&policies, &pod, &connection).0);
        }
    }

    #[test]
    fn less_to_allow_never_permits_more(
        policies in any_policies(), pod in any_pod(), connection in any_connection(), at in any::<prop::sample::Index>(),
    ) {
        let pod = Workload { authorization_policies: pod.authorization_policies.iter().filter(|name| policies.iter().any(|policy| policy.name == **name)).cloned().collect(), ..pod };
        let allowing: Vec<usize> = (0..policies.len()).filter(|at| policies[*at].action == Allow && !policies[*at].dry_run).collect();
        if allowing.is_empty() {
            return Ok(());
        }
        let which = allowing[at.index(allowing.len())];
        // A rule less.
        let mut less = policies.clone();
        if less[which].rules.pop().is_some() {
            prop_assert!(verdict(&policies, &pod, &connection).0 || !verdict(&less, &pod, &connection).0);
        }
        // A whole policy less, where another ALLOW policy still applies: without any, everything may enter again.
        let mut fewer = policies.clone();
        let gone = fewer.remove(which);
        let pod_without = Workload { authorization_policies: pod.authorization_policies.iter().filter(|name| **name != gone.name).cloned().collect(), ..pod.clone() };
        let (entered, rule) = verdict(&fewer, &pod_without, &connection);
        if entered && rule.starts_with("allow ") && rule != "allow (no ALLOW policy)" {
            prop_assert!(verdict(&policies, &pod, &connection).0);
        }
    }

    #[test]
    fn another_deny_never_permits_more(
        policies in any_policies(), pod in any_pod(), connection in any_connection(), more in any_match(),
    ) {
        let more = AuthorizationPolicy { scope: PolicyScope::Global, ..simple("root/more", Deny, more) };
        let with: Vec<_> = policies.iter().cloned().chain([more]).collect();
        prop_assert!(verdict(&policies, &pod, &connection).0 || !verdict(&with, &pod, &connection).0);
    }

    #[test]
    fn who_reads_ztunnels_fields_alone_permits_no_more(
        policies in any_policies(), pod in any_pod(), connection in any_connection(),
    ) {
        let known: Vec<_> = policies.iter().map(ztunnel_form).collect();
        prop_assert!(verdict(&policies, &pod, &connection).0 || !verdict(&known, &pod, &connection).0);
    }
}
