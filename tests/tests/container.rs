//! The agent as its container runs it: root with two capabilities and no way to get more, in a cgroup namespace of
//! its own, where `/proc/self/cgroup` says `0::/`.

use anyhow::{Result, ensure};
use std::time::Duration;
use warren_tests::lab::{Lab, Mesh, Node, poll_until};

/// The whole list, as deploy/ gives it to the DaemonSet. CAP_SYS_ADMIN enters pods' network namespaces and loads kernel
/// programs (the kernel lets it stand for CAP_BPF and CAP_NET_ADMIN there); CAP_SYS_PTRACE opens /proc/PID/ns/net.
const CAPABILITIES: &[&str] = &["sys_admin", "sys_ptrace"];

const SOON: Duration = Duration::from_secs(20);

fn confine(node: &Node, capabilities: &[&str]) {
    let bounding: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let bounding = format!("--bounding-set=-all{bounding}");
    let words = ["unshare", "--cgroup", "--", "setpriv", "--no-new-privs", "--inh-caps=-all", &bounding];
    node.agent().set_wrapper(words);
}

/// Whether the agent, so confined, has the pod and carries its traffic; else what it says.
fn works(lab: &Lab, capabilities: &[&str]) -> Result<Result<(), String>> {
    let (node, client, server) = (lab.node("n1"), lab.pod("client"), lab.pod("server"));
    node.agent().kill();
    confine(node, capabilities);
    node.agent().spawn()?;
    let mut said = None;
    poll_until("the agent to enrol the pods or to say why not", SOON, || {
        if !node.agent().is_running() {
            said = Some(node.agent().log_tail(3));
            return Some(());
        }
        let status = node.admin("/v1/status").ok()?;
        let pods = status["pods"].as_array()?;
        if pods.len() == 2 && pods.iter().all(|pod| pod["state"] == "enrolled") {
            return Some(());
        }
        said = Some(pods.iter().find_map(|pod| pod["reason"].as_str())?.to_owned());
        Some(())
    })?;
    if let Some(said) = said {
        return Ok(Err(said));
    }
    let to = format!("{}:9000", server.ip4());
    let answer = client.workload(["connect", "--to", &to, "--send", "hello"]).json()?;
    Ok(if answer["text"] == "hello" { Ok(()) } else { Err(answer.to_string()) })
}

#[test]
fn two_capabilities_are_enough_and_each_is_needed() {
    let lab = Lab::builder()
        .nodes(["n1"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("server", |pod| pod.on("n1").namespace("shop"));
    lab.test(|lab| {
        lab.start_controller()?;
        let _server = lab.pod("server").serve(["echo", "--port", "9000"])?;
        for dropped in CAPABILITIES {
            let kept: Vec<_> = CAPABILITIES.iter().copied().filter(|name| name != dropped).collect();
            let said = works(lab, &kept)?;
            println!("without {dropped}: {said:?}");
            ensure!(said.is_err(), "the agent does not need {dropped}");
        }
        // Last, so that it takes over what a confined one left.
        let all = works(lab, CAPABILITIES)?;
        ensure!(all.is_ok(), "{all:?}");
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", lab.node("n1").agent().pid().unwrap_or(0)))?;
        let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim();
        ensure!(u64::from_str_radix(held, 16)? == 1 << 21 | 1 << 19, "it holds {held}");
        ensure!(status.contains("NoNewPrivs:\t1"), "{status}");
        Ok(())
    });
}
