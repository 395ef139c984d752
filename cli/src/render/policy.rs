//! `warren policies`.

use super::{Style, Table, clean};
use warren_common::model::admin::{GuardedPod, Policies, PolicyView};
use warren_common::model::{PolicyAction, PolicyScope};

/// A policy per line; with `workload` also what else is to be said of its pods.
pub(crate) fn policies(
    policies: &Policies,
    namespace: Option<&str>,
    workload: Option<&str>,
    style: Style,
) -> String {
    let mut text = String::new();
    if !policies.known {
        let warning =
            "it is not known yet which policies there are: nobody may enter a pod; see `warren status`";
        text += &format!("{} {}\n", style.warning(), style.yellow(warning));
    }
    if let (Some(workload), true) = (workload, policies.pods.is_empty()) {
        let where_to =
            namespace.map_or_else(String::new, |namespace| format!(" in namespace {}", clean(namespace)));
        return text
            + &format!("no enrolled pod {}{where_to} is on the nodes that were asked\n", clean(workload));
    }
    if policies.policies.is_empty() {
        text += "no policy: whoever PeerAuthentication lets in may enter\n";
    } else {
        text += &table(policies, style);
    }
    for view in &policies.policies {
        if let Some(why) = &view.refused {
            let so = match view.policy {
                Some(_) => "the last version that was understood counts",
                None => "nobody may enter the pods that it may be for",
            };
            let said = format!("{} cannot be used ({}): {so}", view.name, clean(why));
            text += &format!("{} {}\n", style.cross(), style.red(&said));
        }
    }
    if workload.is_some() {
        policies.pods.iter().for_each(|pod| text += &plaintext(pod));
    }
    text
}

fn table(policies: &Policies, style: Style) -> String {
    let mut table = Table::new(&["NAMESPACE", "NAME", "ACTION", "RULES", "SCOPE", "MODE", "PODS"]);
    for view in &policies.policies {
        let pods = policies.pods.iter().filter(|pod| pod.policies.contains(&view.name)).count();
        let [action, rules, scope, mode] = columns(view);
        let (namespace, name) = (view.name.namespace().to_string(), view.name.name().to_string());
        table.row([namespace, name, action, rules, scope, mode, pods.to_string()]);
    }
    table.render(style)
}

fn columns(view: &PolicyView) -> [String; 4] {
    let Some(policy) = &view.policy else {
        return ["?", "?", "?", "fails closed"].map(str::to_owned);
    };
    let action = match policy.action {
        PolicyAction::Allow => "ALLOW",
        PolicyAction::Deny => "DENY",
    };
    let scope = match policy.scope {
        PolicyScope::Global => "mesh",
        PolicyScope::Namespace => "namespace",
        PolicyScope::Workload => "workload",
    };
    let mode = if policy.dry_run { "dry run" } else { "enforced" };
    [action.to_owned(), policy.rules.len().to_string(), scope.to_owned(), mode.to_owned()]
}

/// What plaintext may enter a pod.
fn plaintext(pod: &GuardedPod) -> String {
    let word = |strict| if strict { "only mutual TLS" } else { "also plaintext" };
    let by = |rule: &str| if rule.is_empty() { String::new() } else { format!(" ({})", clean(rule)) };
    let rules = &pod.peer_authentication;
    let mut text =
        format!("{}/{} takes {}{}", pod.namespace, pod.name, word(rules.all.strict), by(&rules.all.rule));
    for (port, rule) in &rules.ports {
        text += &format!(", on port {port} {}{}", word(rule.strict), by(&rule.rule));
    }
    clean(&text) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Policies {
        serde_json::from_str(
            r#"{"known": true, "policies": [
                {"name": "istio-system/deny-all", "refused": null, "policy": {"name": "istio-system/deny-all",
                    "scope": "global", "action": "deny", "dry_run": true, "rules": [{"index": 0, "clauses": []}]}},
                {"name": "shop/new", "policy": null, "refused": "the field action holds 9"},
                {"name": "shop/web", "refused": null, "policy": {"name": "shop/web", "scope": "workload",
                    "action": "allow", "rules": [{"index": 0, "clauses": [[{"namespaces": [{"exact": "bank"}]}]]}]}}],
              "pods": [{"namespace": "shop", "name": "web-1", "workload": "web",
                "policies": ["istio-system/deny-all", "shop/new", "shop/web"],
                "peer_authentication": {"all": {"strict": true, "rule": "PeerAuthentication shop/default"},
                                        "ports": {"9090": {"strict": false, "rule": "PeerAuthentication shop/web"}}}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn policies_show_what_they_do_and_whom_they_guard() {
        assert_eq!(
            policies(&sample(), None, Some("web"), Style::plain(true)),
            "NAMESPACE     NAME      ACTION  RULES  SCOPE     MODE          PODS
istio-system  deny-all  DENY    1      mesh      dry run       1
shop          new       ?       ?      ?         fails closed  1
shop          web       ALLOW   1      workload  enforced      1
✗ shop/new cannot be used (the field action holds 9): nobody may enter the pods that it may be for
shop/web-1 takes only mutual TLS (PeerAuthentication shop/default), on port 9090 also plaintext (PeerAuthentication \
             shop/web)
"
        );
    }

    #[test]
    fn nothing_is_explained() {
        let nothing = Policies { known: true, policies: vec![], pods: vec![] };
        let text = policies(&nothing, None, None, Style::plain(true));
        assert!(text.starts_with("no policy: "), "{text}");
        let text = policies(&nothing, Some("shop"), Some("web"), Style::plain(true));
        assert!(text.contains("web in namespace shop"), "{text}");
        let text = policies(&Policies { known: false, ..nothing }, None, None, Style::plain(true));
        assert!(text.contains("nobody may enter"), "{text}");
    }
}
