//! AuthorizationPolicies: what is read of them, and every way to be refused.

use super::tests::read;
use crate::objects::{AuthorizationPolicy, Object, PolicyAction, PolicyTarget};

fn yaml(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: web, namespace: shop{metadata}}}\n{spec}\n"
    )
}

fn good(spec: &str) -> AuthorizationPolicy {
    match read(&yaml("", spec)) {
        Ok(Object::AuthorizationPolicy(policy)) => policy,
        other => panic!("{spec}: {other:?}"),
    }
}

/// The first rule's only source, operation or condition, as JSON of what is not empty, and its fields of HTTP.
fn part(rule: &str) -> (String, Vec<&'static str>) {
    let policy = good(&format!("spec: {{rules: [{{{rule}}}]}}"));
    let part = policy.rules[0].parts().next().unwrap().clone();
    (serde_json::to_string(&part.connection).unwrap().replace('"', ""), part.http)
}

#[test]
fn what_is_around_the_rules() {
    use PolicyAction::{Allow, Audit, Custom, Deny};
    for (spec, action, rules, selects) in [
        ("", Allow, 0, Some(0)),
        ("spec: {}", Allow, 0, Some(0)),
        ("spec: {rules: []}", Allow, 0, Some(0)),
        ("spec: {action: ALLOW, rules: [{}]}", Allow, 1, Some(0)),
        ("spec: {action: DENY, rules: [{}]}", Deny, 1, Some(0)),
        ("spec: {action: AUDIT}", Audit, 0, Some(0)),
        ("spec: {action: CUSTOM, provider: {name: x}, rules: [{}, {}]}", Custom, 2, Some(0)),
        ("spec: {selector: {}}", Allow, 0, Some(0)),
        ("spec: {selector: {matchLabels: {app: web, v: '2'}}}", Allow, 0, Some(2)),
        ("spec: {targetRefs: []}", Allow, 0, Some(0)),
        ("spec: {targetRef: {kind: Service, name: web}}", Allow, 0, None),
        (
            "spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}, \
             {group: networking.istio.io, kind: ServiceEntry, name: web}]}",
            Allow,
            0,
            None,
        ),
    ] {
        let policy = good(spec);
        let labels = match &policy.target {
            PolicyTarget::Workloads(labels) => Some(labels.len()),
            PolicyTarget::Attached { .. } => None,
        };
        assert_eq!((policy.action, policy.rules.len(), labels), (action, rules, selects), "{spec}");
        assert!(!policy.dry_run);
    }
    for (annotation, dry_run) in [("'true'", Some(true)), ("'0'", Some(false)), ("'yes'", None)] {
        let metadata = format!(", annotations: {{other: x, istio.io/dry-run: {annotation}}}");
        let read = read(&yaml(&metadata, "spec: {}")).ok();
        let read = read.map(|object| matches!(object, Object::AuthorizationPolicy(policy) if policy.dry_run));
        assert_eq!(read, dry_run, "{annotation}");
    }
}

