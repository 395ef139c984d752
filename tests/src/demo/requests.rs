//! Steps 1 to 3: the cluster, requests by service name, and what the server sees of its client.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::scene::{OWN_ADDRESS, Scene, own_address};
use crate::lab::poll_until;

/// Who is there, and who is in the mesh.
pub(crate) fn cluster(scene: &mut Scene<'_>) -> Result<()> {
    let (ip4, ip6) = scene.lab.vip("web")?;
    scene.story.step("The cluster")?;
    let mut picture = String::from("NODE  POD       NAMESPACE  ADDRESSES                      MESH\n");
    for name in ["client", "web-1", "web-2", "outsider"] {
        let pod = scene.lab.pod(name);
        let mesh = if pod.namespace() == "shop" { "yes" } else { "no" };
        let addresses = format!("{} {}", pod.ip4(), pod.ip6());
        let (node, namespace) = (pod.node(), pod.namespace());
        picture += &format!("{node:<5} {name:<9} {namespace:<10} {addresses:<30} {mesh}\n");
    }
    scene.story.output(&picture)?;
    scene.story.say(&format!(
        "Namespace shop has the label warren.dev/mesh=enabled; that is all it took. Its service web is\n\
         {ip4} and {ip6}, port 80. Real nginx serves it in web-1 and web-2. (In this lab pods\n\
         are network namespaces, w{0}-client and so on; all is removed at the end.)",
        scene.lab.id()
    ))?;
    scene.await_enrolled(&["client", "web-1", "web-2"])?;
    for (node, expected) in [("n1", &["client", "web-1"][..]), ("n2", &["web-2"][..])] {
        scene.warren(node, &["status"])?;
        let status = scene.lab.node(node).admin("/v1/status")?;
        let pods = status["pods"].as_array().context("no pods")?.iter();
        let mut enrolled: Vec<_> =
            pods.filter(|pod| pod["state"] == "enrolled").filter_map(|pod| pod["name"].as_str()).collect();
        enrolled.sort_unstable();
        let holds =
            status["ready"] == true && status["controller"]["connected"] == true && enrolled == expected;
        let claim = format!("the agent of {node} is ready, and exactly its pods of the mesh are enrolled");
        scene.story.prove(&claim, holds, &status)?;
    }
    Ok(())
}

/// Both servers answer to one name.
pub(crate) fn by_service_name(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("A request by service name")?;
    scene
        .story
        .say("The client knows nothing of a mesh. Its agent picks one of the service's pods each time.")?;
    let mut answered = BTreeSet::new();
    for request in 0..40 {
        if request >= 3 && answered.len() == 2 {
            break;
        }
        let answer = scene.in_pod("client", &["curl", "-sS", "http://web.shop/"])?;
        answered.insert(scene.server_of(&answer)?.0.node().to_owned());
    }
    let claim = "both nodes answer";
    scene.story.prove(claim, answered.len() == 2, format!("only {answered:?} did"))
}

/// The server's own log names the client's true address.
pub(crate) fn servers_view(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("What the server sees of its client")?;
    scene.story.say(
        "Every connection above passed through the agents of its nodes. The server shall not notice: its\n\
         access log must name the client pod's own address and port, not a proxy's.",
    )?;
    for family in ["-4", "-6"] {
        let format = format!("my own address: {OWN_ADDRESS}");
        let words = ["curl", "-sS", family, "-w", format.as_str(), "http://web.shop/"];
        let output = scene.in_pod("client", &words)?;
        let said = output.replace("my own address: ", "");
        let client = own_address(&said)?;
        let (pod, nginx) = scene.server_of(&output)?;
        // nginx writes IPv6 addresses without brackets.
        let wanted = client.replace(['[', ']'], "");
        let line = poll_until("the server to log the request", Duration::from_secs(5), || {
            let log = fs::read_to_string(nginx.access_log()).ok()?;
            log.lines().rev().find(|line| line.starts_with(&wanted)).map(str::to_owned)
        });
        let name = pod.name().to_owned();
        let Ok(line) = line else {
            let log = fs::read_to_string(nginx.access_log()).unwrap_or_default();
            bail!("step 3: the log of {name} does not name its client {wanted}:\n{log}");
        };
        scene.story.typed(&format!("{name}$"), "tail -n 1 access.log")?;
        scene.story.output(&line)?;
        let claim = format!("{name} logged {wanted}, which is what curl calls its own end");
        scene.story.prove(&claim, true, "")?;
    }
    Ok(())
}
