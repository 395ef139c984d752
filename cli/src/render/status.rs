//! `warren status`.

use super::{Style, Table, ago, clean, plural};
use std::fmt::Write;
use warren_common::model::admin::{PodState, Status};

/// The agent at a glance, its pods, and what the kernel counted.
pub(crate) fn status(status: &Status, style: Style) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "warren {} on {}, up {}",
        clean(&status.version),
        style.bold(&clean(&status.node)),
        ago(status.uptime_s)
    );
    let mut line = |sign: String, words: String| {
        let _ = writeln!(text, "  {sign} {words}");
    };
    match status.waiting_for.as_slice() {
        [] if status.ready => line(style.tick(), "ready".to_owned()),
        [] => line(style.cross(), "not ready".to_owned()),
        waiting => line(style.cross(), format!("not ready: waiting for {}", clean(&waiting.join(", ")))),
    }
    let controller = &status.controller;
    let url = clean(&controller.url);
    let why = controller.last_error.as_deref().map_or_else(String::new, |why| format!(": {}", clean(why)));
    match (controller.connected, controller.from_disk) {
        (true, _) => line(style.tick(), format!("controller {url} connected")),
        (false, false) => line(style.cross(), format!("controller {url} not connected{why}")),
        (false, true) => {
            line(style.cross(), format!("controller {url} not connected since this agent started{why}"));
            line(style.warning(), "running on the configuration that was saved on disk".to_owned());
        }
    }
    if let Some(followed) = controller.followed {
        let words = format!("subscribed by interest: addresses and services asked about: {followed}");
        line(style.tick(), words);
    }
    if controller.rejected > 0 {
        let words =
            format!("{} resources of the controller were refused; the log says why", controller.rejected);
        line(style.warning(), words);
    }
    if let Some(problem) = &status.kubelet.problem {
        let words = format!("probes are captured, and STRICT refuses them: {}", clean(problem));
        line(style.warning(), words);
    }
    let pending = status.pods.iter().filter(|pod| pod.state == PodState::Pending).count();
    let enrolled = plural((status.pods.len() - pending) as u64, "pod");
    let pods = format!("{enrolled} enrolled, {pending} pending");
    line(if pending == 0 { style.tick() } else { style.cross() }, pods);
    let _ = writeln!(
        text,
        "  {}, {}; the mesh has {} and {}",
        plural(status.open_flows, "open connection"),
        plural(status.tunnels, "tunnel"),
        plural(status.workloads as u64, "workload"),
        plural(status.services as u64, "service")
    );
    if !status.pods.is_empty() {
        text += &format!("\n{}", pod_table(status).render(style));
    }
    let counted: Vec<_> = status.kernel.iter().filter(|(_, count)| **count > 0).collect();
    if !counted.is_empty() {
        let mut table = Table::new(&["KERNEL COUNTER", "SINCE START"]);
        for (name, count) in counted {
            table.row([name.clone(), count.to_string()]);
        }
        text += &format!("\n{}", table.render(style));
    }
    text
}

/// A line per agent, and what is wrong below.
pub(crate) fn nodes(found: &[&Status], style: Style) -> String {
    let mut table = Table::by_node(&[
        "READY",
        "CONTROLLER",
        "PODS",
        "PENDING",
        "CONNECTIONS",
        "TUNNELS",
        "VERSION",
        "UP",
    ]);
    let mut below = String::new();
    for status in found {
        let pending = status.pods.iter().filter(|pod| pod.state == PodState::Pending).count();
        let controller = match (status.controller.connected, status.controller.from_disk) {
            (true, _) => "connected",
            (false, false) => "away",
            (false, true) => "away, from disk",
        };
        table.row_of(
            &status.node,
            [
                if status.ready { "yes" } else { "no" }.to_owned(),
                controller.to_owned(),
                (status.pods.len() - pending).to_string(),
                pending.to_string(),
                status.open_flows.to_string(),
                status.tunnels.to_string(),
                status.version.clone(),
                ago(status.uptime_s),
            ],
        );
        let mut line = |words: &str| {
            let _ = writeln!(below, "{} {}: {}", style.cross(), clean(&status.node), clean(words));
        };
        if !status.waiting_for.is_empty() {
            line(&format!("waiting for {}", status.waiting_for.join(", ")));
        }
        if let (false, Some(why)) = (status.controller.connected, &status.controller.last_error) {
            line(&format!("controller: {why}"));
        }
        for pod in status.pods.iter().filter(|pod| pod.state == PodState::Pending) {
            let why = pod.reason.as_deref().unwrap_or("no reason given");
            line(&format!("{}/{} is not captured: {why}", pod.namespace, pod.name));
        }
    }
    let mut text = table.render(style);
    if !below.is_empty() {
        text += &format!("\n{below}");
    }
    text
}

