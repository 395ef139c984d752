//! `--kernel-debug`: the kernel programs say what they do, in the agent's log.

use std::time::Duration;
use warren_tests::lab::{Lab, Mesh, poll_until};

#[test]
fn kernel_programs_log_what_they_capture() {
    Lab::builder()
        .nodes(["n1"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("outside", |pod| pod.on("n1"))
        .agent_arg("--kernel-debug")
        .test(|lab| {
            lab.start_mesh()?;
            let server = lab.pod("outside");
            let _server = server.serve(["whoami", "--port", "9000"])?;
            let to = format!("{}:9000", server.ip4());
            lab.pod("client").workload(["connect", "--to", &to]).json()?;
            poll_until("the connect hook's line in the agent's log", Duration::from_secs(20), || {
                let log = lab.node("n1").agent().log_tail(200);
                log.contains("port 9000 to the agent").then_some(())
            })
        });
}