#[test]
fn every_attribute_of_a_connection() {
    for (rule, expected) in [
        (
            "from: [{source: {principals: ['cluster.local/ns/a/sa/b', 'x*', '*y', '*']}}]",
            "{principals:[{exact:cluster.local/ns/a/sa/b},{prefix:x},{suffix:y},presence]}",
        ),
        ("from: [{source: {notPrincipals: ['*']}}]", "{not_principals:[presence]}"),
        (
            "from: [{source: {namespaces: [a, 'b-*-c'], notNamespaces: ['*d']}}]",
            "{namespaces:[{exact:a},{glob:b-*-c}],not_namespaces:[{suffix:d}]}",
        ),
        (
            "from: [{source: {serviceAccounts: [web, other/db], notServiceAccounts: [x]}}]",
            "{service_accounts:[{namespace:shop,service_account:web},{namespace:other,service_account:db}],\
          not_service_accounts:[{namespace:shop,service_account:x}]}",
        ),
        (
            "from: [{source: {ipBlocks: [10.1.2.3, 'fd00::/8'], notIpBlocks: [10.0.0.0/8]}}]",
            "{source_ips:[10.1.2.3/32,fd00::/8],not_source_ips:[10.0.0.0/8]}",
        ),
        (
            "from: [{source: {remoteIpBlocks: [10.1.2.3], notRemoteIpBlocks: ['::1']}}]",
            "{remote_ips:[10.1.2.3/32],not_remote_ips:[::1/128]}",
        ),
        (
            "from: [{source: {trustDomains: [a], notTrustDomains: ['b*']}}]",
            "{trust_domains:[{exact:a}],not_trust_domains:[{prefix:b}]}",
        ),
        (
            "to: [{operation: {ports: ['80', '65535'], notPorts: ['1']}}]",
            "{destination_ports:[80,65535],not_destination_ports:[1]}",
        ),
        (
            "when: [{key: source.ip, values: [10.0.0.1], notValues: [10.0.0.2]}]",
            "{source_ips:[10.0.0.1/32],not_source_ips:[10.0.0.2/32]}",
        ),
        ("when: [{key: remote.ip, values: [10.0.0.1]}]", "{remote_ips:[10.0.0.1/32]}"),
        ("when: [{key: destination.ip, notValues: [10.0.0.1]}]", "{not_destination_ips:[10.0.0.1/32]}"),
        ("when: [{key: destination.port, values: ['80']}]", "{destination_ports:[80]}"),
        ("when: [{key: source.namespace, values: ['a*b']}]", "{namespaces:[{glob:a*b}]}"),
        ("when: [{key: source.principal, notValues: ['*']}]", "{not_principals:[presence]}"),
        (
            "when: [{key: source.serviceAccount, values: [web]}]",
            "{service_accounts:[{namespace:shop,service_account:web}]}",
        ),
        ("when: [{key: source.trustDomain, values: [a]}]", "{trust_domains:[{exact:a}]}"),
        ("when: [{key: connection.sni, values: ['*.test']}]", "{server_names:[{suffix:.test}]}"),
        // Names of hosts are the same in any case.
        ("when: [{key: connection.sni, notValues: [DB.Test]}]", "{not_server_names:[{exact:db.test}]}"),
    ] {
        assert_eq!(part(rule), (expected.to_owned(), vec![]), "{rule}");
    }
}

#[test]
fn every_attribute_of_requests() {
    for (rule, fields) in [
        ("from: [{source: {requestPrincipals: ['*']}}]", &["requestPrincipals"][..]),
        ("from: [{source: {notRequestPrincipals: ['iss/*']}}]", &["notRequestPrincipals"]),
        ("to: [{operation: {hosts: ['*.test'], notHosts: [a.test]}}]", &["hosts", "notHosts"]),
        ("to: [{operation: {methods: [GET], notMethods: ['P*']}}]", &["methods", "notMethods"]),
        (
            "to: [{operation: {paths: ['/a/{*}/b', '/a/{**}', '/x*'], notPaths: ['*']}}]",
            &["paths", "notPaths"],
        ),
        ("when: [{key: 'request.headers[x-y]', values: [a]}]", &["request.headers"]),
        ("when: [{key: request.auth.principal, values: [a]}]", &["request.auth.principal"]),
        ("when: [{key: request.auth.audiences, values: [a]}]", &["request.auth.audiences"]),
        ("when: [{key: request.auth.presenter, values: [a]}]", &["request.auth.presenter"]),
        ("when: [{key: 'request.auth.claims[a][b]', notValues: [a]}]", &["request.auth.claims"]),
    ] {
        assert_eq!(part(rule), ("{}".to_owned(), fields.to_vec()), "{rule}");
    }
    let (connection, http) = part("to: [{operation: {ports: ['80'], methods: [GET]}}]");
    assert_eq!((connection.as_str(), http), ("{destination_ports:[80]}", vec!["methods"]));
}

