//! What a VirtualService leaves to others.

use super::{TO_A, paths, services, tables, virtual_service};
use serde_json::json;
use warren_common::model::traffic::{Destination, HttpAction};

#[test]
fn delegates_contribute_their_rules() {
    let all = services(&[("web.shop", &[80]), ("a.bank", &[80])]);
    let root = virtual_service(
        "shop/root",
        "hosts: [web], http: [{name: r, match: [{uri: {prefix: /a}}], timeout: 5s, delegate: {name: d, namespace: bank}}, \
         {redirect: {uri: /x}}]",
    );
    let delegate = |rules: &str, more: &str| {
        let rules: Vec<_> = rules
            .split(';')
            .map(|rule| format!("{{{rule}, route: [{{destination: {{host: a}}}}]}}"))
            .collect();
        virtual_service("bank/d", &format!("http: [{}]{more}", rules.join(", ")))
    };
    for (delegate, expected) in [
        (delegate("name: d", ""), "/a* r-d 5000"),
        (delegate("match: [{uri: {prefix: /a/b}}], timeout: 1s", ""), "/a/b* r 1000"),
        (delegate("match: [{uri: {exact: /abc}}]", ""), "=/abc r 5000"),
        // Not within the root's: dropped, the others stay.
        (delegate("match: [{uri: {prefix: /b}}];match: [{port: 80}]", ""), "/a* r 5000"),
        (
            delegate("match: [{uri: {prefix: /a/b}}, {uri: {prefix: /b}}];match: [{port: 80}]", ""),
            "/a* r 5000",
        ),
        (delegate("match: [{uri: {regex: '/a.*'}}]", ""), ""),
        (delegate("name: d", ", exportTo: ['.']"), ""),
        (virtual_service("bank/d", &format!("hosts: [x.y], {TO_A}")), ""),
        (String::new(), ""),
    ] {
        let table = tables(&format!("{all}{root}{delegate}"), "web.shop").remove(0);
        let mut rules = table.rules.http.clone().unwrap();
        assert!(matches!(rules.pop().unwrap().action, HttpAction::Redirect(_)));
        let said = rules.iter().map(|rule| {
            let HttpAction::Forward(forward) = &rule.action else { panic!() };
            assert!(matches!(&forward.backends[0].to, Destination::Service { service, .. } if *service.namespace == *"bank"));
            format!("{} {} {}", paths(&table)[0], rule.name, forward.timeout_ms.unwrap())
        });
        assert_eq!(said.collect::<Vec<_>>().join("; "), expected, "{delegate}");
    }
}

