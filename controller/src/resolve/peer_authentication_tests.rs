//! PeerAuthentications as people write them, and what they mean for a pod.

use super::tests::{config, index, pod, pod_of};
use super::*;
use crate::objects::{Key, Kind};

/// `namespace/name`, age in seconds (none: a file), and the spec.
fn policy(name: &str, created: Option<u32>, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let created = created
        .map_or(String::new(), |second| format!(", creationTimestamp: '2026-01-01T00:00:{second:02}Z'"));
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}{created}}}\nspec: {{{spec}}}\n"
    )
}

const STRICT: &str = "mtls: {mode: STRICT}";
const PERMISSIVE: &str = "mtls: {mode: PERMISSIVE}";
const UNSET: &str = "mtls: {mode: UNSET}";
const WEB: &str = "selector: {matchLabels: {app: web}}";

/// What is decided about ports 80 and 90 of the pod shop/web with the label app=web: `+` and the name of who
/// allows plaintext, or `-` and the name of who refuses it.
fn decided(policies: &[String]) -> [String; 2] {
    let yaml = pod(", labels: {app: web}", "", "") + &policies.concat();
    let (workload, problems) = pod_of(&yaml, "web");
    assert_eq!(problems, [""; 0]);
    let decided = workload.unwrap().peer_authentication;
    [80, 90].map(|port| {
        let rule = decided.of_port(port);
        let name = rule.rule.strip_prefix("PeerAuthentication ").unwrap_or(&rule.rule);
        format!("{}{name}", if rule.strict { '-' } else { '+' })
    })
}

#[test]
fn levels_override_and_the_oldest_counts() {
    let mesh = |spec| policy("warren-system/default", Some(9), spec);
    let istio = |spec| policy("istio-system/default", Some(1), spec);
    let shop = |spec| policy("shop/default", Some(9), spec);
    let web = |spec: &str| policy("shop/web", Some(9), &format!("{WEB}, {spec}"));
    for (policies, expected) in [
        (vec![], ["+", "+"]),
        (vec![mesh(STRICT)], ["-warren-system/default"; 2]),
        (vec![mesh("")], ["+"; 2]),
        (vec![mesh("mtls: {mode: DISABLE}")], ["+warren-system/default"; 2]),
        (vec![istio(STRICT)], ["-istio-system/default"; 2]),
        (vec![istio(STRICT), mesh(PERMISSIVE)], ["+warren-system/default"; 2]),
        (vec![policy("elsewhere/default", None, STRICT)], ["+"; 2]),
        (vec![shop(STRICT)], ["-shop/default"; 2]),
        (vec![mesh(STRICT), shop(PERMISSIVE)], ["+shop/default"; 2]),
        (vec![mesh(STRICT), shop(UNSET)], ["-warren-system/default"; 2]),
        (vec![shop(STRICT), web(PERMISSIVE)], ["+shop/web"; 2]),
        (vec![shop(STRICT), web(UNSET)], ["-shop/default"; 2]),
        (vec![shop(STRICT), web("mtls: {mode: DISABLE}")], ["+shop/web"; 2]),
        (vec![shop(PERMISSIVE), web(STRICT)], ["-shop/web"; 2]),
        (vec![shop(STRICT), web("portLevelMtls: {90: {mode: PERMISSIVE}}")], ["-shop/default", "+shop/web"]),
        (vec![shop(STRICT), web("portLevelMtls: {90: {mode: DISABLE}}")], ["-shop/default", "+shop/web"]),
        (vec![shop(STRICT), web("portLevelMtls: {90: {mode: UNSET}}")], ["-shop/default"; 2]),
        (vec![web("portLevelMtls: {90: {mode: STRICT}}")], ["+", "-shop/web"]),
        (
            vec![web(&format!("{STRICT}, portLevelMtls: {{90: {{mode: PERMISSIVE}}}}"))],
            ["-shop/web", "+shop/web"],
        ),
        // Another workload's.
        (
            vec![policy("shop/db", None, &format!("selector: {{matchLabels: {{app: db}}}}, {STRICT}"))],
            ["+"; 2],
        ),
        // The oldest of each level; a file's has no age and comes first; then names decide.
        (vec![policy("shop/a", Some(2), STRICT), policy("shop/b", Some(1), PERMISSIVE)], ["+shop/b"; 2]),
        (vec![policy("shop/a", Some(1), STRICT), policy("shop/b", Some(1), PERMISSIVE)], ["-shop/a"; 2]),
        (vec![policy("shop/a", Some(1), STRICT), policy("shop/b", None, PERMISSIVE)], ["+shop/b"; 2]),
        // Ports are not merged: those of the younger one are not looked at.
        (
            vec![
                policy("shop/a", Some(2), &format!("{WEB}, portLevelMtls: {{90: {{mode: STRICT}}}}")),
                policy("shop/b", Some(1), &format!("{WEB}, {PERMISSIVE}")),
            ],
            ["+shop/b"; 2],
        ),
        // Those with a selector in a root namespace select nothing.
        (vec![policy("warren-system/web", None, &format!("{WEB}, {STRICT}"))], ["+"; 2]),
        // An empty selector is none.
        (vec![shop(&format!("selector: {{matchLabels: {{}}}}, {STRICT}"))], ["-shop/default"; 2]),
    ] {
        assert_eq!(decided(&policies), expected, "{}", policies.concat());
    }
}

#[test]
fn authors_are_told_what_has_no_effect() {
    let yaml = [
        policy("shop/a", Some(1), STRICT),
        policy("shop/b", Some(2), STRICT),
        policy("shop/c", Some(2), &format!("{WEB}, mtls: {{mode: DISABLE}}")),
        policy("warren-system/d", None, &format!("{WEB}, {STRICT}")),
    ]
    .concat();
    let config = config();
    let told = |name: &str| {
        let (namespace, name) = name.split_once('/').unwrap();
        let key = Key { kind: Kind::PeerAuthentication, name: Name::new(namespace, name) };
        let resolved = resolve(&index(&yaml), &config, &ResourceKey::Remarks(key));
        assert_eq!(resolved.resource, None);
        resolved.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told("shop/a"), "");
    assert!(told("shop/b").starts_with("PeerAuthentication shop/b: has no effect"));
    assert!(told("shop/c").contains("DISABLE works like PERMISSIVE"));
    assert!(told("warren-system/d").contains("root namespace"));
    assert_eq!(told("shop/gone"), "");
}
