//! Matches that get no request, for the same match comes first.

use super::*;
use crate::objects::Name;
use crate::source::Change;
use crate::source::manifests::parse;

/// `head` is `[namespace/]name[@day]`; every rule is what stands before its backends; parents are parted by `; `.
fn route(kind: &str, head: &str, parents: &str, rules: &[&str]) -> String {
    let (head, day) = head.split_once('@').unwrap_or((head, ""));
    let (namespace, name) = head.split_once('/').unwrap_or(("shop", head));
    let parent = |rest: &str| format!("{{group: '', kind: Service, namespace: shop, name: {rest}}}");
    let parents: Vec<String> = parents.split("; ").map(parent).collect();
    let to_a = "backendRefs: [{name: a, namespace: shop, port: 80}]";
    let rules: Vec<String> = rules.iter().map(|matches| format!("{{{matches}{to_a}}}")).collect();
    let spec = format!("parentRefs: [{}], rules: [{}]", parents.join(", "), rules.join(", "));
    let age = match day {
        "" => String::new(),
        day => format!(", creationTimestamp: '2026-01-0{day}T00:00:00Z'"),
    };
    let metadata = format!("namespace: {namespace}{age}}}\nspec");
    object(kind, name, &spec).replace("namespace: shop}\nspec", &metadata)
}

fn http(head: &str, parents: &str, rules: &[&str]) -> String {
    route("HTTPRoute", head, parents, rules)
}

/// Name and path of each that is shadowed.
fn shadowed(objects: &str) -> Vec<String> {
    let found = found(objects);
    let shadowed = found.iter().filter(|one| one.contains(" shadowed-match "));
    shadowed.map(|one| one.replace(" shadowed-match", "")).collect()
}

const X: &str = "matches: [{path: {value: /x}}], ";

#[test]
fn of_two_that_are_the_same_the_one_that_comes_later_is_named() {
    let two = |old: &str, young: &str| http("old@1", "a", &[old]) + &http("young@2", "a", &[young]);
    let first = vec!["young spec.rules[0].matches[0]"];
    for (objects, expected) in [
        (two(X, X), first.clone()),
        (http("z@1", "a", &[X]) + &http("b@2", "a", &[X]), vec!["b spec.rules[0].matches[0]"]),
        (http("z@1", "a", &[X]) + &http("b@1", "a", &[X]), vec!["z spec.rules[0].matches[0]"]),
        (http("q", "a", &[X]) + &http("p", "a", &[X]), vec!["q spec.rules[0].matches[0]"]),
        // What is the same, however it is written.
        (two("", ""), vec!["young spec.rules[0]"]),
        (two("matches: [{path: {value: /}}], ", ""), vec!["young spec.rules[0]"]),
        (two("", "matches: [{}], "), first.clone()),
        (two(X, "matches: [{path: {type: PathPrefix, value: /x/}}], "), first.clone()),
        (
            two(
                "matches: [{headers: [{name: h, value: v}, {name: i, value: w}], queryParams: [{name: p, value: v}, {name: q, value: w}]}], ",
                "matches: [{headers: [{name: I, value: w}, {name: H, value: v}], queryParams: [{name: q, value: w}, {name: p, value: v}]}], ",
            ),
            first.clone(),
        ),
        // What differs.
        (two(X, "matches: [{path: {type: Exact, value: /x}}], "), vec![]),
        (two(X, "matches: [{path: {value: /x/y}}], "), vec![]),
        (two(X, "matches: [{path: {value: /x}, method: GET}], "), vec![]),
        (two("", X), vec![]),
        (two(X, ""), vec![]),
        (
            two(
                "matches: [{headers: [{name: h, value: v}]}], ",
                "matches: [{headers: [{name: h, value: w}]}], ",
            ),
            vec![],
        ),
        (
            two(
                "matches: [{headers: [{name: h, value: v}]}], ",
                "matches: [{headers: [{name: h, value: v, type: RegularExpression}]}], ",
            ),
            vec![],
        ),
        (
            two(
                "matches: [{queryParams: [{name: p, value: v}]}], ",
                "matches: [{queryParams: [{name: P, value: v}]}], ",
            ),
            vec![],
        ),
        // Of several, those that are.
        (
            two(X, "matches: [{path: {value: /y}}, {path: {value: /x}}], "),
            vec!["young spec.rules[0].matches[1]"],
        ),
        (
            http("old@1", "a", &["matches: [{path: {value: /y}}], ", X])
                + &http("young@2", "a", &["matches: [{path: {value: /z}}], ", X]),
            vec!["young spec.rules[1].matches[0]"],
        ),
        // Within one route; alternatives of one rule are for the same.
        (http("h", "a", &[X, X]), vec!["h spec.rules[1].matches[0]"]),
        (http("h", "a", &["matches: [{path: {value: /x}}, {path: {value: /x}}], "]), vec![]),
        // What does not count takes nothing.
        (two("matches: [{path: {value: /x}}, {method: FETCH}], ", X), vec![]),
    ] {
        assert_eq!(shadowed(&objects), expected, "{objects}");
    }
}

