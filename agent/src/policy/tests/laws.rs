//! What holds whatever the policies are, and a slow model that agrees.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use warren_common::proto::ztunnel_form;

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
    let only_ports = prop::option::weighted(0.2, vec(8080..8082_u16, 0..2));
    let one = (
        rules,
        scope,
        select(&[Allow, Deny][..]),
        prop::bool::weighted(0.2),
        select(&["shop", "bank"][..]),
        only_ports,
    );
    vec(one, 0..6).prop_map(|policies| {
        let policy = |(number, (rules, scope, action, dry_run, namespace, only_ports))| {
            let rules: Vec<Vec<Vec<PolicyMatch>>> = rules;
            let rule = |(index, clauses)| PolicyRule { index, clauses };
            let rules = (0..).zip(rules).map(rule).collect();
            AuthorizationPolicy {
                scope,
                dry_run,
                only_ports,
                ..policy(&format!("{namespace}/p{number}"), action, rules)
            }
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
    fn where_a_server_name_does_not_decide_none_changes_the_verdict(
        policies in any_policies(), pod in any_pod(), connection in any_connection(),
    ) {
        let unread = AnyConnection { server_name: None, ..connection.clone() };
        let effective = Effective::new(&book(&policies), &pod);
        let with_name = effective.judge(&connection.get()).verdict.is_ok();
        let without = effective.judge(&unread.get()).verdict.is_ok();
        if effective.hinges_on_server_name(&unread.get()) {
            prop_assert!(!without);
        } else {
            prop_assert_eq!(with_name, without);
        }
    }

    #[test]
    fn who_reads_ztunnels_fields_alone_permits_no_more(
        policies in any_policies(), pod in any_pod(), connection in any_connection(),
    ) {
        let known: Vec<_> = policies.iter().map(ztunnel_form).collect();
        prop_assert!(verdict(&policies, &pod, &connection).0 || !verdict(&known, &pod, &connection).0);
    }
}