fn pod_table(status: &Status) -> Table {
    let mut table = Table::new(&["NAMESPACE", "POD", "STATE", "REASON"]);
    for pod in &status.pods {
        let state = match pod.state {
            PodState::Enrolled => "enrolled",
            PodState::Pending => "pending",
        };
        let reason = pod.reason.clone().unwrap_or_default();
        table.row([pod.namespace.to_string(), pod.name.to_string(), state.to_owned(), reason]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pods: &str, controller: &str) -> Status {
        let text = format!(
            r#"{{"node":"node-a","version":"0.1.0","uptime_s":7500,"ready":true,"waiting_for":[],
                "controller":{controller},"pods":[{pods}],"workloads":12,"services":4,"open_flows":3,
                "kernel":{{"captured_v4":128,"event_lost":0}},"tunnels":2}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    const CONNECTED: &str =
        r#"{"url":"https://ctl:15012","connected":true,"from_disk":false,"last_error":null,"rejected":0}"#;
    const AWAY: &str = r#"{"url":"https://ctl:15012","connected":false,"from_disk":true,
                           "last_error":"connection refused","rejected":2}"#;
    const ENROLLED: &str = r#"{"name":"web-1","namespace":"shop","pod_uid":"u","state":"enrolled","reason":null,
                              "netns_cookie":5}"#;
    const PENDING: &str = r#"{"name":"cart-1","namespace":"shop","pod_uid":"v","state":"pending",
                             "reason":"no process of it runs yet","netns_cookie":null}"#;

    #[test]
    fn a_healthy_agent() {
        assert_eq!(
            status(&sample(ENROLLED, CONNECTED), Style::plain(true)),
            "warren 0.1.0 on node-a, up 2h 5m
  ✓ ready
  ✓ controller https://ctl:15012 connected
  ✓ 1 pod enrolled, 0 pending
  3 open connections, 2 tunnels; the mesh has 12 workloads and 4 services

NAMESPACE  POD    STATE     REASON
shop       web-1  enrolled  -

KERNEL COUNTER  SINCE START
captured_v4     128
"
        );
    }

    #[test]
    fn several_agents_are_a_line_each_with_what_is_wrong_below() {
        let (good, ill) = (sample(ENROLLED, CONNECTED), sample(PENDING, AWAY));
        assert_eq!(
            nodes(&[&good, &ill], Style::plain(false)),
            "NODE    READY  CONTROLLER       PODS  PENDING  CONNECTIONS  TUNNELS  VERSION  UP
node-a  yes    connected        1     0        3            2        0.1.0    2h 5m
node-a  yes    away, from disk  0     1        3            2        0.1.0    2h 5m

x node-a: controller: connection refused
x node-a: shop/cart-1 is not captured: no process of it runs yet
"
        );
    }

    #[test]
    fn trouble_is_named() {
        let mut ill = sample(&format!("{ENROLLED},{PENDING}"), AWAY);
        ill.ready = false;
        ill.waiting_for = vec!["the first configuration".into(), "the pods of this node".into()];
        ill.kubelet.problem = Some("no process is called kubelet".into());
        let text = status(&ill, Style::plain(false));
        for expected in [
            "x not ready: waiting for the first configuration, the pods of this node\n",
            "x controller https://ctl:15012 not connected since this agent started: connection refused\n",
            "! running on the configuration that was saved on disk\n",
            "! 2 resources of the controller were refused; the log says why\n",
            "! probes are captured, and STRICT refuses them: no process is called kubelet\n",
            "x 1 pod enrolled, 1 pending\n",
            "shop       cart-1  pending   no process of it runs yet\n",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }
}