#[test]
fn ports_and_clients_have_to_be_the_same() {
    let two = |old: &str, young: &str| http("old@1", old, &[X]) + &http("young@2", young, &[X]);
    let first = vec!["young spec.rules[0].matches[0]"];
    for (objects, expected) in [
        (two("web", "web"), first.clone()),
        (two("web", "web, port: 81"), first.clone()),
        (two("web, sectionName: other", "web, port: 81"), first.clone()),
        (two("web, port: 80", "web"), vec![]),
        (two("web, port: 80", "web, port: 81"), vec![]),
        (two("web, port: 9", "web, port: 81"), vec![]),
        (two("web, port: 80; web, port: 81", "web"), first.clone()),
        (http("first@1", "web, port: 80", &[X]) + &two("web, port: 81", "web"), first.clone()),
        // Other services.
        (two("web", "a"), vec![]),
        (two("web, port: 80", "web, port: 80; a"), vec![]),
        (two("web; a", "a; web, port: 81"), first.clone()),
        // Consumers have rules of their own, and all of a namespace the same.
        (http("old@1", "a", &[X]) + &http("bank/young@2", "a", &[X]), vec![]),
        (http("bank/old@1", "a", &[X]) + &http("young@2", "a", &[X]), vec![]),
        (http("bank/old@1", "a", &[X]) + &http("press/young@2", "a", &[X]), vec![]),
        (http("bank/old@1", "a", &[X]) + &http("bank/young@2", "a", &[X]), first),
        // On port 80 none of both counts.
        (two("web, port: 80", "web") + &route("GRPCRoute", "g", "web, port: 80", &[""]), vec![]),
        (
            two("web, port: 81", "web") + &route("GRPCRoute", "g", "web, port: 80", &[""]),
            vec!["young spec.rules[0].matches[0]"],
        ),
    ] {
        assert_eq!(shadowed(&objects), expected, "{objects}");
    }
}

#[test]
fn calls_are_compared_by_service_and_method() {
    let two = |old: &str, young: &str| {
        let (old, young) = (format!("matches: [{old}], "), format!("matches: [{young}], "));
        let another = "matches: [{method: {method: Other}}], ";
        route("GRPCRoute", "old@1", "a", &[old.as_str()])
            + &route("GRPCRoute", "young@2", "a", &[another, young.as_str()])
    };
    let second = vec!["young spec.rules[1].matches[0]"];
    for (objects, expected) in [
        (two("{method: {service: s.S, method: M}}", "{method: {service: s.S, method: M}}"), second.clone()),
        (two("{method: {service: s.S}}", "{method: {service: s.S}}"), second.clone()),
        (two("{}", "{}"), second),
        (two("{method: {service: s.S, method: M}}", "{method: {service: s.S, method: K}}"), vec![]),
        (two("{method: {service: s.S}}", "{method: {service: s.S, method: M}}"), vec![]),
        (
            two(
                "{method: {service: s.S, method: M}}",
                "{method: {service: s.S, method: M, type: RegularExpression}}",
            ),
            vec![],
        ),
        (
            two(
                "{method: {service: s.S, method: M}, headers: [{name: h, value: v}]}",
                "{method: {service: s.S, method: M}}",
            ),
            vec![],
        ),
    ] {
        assert_eq!(shadowed(&objects), expected, "{objects}");
    }
}