#[test]
fn what_is_wrong_is_said() {
    let rules = |count| vec!["{}"; count].join(", ");
    let sources = vec!["{source: {namespaces: [a]}}"; 513].join(", ");
    let accounts = (0..17).map(|n| format!("a{n}")).collect::<Vec<_>>().join(", ");
    let targets = vec!["{kind: Service, name: a}"; 17].join(", ");
    let long = "x".repeat(1 << 18);
    for (spec, reason) in [
        ("action: allow", "allow"),
        ("actions: ALLOW", "actions"),
        ("action: DENY", "rules is missing"),
        ("action: DENY, rules: []", "rules is missing"),
        ("action: CUSTOM, provider: {name: x}", "rules is missing"),
        ("action: CUSTOM, rules: [{}]", "provider.name"),
        ("action: CUSTOM, provider: {name: ''}, rules: [{}]", "provider.name"),
        ("provider: {name: x}", "CUSTOM only"),
        ("selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: a}]", "exclude each other"),
        ("selector: {}, targetRef: {kind: Service, name: a}", "exclude each other"),
        ("selector: {matchLabels: {a: 'b*'}}", "wildcards"),
        ("targetRefs: [{kind: Pod, name: a}]", "ServiceEntry"),
        ("targetRefs: [{group: apps, kind: Service, name: a}]", "apps/Service"),
        ("targetRefs: [{kind: Service}]", "name is missing"),
        ("targetRefs: [{kind: Service, name: a, namespace: b}]", "empty, as it must be"),
        (&format!("targetRefs: [{targets}]"), "at most 16"),
        (&format!("rules: [{}]", rules(513)), "at most 512 rules"),
        (&format!("rules: [{{from: [{sources}]}}]"), "at most 512 sources"),
        ("rules: [null]", ""),
        ("rules: [{fron: []}]", "fron"),
        ("rules: [{}, {from: []}]", "rules[1]: from and to"),
        ("rules: [{to: []}]", "from and to"),
        ("rules: [{from: [{}]}]", "source: it holds"),
        ("rules: [{from: [{source: {}}]}]", "source: it holds"),
        ("rules: [{from: [{source: {principals: []}}]}]", "source: it holds"),
        ("rules: [{to: [{operation: {}}]}]", "operation: it holds"),
        ("rules: [{from: [{source: {principals: ['']}}]}]", "is not a value"),
        ("rules: [{from: [{source: {principals: ['a*b']}}]}]", "at most one star"),
        ("rules: [{from: [{source: {trustDomains: ['*a*']}}]}]", "at most one star"),
        ("rules: [{from: [{source: {principal: [a]}}]}]", "principal"),
        ("rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]", "exclude"),
        ("rules: [{from: [{source: {notServiceAccounts: [a], principals: [b]}}]}]", "exclude"),
        ("rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]", "wildcards"),
        ("rules: [{from: [{source: {serviceAccounts: [a/b/c]}}]}]", "service account"),
        ("rules: [{from: [{source: {serviceAccounts: ['/b']}}]}]", "service account"),
        (&format!("rules: [{{from: [{{source: {{serviceAccounts: [{accounts}]}}}}]}}]"), "at most 16"),
        ("rules: [{from: [{source: {ipBlocks: [web]}}]}]", "CIDR"),
        ("rules: [{from: [{source: {notIpBlocks: [10.0.0.0/33]}}]}]", "CIDR"),
        ("rules: [{from: [{source: {remoteIpBlocks: ['']}}]}]", "is not a value"),
        ("rules: [{to: [{operation: {ports: ['0']}}]}]", "port number"),
        ("rules: [{to: [{operation: {ports: ['65536']}}]}]", "port number"),
        ("rules: [{to: [{operation: {ports: ['+80']}}]}]", "port number"),
        ("rules: [{to: [{operation: {ports: [80]}}]}]", "quotes"),
        ("rules: [{to: [{operation: {methods: ['']}}]}]", "is not a value"),
        ("rules: [{to: [{operation: {paths: ['/a/{**}/b']}}]}]", "template"),
        ("rules: [{to: [{operation: {paths: ['/a/x{*}']}}]}]", "template"),
        ("rules: [{to: [{operation: {paths: ['/{a}']}}]}]", "template"),
        ("rules: [{to: [{operation: {paths: ['/{*}/*']}}]}]", "template"),
        ("rules: [{when: [{key: source.ip}]}]", "values or notValues"),
        ("rules: [{when: [{values: [a]}]}]", "key"),
        ("rules: [{when: [{key: '', values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: source.ip, values: [a]}]}]", "CIDR"),
        ("rules: [{when: [{key: destination.port, values: [a]}]}]", "port number"),
        ("rules: [{when: [{key: destination.labels, values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: destination.name, values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: source.user, values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: 'request.headers[]', values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: 'request.headers[a][b]', values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: 'request.auth.claims', values: [a]}]}]", "when.key"),
        ("rules: [{when: [{key: experimental.envoy.filters.x, values: [a]}]}]", "when.key"),
        (&format!("rules: [{{from: [{{source: {{namespaces: ['{long}*x']}}}}]}}]"), "xxx"),
    ] {
        let error = read(&yaml("", &format!("spec: {{{spec}}}"))).unwrap_err();
        assert!(error.contains(reason), "{spec:.200}: {error}");
    }
    let dry = ", annotations: {istio.io/dry-run: 'true'}";
    for spec in ["spec: {action: AUDIT}", "spec: {action: CUSTOM, provider: {name: x}, rules: [{}]}"] {
        assert!(read(&yaml(dry, spec)).unwrap_err().contains("ALLOW and DENY only"));
    }
    assert!(read(&yaml("", "spec: {}").replace("name: web", "name: Web")).is_err());
}
