//! Policies on the wire: nothing is lost, nothing hostile passes, and nobody who knows less permits more.

use super::*;
use crate::model::Identity;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn policy(action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: "shop/web".parse().unwrap(),
        scope: PolicyScope::Namespace,
        action,
        dry_run: false,
        only_ports: None,
        rules,
    }
}

fn rule(index: u32, clauses: Vec<Vec<PolicyMatch>>) -> PolicyRule {
    PolicyRule { index, clauses }
}

fn text() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        select(&["a", "b", "td", "ab"][..]).prop_map(|text| StringMatch::Exact(text.into())),
        select(&["", "a", "t"][..]).prop_map(|text| StringMatch::Prefix(text.into())),
        select(&["", "b", "d"][..]).prop_map(|text| StringMatch::Suffix(text.into())),
        Just(StringMatch::Presence),
        select(&["a*b", "*a*"][..]).prop_map(|text| StringMatch::Glob(text.into())),
    ]
}

fn range() -> impl Strategy<Value = Cidr> {
    select(&["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "fd00::/8"][..]).prop_map(|text| text.parse().unwrap())
}

fn account() -> impl Strategy<Value = ServiceAccountMatch> {
    (select(&["a", "b"][..]), select(&["a", "b"][..])).prop_map(|(namespace, account)| ServiceAccountMatch {
        namespace: namespace.into(),
        service_account: account.into(),
    })
}

fn one_match() -> impl Strategy<Value = PolicyMatch> {
    // One or two of the eighteen lists, as people write them.
    let lists = (vec(text(), 0..3), vec(range(), 0..3), vec(account(), 0..3), vec(80..82_u16, 0..3));
    vec((0..18_u8, lists), 0..3).prop_map(|filled| {
        let mut one = PolicyMatch::default();
        for (which, (texts, ranges, accounts, ports)) in filled {
            match which {
                0 => one.namespaces = texts,
                1 => one.not_namespaces = texts,
                2 => one.principals = texts,
                3 => one.not_principals = texts,
                4 => one.service_accounts = accounts,
                5 => one.not_service_accounts = accounts,
                6 => one.trust_domains = texts,
                7 => one.not_trust_domains = texts,
                8 => one.source_ips = ranges,
                9 => one.not_source_ips = ranges,
                10 => one.remote_ips = ranges,
                11 => one.not_remote_ips = ranges,
                12 => one.destination_ips = ranges,
                13 => one.not_destination_ips = ranges,
                14 => one.destination_ports = ports,
                15 => one.not_destination_ports = ports,
                16 => one.server_names = texts,
                _ => one.not_server_names = texts,
            }
        }
        one
    })
}

fn any_policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let rules = vec(vec(vec(one_match(), 0..3), 0..3), 0..4);
    let action = select(&[PolicyAction::Allow, PolicyAction::Deny][..]);
    let scope = select(&[PolicyScope::Global, PolicyScope::Namespace, PolicyScope::Workload][..]);
    let ports = prop::option::weighted(0.3, vec(80..83_u16, 0..3));
    (rules, action, scope, any::<bool>(), ports).prop_map(|(rules, action, scope, dry_run, only_ports)| {
        let rule = |(index, clauses)| PolicyRule { index, clauses };
        let rules = (0..).zip(rules).map(rule).collect();
        AuthorizationPolicy { scope, dry_run, only_ports, ..policy(action, rules) }
    })
}

/// What a rule may ask of a connection, as plainly as it can be said.
#[derive(Debug)]
struct Client {
    identity: Option<Identity>,
    ip: IpAddr,
    port: u16,
    server_name: &'static str,
}

impl Client {
    fn matches(&self, policy: &AuthorizationPolicy) -> bool {
        let holds = |clause: &Vec<PolicyMatch>| clause.iter().any(|one| self.satisfies(one));
        policy.only_ports.as_ref().is_none_or(|ports| ports.contains(&self.port))
            && policy.rules.iter().any(|rule| rule.clauses.iter().all(holds))
    }

    fn satisfies(&self, one: &PolicyMatch) -> bool {
        fn ok<T>(yes: &[T], no: &[T], holds: impl Fn(&T) -> bool) -> bool {
            (yes.is_empty() || yes.iter().any(&holds)) && !no.iter().any(&holds)
        }
        let id = self.identity.as_ref();
        let principal = id.map(|id| id.to_string().replace("spiffe://", "")).unwrap_or_default();
        let namespace = id.map_or("", Identity::namespace);
        let trust_domain = id.map_or("", Identity::trust_domain);
        let is_account = |account: &ServiceAccountMatch| {
            id.is_some_and(|id| {
                id.namespace() == &*account.namespace && id.service_account() == &*account.service_account
            })
        };
        // As ztunnel does, which the reader of its form is: without an identity only negations hold.
        let like = |text: &str, pattern: &StringMatch| match pattern {
            StringMatch::Exact(exact) => text == &**exact,
            StringMatch::Prefix(prefix) => text.starts_with(&**prefix),
            StringMatch::Suffix(suffix) => text.ends_with(&**suffix),
            StringMatch::Presence => !text.is_empty(),
            StringMatch::Glob(glob) if &**glob == "a*b" => text.starts_with('a') && text.ends_with('b'),
            StringMatch::Glob(_) => text.contains('a'),
        };
        ok(&one.namespaces, &one.not_namespaces, |text| like(namespace, text))
            && ok(&one.principals, &one.not_principals, |text| like(&principal, text))
            && ok(&one.trust_domains, &one.not_trust_domains, |text| like(trust_domain, text))
            && ok(&one.server_names, &one.not_server_names, |text| like(self.server_name, text))
            && ok(&one.service_accounts, &one.not_service_accounts, is_account)
            && ok(&one.source_ips, &one.not_source_ips, |range| range.contains(self.ip))
            && ok(&one.remote_ips, &one.not_remote_ips, |range| range.contains(self.ip))
            && ok(&one.destination_ips, &one.not_destination_ips, |range| range.contains(self.ip))
            && ok(&one.destination_ports, &one.not_destination_ports, |port| *port == self.port)
    }
}

fn client() -> impl Strategy<Value = Client> {
    let identity =
        (any::<bool>(), select(&["td", "a"][..]), select(&["a", "ab"][..]), select(&["a", "b"][..]));
    let ip = select(&["10.0.0.1", "10.9.9.9", "1.1.1.1", "fd00::1"][..]);
    (identity, ip, 80..82_u16, select(&["", "a", "ab"][..])).prop_map(
        |((known, td, ns, sa), ip, port, server_name)| {
            let identity = known.then(|| Identity::new(td, ns, sa).unwrap());
            Client { identity, ip: ip.parse().unwrap(), port, server_name }
        },
    )
}

#[test]
fn what_ztunnel_can_say_is_said_once() {
    let web = PolicyMatch { namespaces: vec![StringMatch::Exact("web".into())], ..PolicyMatch::default() };
    let ours = PolicyMatch { trust_domains: vec![StringMatch::Exact("td".into())], ..web.clone() };
    let sent = |policy: &AuthorizationPolicy| {
        wire::Authorization::decode(encode_authorization(policy).as_slice()).unwrap()
    };
    for action in [PolicyAction::Allow, PolicyAction::Deny] {
        let common = sent(&policy(action, vec![rule(0, vec![vec![web.clone()]])]));
        assert_eq!((common.groups.len(), common.exact, common.exact_groups.len()), (1, false, 0));
        let exact = sent(&policy(action, vec![rule(0, vec![vec![ours.clone()]])]));
        assert!(exact.exact && exact.exact_groups.len() == 1);
        // An ALLOW that ztunnel would take for a wider one is not there; a DENY is the wider one.
        assert_eq!(exact.groups.len(), usize::from(action == PolicyAction::Deny));
    }
    // An ALLOW policy whose rules are all gone is still one: nothing else is permitted.
    let form = ztunnel_form(&policy(PolicyAction::Allow, vec![rule(0, vec![vec![ours.clone()]])]));
    assert!(form.rules.is_empty() && form.action == PolicyAction::Allow);
    // A DENY of which no condition is left denies everything, which on the wire is a rule without clauses.
    let only = PolicyMatch { server_names: vec![StringMatch::Presence], ..PolicyMatch::default() };
    assert_eq!(
        ztunnel_form(&policy(PolicyAction::Deny, vec![rule(3, vec![vec![only]])])).rules,
        vec![rule(3, vec![])]
    );
}

#[test]
fn a_match_without_conditions_permits_nothing_and_denies_everything() {
    let group = wire::Group { rules: vec![wire::Rules { matches: vec![wire::Match::default()] }], index: 2 };
    assert_eq!(rule_from_wire(group.clone(), PolicyAction::Allow).unwrap(), None);
    assert_eq!(rule_from_wire(group, PolicyAction::Deny).unwrap(), Some(rule(2, vec![])));
}

#[test]
fn what_is_not_understood_is_refused() {
    let good = || wire::Authorization { name: "web".into(), namespace: "shop".into(), ..Default::default() };
    let with = |one: wire::Match| wire::Authorization {
        groups: vec![wire::Group { rules: vec![wire::Rules { matches: vec![one] }], index: 0 }],
        ..good()
    };
    let refused =
        |wire: wire::Authorization| decode_authorization(&wire.encode_to_vec()).unwrap_err().to_string();
    let range = |bytes: usize, length| wire::Match {
        source_ips: vec![wire::Address { address: vec![1; bytes], length }],
        ..Default::default()
    };
    let extension = || vec![Extension { name: "new".into(), config: None }];
    let port = wire::Match { destination_ports: vec![65_536], ..Default::default() };
    let text = wire::Match { principals: vec![wire::StringMatch::default()], ..Default::default() };
    let extended = wire::Match { extensions: extension(), ..Default::default() };
    assert!(decode_authorization(&good().encode_to_vec()).is_ok());
    for (wire, part) in [
        (wire::Authorization { name: String::new(), ..good() }, "shop/"),
        (wire::Authorization { namespace: "a/b".into(), ..good() }, "a/b/web"),
        (wire::Authorization { scope: 9, ..good() }, "scope holds 9"),
        (wire::Authorization { action: 9, ..good() }, "action holds 9"),
        (wire::Authorization { extensions: extension(), ..good() }, "extensions holds new"),
        (with(extended), "extensions holds new"),
        (with(range(3, 0)), "3 bytes"),
        (with(range(4, 33)), "prefix length 33"),
        (with(range(16, 129)), "prefix length 129"),
        (with(range(4, 260)), "prefix length 260"),
        (with(port), "65536"),
        (with(text), "match_type"),
    ] {
        let said = refused(wire);
        assert!(said.contains(part), "{said} does not tell of {part}");
    }
    let scope =
        |scope| scope_of_authorization(&wire::Authorization { action: 9, scope, ..good() }.encode_to_vec());
    assert_eq!(
        (scope(1), scope(2), scope(9)),
        (Some(PolicyScope::Namespace), Some(PolicyScope::Workload), None)
    );
    assert_eq!(scope_of_authorization(&[0xff]), None);
}

#[test]
fn an_ipv4_range_within_ipv6_is_an_ipv4_range() {
    let mapped = IpAddr::V6("::ffff:10.1.2.3".parse().unwrap());
    let IpAddr::V6(v6) = mapped else { unreachable!() };
    let wire = wire::Address { address: v6.octets().to_vec(), length: 104 };
    assert_eq!(ranges(&[wire]).unwrap(), vec!["10.0.0.0/8".parse().unwrap()]);
}

proptest! {
    #[test]
    fn policies_survive_the_wire(policy in any_policy(), client in client()) {
        let there = decode_authorization(&encode_authorization(&policy)).unwrap();
        prop_assert_eq!(there.rules, simplified(&policy));
        let parts = |policy: &AuthorizationPolicy| (policy.name.clone(), policy.scope, policy.action, policy.dry_run);
        let again = decode_authorization(&encode_authorization(&policy)).unwrap();
        prop_assert_eq!(parts(&again), parts(&policy));
        prop_assert_eq!(client.matches(&again), client.matches(&policy));
        prop_assert_eq!(decode_authorization(&encode_authorization(&again)).unwrap(), again);
    }

    #[test]
    fn who_knows_less_permits_no_more(policy in any_policy(), client in client()) {
        let (exact, common) = (client.matches(&policy), client.matches(&ztunnel_form(&policy)));
        match policy.action {
            PolicyAction::Allow => prop_assert!(exact || !common),
            PolicyAction::Deny => prop_assert!(common || !exact),
        }
    }

    #[test]
    fn any_bytes_decode_or_fail_without_panic(bytes in vec(any::<u8>(), 0..512)) {
        if let Ok(policy) = decode_authorization(&bytes) {
            prop_assert_eq!(decode_authorization(&encode_authorization(&policy)).unwrap(), policy);
        }
        let _ = scope_of_authorization(&bytes);
    }

    #[test]
    fn damaged_policies_decode_or_fail_without_panic(
        policy in any_policy(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode_authorization(&policy);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_authorization(&bytes);
    }
}
