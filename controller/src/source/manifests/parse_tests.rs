use super::*;
use proptest::prelude::*;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n";

fn keys(text: &str) -> Vec<String> {
    parse(text).unwrap().objects.iter().map(|object| object.key().to_string()).collect()
}

fn problem(text: &str) -> (u64, String) {
    let error = parse(text).unwrap_err();
    (error.line, error.reason)
}

#[test]
fn documents_lists_and_json() {
    for (text, expected) in [
        ("", &[][..]),
        ("---\n---\n# nothing\n---\n", &[]),
        ("null\n", &[]),
        (NAMESPACE, &["Namespace shop"]),
        (
            &format!("---\n{NAMESPACE}---\n\n---\n{}", NAMESPACE.replace("shop", "b")),
            &["Namespace shop", "Namespace b"],
        ),
        (&format!("%YAML 1.2\n--- # first\n{NAMESPACE}...\n"), &["Namespace shop"]),
        (&format!("\u{feff}{}", NAMESPACE.replace('\n', "\r\n")), &["Namespace shop"]),
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: n1}}\n- {apiVersion: v1, kind: Secret}\n",
            &["Node n1"],
        ),
        ("apiVersion: v1\nkind: List\n", &[]),
        (
            "apiVersion: v1\nkind: NodeList\nitems:\n- {metadata: {name: n1}}\n- {kind: Node, metadata: {name: n2}}\n",
            &["Node n1", "Node n2"],
        ),
        ("apiVersion: v1\nkind: NodeList\nitems: []\n", &[]),
        // No list of anything.
        ("apiVersion: example.com/v1\nkind: AllowList\nspec: {items: [1]}\n", &[]),
        (
            "{\"apiVersion\": \"v1\",\n \"kind\": \"ServiceAccount\", \"metadata\": {\"name\": \"web\"}}\n",
            &["ServiceAccount default/web"],
        ),
        (
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Node\", \"metadata\": {\"name\": \"n1\"}}\n",
            &["Node n1"],
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  text: |\n    ---\n    kind: Pod\n",
            &[],
        ),
    ] {
        assert_eq!(keys(text), expected, "{text}");
    }
}

#[test]
fn objects_for_a_mesh_that_are_not_read_are_named() {
    let text = "kind: ConfigMap
apiVersion: v1
metadata: {name: other}
---
apiVersion: networking.istio.io/v1
kind: EnvoyFilter
metadata: {name: own, namespace: shop}
spec: {anything: [1, {}]}
---
apiVersion: v1
kind: List
items: [{apiVersion: networking.istio.io/v1alpha3, kind: Gateway, metadata: {name: ext}}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: mesh}
";
    let parsed = parse(text).unwrap();
    let named: Vec<_> =
        parsed.unread.iter().map(|unread| format!("{}: {} {unread}", unread.line, unread.object)).collect();
    let because = |version| format!("objects of this kind ({version}) are not applied yet: it has no effect");
    assert_eq!(
        named,
        [
            format!("5: EnvoyFilter shop/own {}", because("networking.istio.io/v1")),
            format!("12: Gateway default/ext {}", because("networking.istio.io/v1alpha3")),
            format!("14: XMesh default/mesh {}", because("gateway.networking.x-k8s.io/v1alpha1")),
        ]
    );
    assert!(parse("apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nspec: [\n").is_err());
    let listed = "apiVersion: networking.istio.io/v1\nkind: GatewayList\nitems: [{metadata: {name: g}}]\n";
    assert_eq!(parse(listed).unwrap().unread[0].object, "Gateway default/g");
    let mistaken = parse("apiVersion: v1\nkind: VirtualService\nmetadata: {name: v}\n").unwrap().unread;
    assert_eq!(
        mistaken[0].to_string(),
        "there is no such kind (v1), so it has no effect; is VirtualService (networking.istio.io/v1) meant?"
    );
}

#[test]
fn errors_name_the_line_of_the_file() {
    for (text, line, part) in [
        ("kind: Pod\n", 1, "apiVersion is missing"),
        ("# a comment\n\napiVersion: v1\n", 3, "kind is missing"),
        (&format!("{NAMESPACE}---\nkind: [\n"), 6, ""),
        (&format!("{NAMESPACE}---\napiVersion: v1\nkind: Namespace\nmetadata: []\n"), 8, ""),
        (
            &format!(
                "{NAMESPACE}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec:\n  nodeName: {{}}\n"
            ),
            10,
            "",
        ),
        ("apiVersion: v1\nkind: Node\n", 1, "metadata.name is missing"),
        (
            "---\n---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: web}\n",
            6,
            "spec.clusterIPs: \"web\" is not an IP address",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {name: [x]}\n",
            4,
            "",
        ),
        ("apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n", 4, "apiVersion of a list's item"),
        ("just text\n", 1, ""),
    ] {
        let (have, reason) = problem(text);
        assert!(have == line && reason.contains(part), "{text}\n-> {have}: {reason}");
        assert!(!reason.contains('\n'), "one line: {reason}");
    }
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in
        [('b', 'a'), ('c', 'b'), ('d', 'c'), ('e', 'd'), ('f', 'e'), ('g', 'f'), ('h', 'g'), ('i', 'h')]
    {
        let alias = format!("*{of}, ").repeat(9);
        bomb.push_str(&format!("{name}: &{name} [{alias}]\n"));
    }
    let deep = format!("apiVersion: v1\nkind: Pod\nx: {}", "[".repeat(100_000));
    for text in [format!("apiVersion: v1\nkind: ConfigMap\n{bomb}"), deep, "{".repeat(100_000)] {
        assert!(parse(&text).is_err());
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_fails_without_panic(text in ".{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn damaged_manifests_parse_or_fail_without_panic(at in 0..400_usize, with in "[\\[\\]{}:&*!|>'\"\n\t -]{0,3}", cut: bool) {
        let mut text = format!("{NAMESPACE}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: x}}\nspec:\n  containers: []\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: {{name: n}}\n");
        let at = at.min(text.len());
        text.insert_str(at, &with);
        if cut { text.truncate(at) }
        if let Err(error) = parse(&text) {
            prop_assert!(error.line >= 1 && error.line <= text.lines().count() as u64 + 1, "{error}");
        }
    }
}

#[test]
fn lines_are_counted_as_editors_count_them() {
    // A lone CR ends a line for YAML, but not for the editor that the person will open.
    let (line, reason) =
        problem("apiVersion: v1\r\nkind: Pod\r\nmetadata: {name: \"a\r\r\rb\"}\nspec: {\u{1}\n");
    assert_eq!(line, 4, "{reason}");
    assert!(!reason.contains("at line"), "one line number, not two: {reason}");
}
