//! AuthorizationPolicies from a manifest to the verdict: each decides about connections over HBONE, on one node, and in
//! plaintext, and the flow names the rule.

use anyhow::{Context as _, Result, ensure};
use std::time::Duration;
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, poll_until, run_checks};

const SOON: Duration = Duration::from_secs(20);
const FILE: &str = "policy.yaml";

/// Who connects to what: over HBONE, on the same node, from another namespace of the mesh, in plaintext, to another port,
/// to a pod with another label.
const WAYS: [(&str, &str, u16); 6] = [
    ("client", "server", 9000),
    ("near", "server", 9000),
    ("other", "server", 9000),
    ("stranger", "server", 9000),
    ("client", "server", 9090),
    ("client", "bystander", 9000),
];

#[test]
fn policies_decide_who_enters() {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .namespace("other", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("other", |pod| pod.on("n1").namespace("other").service_account("other"))
        .pod("stranger", |pod| pod.on("n1"))
        .pod("near", |pod| pod.on("n2").namespace("shop").service_account("near"))
        .pod("server", |pod| pod.on("n2").namespace("shop").label("app", "server"))
        .service("web", |service| service.namespace("shop").port("tcp", 80, 9000).select("app", "server"))
        .pod("bystander", |pod| pod.on("n2").namespace("shop").label("app", "bystander"))
        .test(|lab| {
            lab.start_mesh()?;
            let _servers = ["server", "bystander"]
                .into_iter()
                .map(|name| lab.pod(name).serve(["echo", "--port", "9000", "--port", "9090"]))
                .collect::<Result<Vec<_>>>()?;
            run_checks(
                lab,
                checks![
                    without_policies_everybody_enters,
                    allow_names_who_may,
                    deny_names_who_may_not,
                    nothing_and_everything,
                    negations_hold_without_an_identity,
                    selectors_and_root_namespaces,
                    services_have_policies_of_their_ports,
                    http_counts_as_never_allowed_and_always_denied,
                    dry_run_is_shown_and_not_enforced,
                    strict_and_a_policy,
                    what_is_deleted_holds_no_more,
                    what_was_never_understood_denies,
                ],
            )
        });
}

fn yaml(name: &str, metadata: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}{metadata}}}\nspec: {{{spec}}}\n"
    )
}

fn enters(lab: &Lab, (from, to, port): (&str, &str, u16)) -> bool {
    let to = format!("{}:{port}", lab.pod(to).ip4());
    let said = lab.pod(from).workload(["connect", "--to", &to, "--send", "hello"]).json();
    said.is_ok_and(|said| said["ok"] == true && said["text"] == "hello")
}

/// Who enters by which of [`WAYS`]: `+` and `-`.
fn all(lab: &Lab) -> String {
    WAYS.iter().map(|way| if enters(lab, *way) { '+' } else { '-' }).collect()
}

fn until(lab: &Lab, what: &str, expected: &str) -> Result<()> {
    let mut latest = String::new();
    let reached = poll_until(what, SOON, || {
        latest = all(lab);
        (latest == expected).then_some(())
    });
    reached.with_context(|| format!("{expected} was expected; {latest} it stayed"))
}

/// Tries each policy and who may enter then.
fn table(lab: &Lab, rows: &[(&str, &str)]) -> Result<()> {
    for (spec, expected) in rows {
        lab.write_manifest(FILE, &yaml("web", "", spec))?;
        until(lab, spec, expected)?;
    }
    Ok(())
}

/// One connection, and what the server's node says of it.
fn told(lab: &Lab, way: (&str, &str, u16), verdict: &str, policy: &str) -> Result<serde_json::Value> {
    let watch = lab.node("n2").watch_flows()?;
    ensure!(enters(lab, way) == (verdict == "allowed"), "{way:?} is not {verdict}");
    watch.expect(&[("/direction", "inbound"), ("/verdict", verdict), ("/policy", policy)])
}

fn without_policies_everybody_enters(lab: &Lab) -> Result<()> {
    until(lab, "no policy", "++++++")
}

