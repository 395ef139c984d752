//! What stands for a policy that is not understood and never was: it denies all that the policy may be for.
//!
//! Without it a mistake in an object would leave pods more open than its author meant.

use crate::objects::{AuthorizationPolicy, Map, Name, Object, PolicyAction, PolicyRule, PolicyTarget};
use crate::source::custom::MAX_TEXT;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// None for what would refuse nothing however it was meant: a dry run, an AUDIT, a policy of gateways, an object without a
/// name. `why` is the reason for which the object was rejected.
pub(in crate::source) fn stand_in(object: &Value, why: &str) -> Option<Object> {
    let name = |field: &str| text(&object["metadata"][field]);
    let name = Name::new(name("namespace").unwrap_or("default"), name("name")?);
    let is_dry_run = object["metadata"]["annotations"]["istio.io/dry-run"]
        .as_str()
        .is_some_and(|text| matches!(text, "true" | "True" | "TRUE" | "t" | "T" | "1"));
    if is_dry_run || object["spec"]["action"] == "AUDIT" {
        return None;
    }
    let policy = AuthorizationPolicy {
        name,
        action: PolicyAction::Deny,
        dry_run: false,
        target: target(&object["spec"]),
        rules: vec![PolicyRule::default()],
        unread: Some(why.into()),
    };
    policy.judges().then_some(Object::AuthorizationPolicy(policy))
}

/// Whom it is for, as far as that can be read; else the whole namespace.
fn target(spec: &Value) -> PolicyTarget {
    let everybody = || PolicyTarget::Workloads(Map::new());
    let several = spec["targetRefs"].as_array().into_iter().flatten();
    let targets: Vec<_> = several.chain(spec.get("targetRef").filter(|one| one.is_object())).collect();
    if !targets.is_empty() && spec["selector"].is_null() {
        let parts =
            |target: &&Value| Some((text(&target["kind"])?.to_owned(), text(&target["name"])?.to_owned()));
        let Some(parts) = targets.iter().map(parts).collect::<Option<Vec<_>>>() else { return everybody() };
        let (services, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(kind, _)| kind == "Service");
        return PolicyTarget::Attached {
            services: services.into_iter().map(|(_, name)| name.into()).collect(),
            others: others
                .into_iter()
                .map(|(kind, name)| format!("{kind} {name}").into())
                .collect::<BTreeSet<_>>(),
        };
    }
    let labels = spec["selector"]["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(key, value)| Some((Arc::from(key.as_str()), Arc::from(value.as_str()?))));
    PolicyTarget::Workloads(labels.collect::<Option<Map>>().unwrap_or_default())
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty() && text.len() <= MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn standing(metadata: &Value, spec: &Value) -> Option<PolicyTarget> {
        match stand_in(&json!({ "metadata": metadata, "spec": spec }), "odd")? {
            Object::AuthorizationPolicy(policy) => {
                assert_eq!(policy.action, PolicyAction::Deny);
                assert_eq!((policy.rules.len(), policy.unread.as_deref()), (1, Some("odd")));
                Some(policy.target)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_for_whom_the_policy_may_be_for() {
        let name = || json!({ "name": "p", "namespace": "shop" });
        let app = || PolicyTarget::Workloads([("app".into(), "web".into())].into());
        let all = || PolicyTarget::Workloads(Map::new());
        let service = |services: &[&str], others: &[&str]| PolicyTarget::Attached {
            services: services.iter().map(|name| Arc::from(*name)).collect(),
            others: others.iter().map(|name| Arc::from(*name)).collect(),
        };
        for (spec, expected) in [
            (json!({ "rulez": [] }), Some(all())),
            (json!(null), Some(all())),
            (json!("text"), Some(all())),
            (json!({ "selector": { "matchLabels": { "app": "web" } }, "x": 1 }), Some(app())),
            (json!({ "selector": { "matchLabels": { "app": 1 } } }), Some(all())),
            (json!({ "selector": "app=web" }), Some(all())),
            (json!({ "action": "REFUSE" }), Some(all())),
            (
                json!({ "targetRefs": [{ "kind": "Service", "name": "web" }], "x": 1 }),
                Some(service(&["web"], &[])),
            ),
            (
                json!({ "targetRefs": [{ "kind": "Service", "name": "web" }, { "kind": "Gateway", "name": "g" }] }),
                Some(service(&["web"], &["Gateway g"])),
            ),
            (json!({ "targetRefs": [{ "kind": "Service" }] }), Some(all())),
            // Whose meaning is to refuse nothing here.
            (json!({ "targetRefs": [{ "kind": "Gateway", "name": "g" }], "x": 1 }), None),
            (json!({ "action": "AUDIT", "x": 1 }), None),
        ] {
            assert_eq!(standing(&name(), &spec), expected, "{spec}");
        }
        let dry = json!({ "name": "p", "namespace": "shop", "annotations": { "istio.io/dry-run": "true" } });
        assert_eq!(standing(&dry, &json!({ "x": 1 })), None);
        assert_eq!(standing(&json!({ "namespace": "shop" }), &json!({})), None);
    }
}
