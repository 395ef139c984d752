//! Our part of a route's `status.parents`, among those of others. Pure.

use crate::objects::ParentRef;
use crate::resolve::{Condition, ParentStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Who says so.
const CONTROLLER: &str = "warren.dev/controller";
/// The API takes no more.
const MAX_PARENTS: usize = 32;
/// Longest message (characters); the API takes 32 KiB.
const LONGEST: usize = 1024;

/// The list as it should be; none when it is so already. Entries of other controllers stay, and of ours conditions of types
/// that we do not know.
pub(super) fn parents(current: &Value, wanted: &[ParentStatus], now: Timestamp) -> Option<Vec<Value>> {
    let current = current.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER;
    let mut list: Vec<Value> = current.iter().filter(|entry| !is_ours(entry)).cloned().collect();
    for ParentStatus { parent, conditions } in wanted {
        let parent = reference(parent);
        let before = current.iter().filter(is_ours).find(|entry| entry["parentRef"] == parent);
        let before =
            before.and_then(|entry| entry["conditions"].as_array()).map(Vec::as_slice).unwrap_or_default();
        let entry = json!({
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": merged(before, conditions, now),
        });
        // Some are named twice.
        if !list.contains(&entry) {
            list.push(entry);
        }
    }
    list.truncate(MAX_PARENTS);
    (list != current).then_some(list)
}

/// As the route has it.
fn reference(parent: &ParentRef) -> Value {
    let mut members = Map::new();
    members.insert("group".to_owned(), json!(*parent.group));
    members.insert("kind".to_owned(), json!(*parent.kind));
    members.extend(parent.namespace.as_ref().map(|namespace| ("namespace".to_owned(), json!(**namespace))));
    members.insert("name".to_owned(), json!(*parent.name));
    members.extend(parent.section.as_ref().map(|section| ("sectionName".to_owned(), json!(**section))));
    members.extend(parent.port.map(|port| ("port".to_owned(), json!(port))));
    Value::Object(members)
}

/// Types that we set and that hold no longer are taken out, or they would hold for ever.
const OURS: [&str; 3] = ["Accepted", "PartiallyInvalid", "ResolvedRefs"];

fn merged(before: &[Value], wanted: &[Condition], now: Timestamp) -> Vec<Value> {
    let is_ours = |one: &&Value| OURS.iter().any(|kind| one["type"] == *kind);
    let mut list: Vec<Value> = before.iter().filter(|one| !is_ours(one)).cloned().collect();
    for condition in wanted {
        let status = if condition.holds { "True" } else { "False" };
        let same = before.iter().find(|one| one["type"] == condition.kind && one["status"] == status);
        let since = same.map(|one| one["lastTransitionTime"].clone()).filter(Value::is_string);
        // Whole seconds, as the API server writes times.
        let since = since.unwrap_or_else(|| json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        list.push(json!({
            "type": condition.kind,
            "status": status,
            "reason": condition.reason,
            "message": condition.message.chars().take(LONGEST).collect::<String>(),
            "lastTransitionTime": since,
            "observedGeneration": condition.generation,
        }));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(holds: bool, generation: i64) -> ParentStatus {
        let parent = ParentRef {
            group: "".into(),
            kind: "Service".into(),
            namespace: None,
            name: "web".into(),
            section: None,
            port: Some(80),
        };
        let reason = if holds { "Accepted" } else { "Conflicted" };
        let condition = Condition { kind: "Accepted", holds, reason, message: "m".to_owned(), generation };
        ParentStatus { parent, conditions: vec![condition] }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let first = parents(&Value::Null, &[wanted(true, 3)], at(1)).unwrap();
        assert_eq!(
            first,
            [json!({
                "parentRef": {"group": "", "kind": "Service", "name": "web", "port": 80},
                "controllerName": "warren.dev/controller",
                "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "m",
                                "lastTransitionTime": "1970-01-01T00:00:01Z", "observedGeneration": 3}],
            })]
        );
        let current = json!(first);
        assert_eq!(parents(&current, &[wanted(true, 3)], at(2)), None);
        assert_eq!(parents(&Value::Null, &[], at(2)), None);
        // A new generation is said; since when it holds stays.
        let second = parents(&current, &[wanted(true, 4)], at(2)).unwrap();
        assert_eq!(second[0]["conditions"][0]["observedGeneration"], 4);
        assert_eq!(second[0]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:01Z");
        let flipped = parents(&current, &[wanted(false, 3)], at(2)).unwrap();
        assert_eq!(flipped[0]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:02Z");
    }

    #[test]
    fn what_others_say_stays() {
        let others = json!({"parentRef": {"name": "edge"}, "controllerName": "a.b/c", "conditions": []});
        let mut ours = parents(&Value::Null, &[wanted(true, 1)], at(1)).unwrap().remove(0);
        let foreign = json!({"type": "Approved", "status": "True"});
        ours["conditions"].as_array_mut().unwrap().push(foreign.clone());
        let stale = json!({"type": "PartiallyInvalid", "status": "True"});
        ours["conditions"].as_array_mut().unwrap().push(stale);
        let current = json!([ours, others]);
        let list = parents(&current, &[wanted(true, 1)], at(2)).unwrap();
        assert_eq!(list[0], others);
        let conditions = list[1]["conditions"].as_array().unwrap();
        assert_eq!((conditions.len(), &conditions[0]), (2, &foreign));
        // No longer attached: ours goes.
        assert_eq!(parents(&current, &[], at(2)).unwrap(), [others]);
    }
}