fn allow_names_who_may(lab: &Lab) -> Result<()> {
    let client = lab.pod("client").ip4();
    table(
        lab,
        &[
            ("rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]", "+---++"),
            ("rules: [{from: [{source: {principals: ['*/sa/near']}}]}]", "-+----"),
            ("rules: [{from: [{source: {namespaces: [shop]}}]}]", "++--++"),
            ("rules: [{from: [{source: {namespaces: ['o*r']}}]}]", "--+---"),
            ("rules: [{from: [{source: {serviceAccounts: [near, other/other]}}]}]", "-++---"),
            ("rules: [{from: [{source: {trustDomains: [cluster.local]}}]}]", "+++-++"),
            (&format!("rules: [{{from: [{{source: {{ipBlocks: ['{client}/32']}}}}]}}]"), "+---++"),
            ("rules: [{to: [{operation: {ports: ['9090']}}]}]", "----+-"),
            ("rules: [{when: [{key: destination.port, values: ['9000']}]}]", "++++-+"),
            (
                "rules: [{from: [{source: {namespaces: [other]}}]}, \
                 {from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ['9000']}}]}]",
                "+++--+",
            ),
        ],
    )?;
    told(lab, WAYS[0], "allowed", "allow shop/web#1")?;
    told(lab, WAYS[1], "allowed", "allow shop/web#1")?;
    told(lab, WAYS[2], "allowed", "allow shop/web#0")?;
    let refused = lab.node("n2").watch_flows()?;
    ensure!(!enters(lab, WAYS[3]), "plaintext has no namespace");
    let flow = refused.expect(&[("/direction", "inbound"), ("/verdict", "denied"), ("/flags", "DENY")])?;
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error.contains("rbac_access_denied_matched_policy[none]"), "{flow}");
    Ok(())
}

fn deny_names_who_may_not(lab: &Lab) -> Result<()> {
    let near = lab.pod("near").ip4();
    table(
        lab,
        &[
            ("action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]", "--++--"),
            (&format!("action: DENY, rules: [{{from: [{{source: {{ipBlocks: ['{near}']}}}}]}}]"), "+-++++"),
            ("action: DENY, rules: [{to: [{operation: {ports: ['9090']}}]}]", "++++-+"),
            (
                "action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}, \
                 {from: [{source: {serviceAccounts: [client]}}]}]",
                "-+++--",
            ),
        ],
    )?;
    let flow = told(lab, WAYS[0], "denied", "deny shop/web#1")?;
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error.contains("rbac_access_denied_matched_policy[ns[shop]-policy[web]-rule[1]]"), "{flow}");
    // DENY wins.
    let allow = yaml("everybody", "", "rules: [{}]");
    let deny = yaml("web", "", "action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]");
    lab.write_manifest(FILE, &(allow + &deny))?;
    until(lab, "DENY beside ALLOW", "--++--")
}

fn nothing_and_everything(lab: &Lab) -> Result<()> {
    table(
        lab,
        &[
            ("", "------"),
            ("rules: [{}]", "++++++"),
            ("action: DENY, rules: [{}]", "------"),
            // Who asks somebody that nobody knows gets no answer.
            (
                "action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {ports: ['9090']}}]}]",
                "++++-+",
            ),
            ("action: AUDIT, rules: [{}]", "++++++"),
        ],
    )
}

fn negations_hold_without_an_identity(lab: &Lab) -> Result<()> {
    table(
        lab,
        &[
            ("rules: [{from: [{source: {notNamespaces: [shop]}}]}]", "--++--"),
            ("action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}]}]", "+++-++"),
            ("action: DENY, rules: [{from: [{source: {notServiceAccounts: [client]}}]}]", "+---++"),
            ("rules: [{to: [{operation: {notPorts: ['9000']}}]}]", "----+-"),
        ],
    )
}

fn selectors_and_root_namespaces(lab: &Lab) -> Result<()> {
    const SERVER: &str = "selector: {matchLabels: {app: server}}";
    table(lab, &[(SERVER, "-----+")])?;
    // From the whole namespace to a selection and back, nobody slips through in between.
    table(lab, &[("", "------"), (SERVER, "-----+")])?;
    for (name, spec, expected) in [
        ("warren-system/web", "action: DENY, rules: [{from: [{source: {namespaces: [other]}}]}]", "++-+++"),
        ("istio-system/web", SERVER, "-----+"),
        ("other/web", "action: DENY, rules: [{}]", "++++++"),
    ] {
        lab.write_manifest(FILE, &yaml(name, "", spec))?;
        until(lab, name, expected)?;
    }
    Ok(())
}