#[test]
fn what_a_delegate_does_not_say_is_its_roots() {
    let all = services(&[("web.shop", &[80]), ("a.bank", &[80]), ("b.bank", &[80])]);
    let rule = |root: &str, own: &str| {
        let yaml = all.clone()
            + &virtual_service(
                "shop/root",
                &format!("hosts: [web], http: [{{delegate: {{name: d, namespace: bank}}{root}}}]"),
            )
            + &virtual_service("bank/d", &format!("http: [{{route: [{{destination: {{host: a}}}}]{own}}}]"));
        let mut tables = tables(&yaml, "web.shop");
        serde_json::to_value(tables.remove(0).rules.http.unwrap().remove(0)).unwrap()
    };
    let b = "host: b.bank.svc.cluster.local";
    let c = "host: a.bank.svc.cluster.local";
    for (root, own, place, expected) in [
        ("rewrite: {uri: /r}", "", "/action/forward/rewrite/path/prefix", json!("/r")),
        ("rewrite: {uri: /r}", "rewrite: {authority: own}", "/action/forward/rewrite/path", json!(null)),
        (
            "rewrite: {uri: /r}",
            "rewrite: {authority: own}",
            "/action/forward/rewrite/authority",
            json!("own"),
        ),
        ("timeout: 1s", "", "/action/forward/timeout_ms", json!(1000)),
        ("timeout: 1s", "timeout: 2s", "/action/forward/timeout_ms", json!(2000)),
        ("retries: {attempts: 7}", "", "/action/forward/retries/attempts", json!(7)),
        ("retries: {attempts: 7}", "retries: {attempts: 0}", "/action/forward/retries/attempts", json!(0)),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 100}}}",
            "",
            "/action/forward/fault/abort/http_status",
            json!(500),
        ),
        (
            "fault: {abort: {httpStatus: 500, percentage: {value: 100}}}",
            "fault: {delay: {fixedDelay: 1s}}",
            "/action/forward/fault/abort",
            json!(null),
        ),
        ("corsPolicy: {allowMethods: [GET]}", "", "/cors/methods/0", json!("GET")),
        ("corsPolicy: {allowMethods: [GET]}", "corsPolicy: {}", "/cors/methods", json!([])),
        // Headers are one field, of both directions.
        ("headers: {request: {remove: [x]}}", "", "/request_headers/remove/0", json!("x")),
        (
            "headers: {request: {remove: [x]}}",
            "headers: {response: {remove: [z]}}",
            "/request_headers/remove",
            json!([]),
        ),
        (
            "headers: {response: {remove: [x]}}",
            "headers: {request: {remove: [z]}}",
            "/response_headers/remove",
            json!([]),
        ),
        ("headers: {request: {remove: [x]}}", "headers: {}", "/request_headers/remove", json!([])),
    ] {
        let said = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
        let rule = rule(&said(root), &said(own));
        let found = rule.pointer(place).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{root}; {own}: {rule}");
    }
    for (root, own, expected) in [
        (format!("mirror: {{{b}}}"), String::new(), vec![("b", 1_000_000)]),
        (format!("mirror: {{{b}}}"), "mirror: {host: a}".into(), vec![("a", 1_000_000)]),
        // Where to and how many are fields for themselves; 0 % is said, too.
        (
            format!("mirror: {{{b}}}, mirrorPercentage: {{value: 10}}"),
            "mirror: {host: a}".into(),
            vec![("a", 100_000)],
        ),
        (format!("mirror: {{{b}}}"), "mirrorPercentage: {value: 10}".into(), vec![("b", 100_000)]),
        (format!("mirror: {{{b}}}"), "mirrorPercentage: {value: 0}".into(), vec![]),
        (format!("mirror: {{{b}}}"), "mirror: {host: a}, mirrorPercentage: {value: 0}".into(), vec![]),
        (
            format!("mirror: {{{b}}}, mirrorPercentage: {{value: 0}}"),
            "mirrors: [{destination: {host: a}}]".into(),
            vec![("a", 1_000_000)],
        ),
        (
            format!(
                "mirrors: [{{destination: {{{b}}}}}, {{destination: {{{c}}}, percentage: {{value: 1}}}}]"
            ),
            String::new(),
            vec![("b", 1_000_000), ("a", 10_000)],
        ),
        (
            format!("mirrors: [{{destination: {{{b}}}}}]"),
            "mirrors: [{destination: {host: a}, percentage: {value: 0}}]".into(),
            vec![],
        ),
    ] {
        let said = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
        let rule = rule(&said(&root), &said(&own));
        let mirrors = rule["action"]["forward"]["mirrors"].as_array().unwrap();
        let mirrors: Vec<_> = mirrors
            .iter()
            .map(|one| {
                let host = one["to"]["service"]["service"]["hostname"].as_str().unwrap();
                (host.split('.').next().unwrap(), one["per_million"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(mirrors, expected, "{root}; {own}");
    }
}

#[test]
fn rules_of_delegates_lie_within_their_roots() {
    let all = services(&[("web.shop", &[80]), ("a.shop", &[80])]);
    // How many matches are left.
    let left = |root: &str, own: &str| {
        let yaml = all.clone()
            + &virtual_service(
                "shop/root",
                &format!("hosts: [web], http: [{{match: [{root}], delegate: {{name: d}}}}]"),
            )
            + &virtual_service(
                "shop/d",
                &format!("http: [{{match: [{own}], route: [{{destination: {{host: a}}}}]}}]"),
            );
        let tables = tables(&yaml, "web.shop");
        tables
            .first()
            .map_or(0, |table| table.rules.http.iter().flatten().map(|rule| rule.matches.len()).sum())
    };
    for (root, own, expected) in [
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a}}", 1),
        ("{uri: {exact: /a}}", "{uri: {exact: /a}}", 1),
        ("{uri: {exact: /a}}", "{uri: {prefix: /a}}", 0),
        ("{uri: {prefix: /a}}", "{uri: {regex: /a.*}}", 0),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /A}, ignoreUriCase: true}", 0),
        ("{method: {exact: GET}}", "{method: {exact: GET}}", 1),
        ("{method: {exact: GET}}", "{method: {exact: PUT}}", 0),
        ("{scheme: {exact: http}}", "{scheme: {exact: https}}", 0),
        ("{authority: {prefix: a}}", "{authority: {exact: ab}}", 1),
        ("{authority: {prefix: a}}", "{authority: {exact: b}}", 0),
        ("{headers: {x: {}}}", "{headers: {x: {regex: a}}}", 1),
        ("{headers: {x: {prefix: a}}}", "{headers: {x: {exact: ab}, y: {}}}", 1),
        ("{headers: {x: {exact: a}}}", "{headers: {x: {exact: b}}}", 0),
        ("{headers: {x: {exact: a}}}", "{headers: {y: {exact: b}}}", 1),
        ("{withoutHeaders: {x: {exact: a}}}", "{withoutHeaders: {x: {exact: a}}}", 1),
        ("{withoutHeaders: {x: {}}}", "{withoutHeaders: {x: {exact: a}}}", 0),
        ("{queryParams: {q: {exact: a}}}", "{queryParams: {q: {exact: b}}}", 0),
        ("{queryParams: {q: {exact: a}}}", "{queryParams: {p: {exact: b}}}", 1),
        ("{port: 80}", "{port: 81}", 0),
        ("{sourceNamespace: bank}", "{sourceNamespace: shop}", 0),
        ("{sourceNamespace: bank}", "{sourceNamespace: bank, sourceLabels: {app: a}}", 1),
        ("{sourceLabels: {app: a}}", "{sourceLabels: {app: b}}", 0),
        ("{sourceLabels: {app: a}}", "{sourceLabels: {tier: b}}", 1),
        ("{gateways: [mesh]}", "{gateways: [edge]}", 0),
        ("{gateways: [mesh, edge]}", "{gateways: [mesh]}", 1),
        // Each match of the delegate within one of the root's at least, else the rule is left out.
        ("{uri: {prefix: /a}}, {uri: {prefix: /b}}", "{uri: {prefix: /ab}}, {uri: {exact: /b}}", 2),
        ("{uri: {prefix: /a}}, {port: 80}", "{uri: {prefix: /ab}}", 2),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /ab}}, {uri: {exact: /b}}", 0),
    ] {
        assert_eq!(left(root, own), expected, "{root}; {own}");
    }
}
