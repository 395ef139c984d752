//! How a pod is, and why it is not ready. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Whether the pod serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether the pod is on its way out.
pub(crate) fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The pod's node; empty while it is not scheduled.
pub(crate) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The pod's name.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod, its node if it has one, and why it is not ready.
pub(crate) fn described(pod: &Pod) -> String {
    let node = match node(pod) {
        "" => String::new(),
        node => format!(" on {node}"),
    };
    format!("{}{node}: {}", name(pod), why_not_ready(pod))
}

/// Why the pod is not ready, as precisely as its status says: not scheduled, an image that cannot be pulled, a
/// container that crashes and with what, or a probe that fails.
fn why_not_ready(pod: &Pod) -> String {
    if let Some(reason) = unscheduled(pod) {
        return reason;
    }
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let trouble: Vec<_> =
        init.iter().filter_map(init_trouble).chain(main.iter().filter_map(trouble)).collect();
    if !trouble.is_empty() {
        return trouble.join("; ");
    }
    if is_ending(pod) {
        return "terminating".to_owned();
    }
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("of unknown phase");
    match condition(pod, "Ready").and_then(|condition| condition.message.as_deref()) {
        Some(message) => format!("{phase}: {message}"),
        None => phase.to_owned(),
    }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let words = [scheduled.reason.as_deref(), scheduled.message.as_deref()];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(": "))
}

/// An init container that has done its work is no trouble.
fn init_trouble(container: &ContainerStatus) -> Option<String> {
    let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    if ended.is_some_and(|ended| ended.exit_code == 0) {
        return None;
    }
    trouble(container)
}

fn trouble(container: &ContainerStatus) -> Option<String> {
    if container.ready {
        return None;
    }
    let state = container.state.as_ref();
    let mut words = Vec::new();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        words.push(waiting.reason.clone().unwrap_or_else(|| "waiting".to_owned()));
        words.extend(waiting.message.clone());
    } else if state.is_some_and(|state| state.running.is_some()) {
        words.push("runs, and its readiness probe fails".to_owned());
    }
    let now = state.and_then(|state| state.terminated.as_ref());
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    if let Some(ended) = now.or(before) {
        let reason = ended.reason.as_deref().unwrap_or("ended");
        let message = ended.message.as_deref().map_or_else(String::new, |text| format!(": {}", text.trim()));
        words.push(format!("last ended with {reason}, exit code {}{message}", ended.exit_code));
    }
    if words.is_empty() {
        return None;
    }
    if container.restart_count > 0 {
        words.push(format!("{} restarts", container.restart_count));
    }
    Some(format!("{}: {}", container.name, words.join(", ")))
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON that is written in place")]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[test]
    fn a_pod_says_why_it_is_not_ready() {
        let container = |state: serde_json::Value, last: serde_json::Value, restarts: i32| {
            json!({"phase": "Running", "containerStatuses": [{"name": "agent", "ready": false, "image": "i", "imageID": "",
                "restartCount": restarts, "state": state, "lastState": last}]})
        };
        let table = [
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                       "reason": "Unschedulable", "message": "0/2 nodes are available"}]}),
                "Unschedulable: 0/2 nodes are available",
            ),
            (
                container(
                    json!({"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}),
                    json!({}),
                    0,
                ),
                "agent: ErrImageNeverPull, no image",
            ),
            (
                container(
                    json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                    json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "no bpffs\n"}}),
                    4,
                ),
                "agent: CrashLoopBackOff, last ended with Error, exit code 1: no bpffs, 4 restarts",
            ),
            (container(json!({"running": {}}), json!({}), 0), "agent: runs, and its readiness probe fails"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "init", "ready": false, "image": "i",
                       "imageID": "", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]}),
                "Pending",
            ),
        ];
        for (status, expected) in table {
            assert_eq!(why_not_ready(&pod(status)), expected);
        }
    }

    #[test]
    fn readiness_is_the_condition() {
        assert!(is_ready(&pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}))));
        assert!(!is_ready(&pod(json!({"conditions": [{"type": "Ready", "status": "False"}]}))));
        assert!(!is_ready(&pod(json!({}))));
    }
}