fn services_have_policies_of_their_ports(lab: &Lab) -> Result<()> {
    const WEB: &str = "targetRefs: [{kind: Service, name: web}]";
    let of_shop = "rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ['80']}}]}]";
    table(
        lab,
        &[
            // By the address of the pod or of the service: it is the same door.
            (WEB, "----++"),
            (&format!("{WEB}, {of_shop}"), "++--++"),
            (&format!("{WEB}, action: DENY, rules: [{{to: [{{operation: {{ports: ['80']}}}}]}}]"), "----++"),
            (
                &format!("{WEB}, action: DENY, rules: [{{to: [{{operation: {{ports: ['9000']}}}}]}}]"),
                "++++++",
            ),
            ("targetRefs: [{kind: Service, name: gone}]", "++++++"),
        ],
    )
}

fn http_counts_as_never_allowed_and_always_denied(lab: &Lab) -> Result<()> {
    table(
        lab,
        &[
            ("rules: [{to: [{operation: {methods: [GET]}}]}]", "------"),
            ("action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ['9090']}}]}]", "++++-+"),
        ],
    )
}

fn dry_run_is_shown_and_not_enforced(lab: &Lab) -> Result<()> {
    let deny = "action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]";
    lab.write_manifest(FILE, &yaml("web", ", annotations: {istio.io/dry-run: 'true'}", deny))?;
    until(lab, "a dry run", "++++++")?;
    poll_until("the dry run to be shown", SOON, || {
        let watch = lab.node("n2").watch_flows().ok()?;
        enters(lab, WAYS[0]).then_some(())?;
        let flow = watch.try_expect(&[("/direction", "inbound"), ("/verdict", "allowed")])?;
        (flow["dry_run"] == "deny shop/web#0").then_some(())
    })
}

fn strict_and_a_policy(lab: &Lab) -> Result<()> {
    let strict =
        yaml("default", "", "mtls: {mode: STRICT}").replace("AuthorizationPolicy", "PeerAuthentication");
    lab.write_manifest("strict.yaml", &strict)?;
    table(lab, &[("rules: [{from: [{source: {notNamespaces: [shop]}}]}]", "--+---")])?;
    told(lab, WAYS[3], "denied", "PeerAuthentication shop/default")?;
    lab.remove_manifest("strict.yaml")?;
    until(lab, "STRICT to be gone", "--++--")
}

fn what_is_deleted_holds_no_more(lab: &Lab) -> Result<()> {
    lab.remove_manifest(FILE)?;
    until(lab, "no policy", "++++++")?;
    told(lab, WAYS[0], "allowed", "allow (no ALLOW policy)")?;
    Ok(())
}

/// A mistake must not leave pods more open than its author meant; where the policy was good once, that version stays.
fn what_was_never_understood_denies(lab: &Lab) -> Result<()> {
    const SERVER: &str = "selector: {matchLabels: {app: server}}";
    const ODD: &str = "odd.yaml";
    lab.write_manifest(ODD, &yaml("odd", "", &format!("{SERVER}, rulez: [{{}}]")))?;
    until(lab, "a policy that is not understood", "-----+")?;
    told(lab, WAYS[0], "denied", "deny shop/odd#0")?;
    let told_of = serde_json::Value::from(lab.problems()?).to_string();
    ensure!(told_of.contains("AuthorizationPolicy shop/odd") && told_of.contains("rulez"), "{told_of}");
    lab.write_manifest(ODD, &yaml("odd", "", &format!("{SERVER}, rules: [{{}}]")))?;
    until(lab, "the repaired policy", "++++++")?;
    lab.write_manifest(ODD, &yaml("odd", "", &format!("{SERVER}, rulez: []")))?;
    lab.until_problem(&["rulez"])?;
    until(lab, "its last good version", "++++++")?;
    lab.remove_manifest(ODD)
}