#[test]
fn what_comes_first_is_named_and_why() {
    let old = http("old@1", "web", &["", X]);
    let young = http("young@2", "web", &[X]);
    let text = found_text(&(old + &young));
    assert!(
        text.contains(
            "spec.rules[0].matches[0]: it is never reached: spec.rules[1].matches[0] of the HTTPRoute shop/old holds the same \
             requests, and that route is older"
        ),
        "{text}"
    );
    let by_name = found_text(&(http("p", "a", &[X]) + &http("q", "a", &[X])));
    assert!(by_name.contains("HTTPRoute shop/p") && by_name.contains("then the names decide"), "{by_name}");
    let of_ports = http("one@1", "web, port: 80", &[X]) + &http("two@1", "web, port: 81", &[X]) + &young;
    let text = found_text(&of_ports);
    assert!(text.contains("HTTPRoute shop/one") && text.contains("HTTPRoute shop/two"), "{text}");
    // What becomes of it at a gateway is not known here.
    let at_gateway = young.replace("parentRefs: [", "parentRefs: [{name: edge}, ");
    let text = found_text(&(http("old@1", "web", &[X]) + &at_gateway));
    assert!(text.contains("it is never reached in the mesh: spec.rules[0].matches[0] of"), "{text}");
    let own = found_text(&http("h", "a", &["", X, X]));
    assert!(own.contains("spec.rules[1].matches[0] holds the same requests and stands before it"), "{own}");
}

#[test]
fn whoever_comes_after_hears_of_what_comes_first() {
    let (old, young, last) =
        (http("old@1", "a", &[X]), http("young@2", "a", &[X]), http("last@3", "a", &[X, ""]));
    let other = http("other@4", "a", &[""]);
    let mut index = index(&format!("{SERVICES}{old}{young}{other}"));
    let key = |name: &str| Key { kind: Kind::HTTPRoute, name: Name::new("shop", name) };
    let remarks = |index: &Index, name: &str| {
        let problems = problems(index, &config(), &key(name));
        problems.into_iter().map(|problem| problem.reason).collect::<Vec<_>>()
    };
    let apply = |index: &mut Index, change: &Change| {
        let affected = index.apply(change).into_iter().filter_map(|key| match key {
            ResourceKey::Remarks(key) => Some(key.name.name.to_string()),
            _ => None,
        });
        affected.collect::<Vec<_>>()
    };
    let upsert = |yaml: &str| Change::Upsert(parse(yaml).unwrap().objects.remove(0));
    assert!(remarks(&index, "young")[0].contains("HTTPRoute shop/old"));
    // Behind two others: it is older than one.
    assert_eq!(apply(&mut index, &upsert(&last)), ["last", "other"]);
    assert!(remarks(&index, "last")[0].contains("HTTPRoute shop/old"));
    assert!(remarks(&index, "other")[0].contains("HTTPRoute shop/last"));
    assert_eq!(apply(&mut index, &Change::Delete(key("old"))), ["last", "old", "young"]);
    assert_eq!(remarks(&index, "young"), [""; 0]);
    assert!(remarks(&index, "last")[0].contains("HTTPRoute shop/young"));
    assert_eq!(apply(&mut index, &upsert(&old)), ["last", "old", "young"]);
    assert_eq!(remarks(&index, "young").len(), 1);
    // It goes elsewhere.
    let moved = http("old@1", "web, port: 80", &[X]);
    assert_eq!(apply(&mut index, &upsert(&moved)), ["last", "old", "young"]);
    assert_eq!(remarks(&index, "young"), [""; 0]);
    assert_eq!(apply(&mut index, &Change::Delete(key("old"))), ["old"]);
}
