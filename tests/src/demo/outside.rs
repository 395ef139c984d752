//! Steps 4 and 7: what passes between the nodes, and what a pod outside the mesh gets.

use anyhow::{Context as _, Result};

use super::scene::{OWN_ADDRESS, Scene, file_name, own_address};
use super::wire::{Seen, TUNNEL_PORT};

/// The capture shows TLS and nothing else of the mesh's requests; the outsider's stands there to read.
pub(crate) fn between_the_nodes(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("What passes between the nodes")?;
    scene.story.say(
        "tcpdump has recorded everything on the uplink of n1 since before the mesh was started. Now the\n\
         client asks web-2, on the other node, with a secret in its request; then the pod outside the\n\
         mesh does the same with a word of its own.",
    )?;
    let file = file_name(scene.wire.path());
    scene.story.typed("fabric#", &format!("tcpdump -i n1 -s 0 -w {file}"))?;
    let (secret, word) = ("card=4929-SECRET-OF-THE-CLIENT", "card=5105-WORD-OF-THE-OUTSIDER");
    for (pod, query) in [("client", secret), ("outsider", word)] {
        let words = scene.ask_far_words(query);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        scene.in_pod(pod, &words)?;
    }
    // Packets are recorded in order: when the outsider's are there, the client's are.
    let seen = scene.wire.seen_until(word)?;
    scene.story.say("TCP packets by the server's port:")?;
    let mut counts = String::from("PORT   PACKETS  WHAT\n");
    for (port, (packets, purpose)) in seen.by_port() {
        counts += &format!("{port:<6} {packets:<8} {purpose}\n");
    }
    scene.story.output(&counts)?;
    let ports = seen.ports_between(&scene.lab.pod("client"), &scene.lab.pod("web-2"));
    let only = ports.keys().eq([&TUNNEL_PORT]);
    let claim = "between client and web-2 there is nothing but port 15008";
    scene.story.prove(claim, only, format!("packets by port: {ports:?}"))?;
    handshakes(scene, &seen)?;
    let found = search(scene, secret)?;
    let claim = "the client's secret is in no packet";
    scene.story.prove(claim, found == 0 && !seen.shows(secret), "the capture shows it")?;
    let found = search(scene, word)?;
    let claim = "the outsider's word is there for everyone to read";
    scene.story.prove(claim, found > 0, "grep did not find it")
}

fn handshakes(scene: &mut Scene<'_>, seen: &Seen) -> Result<()> {
    let all = seen.handshakes();
    let pods = [scene.lab.pod("client"), scene.lab.pod("web-2")];
    let ours = all.iter().find(|one| one.client.ip() == pods[0].ip4() && one.server.ip() == pods[1].ip4());
    let ours = ours.context("the capture has no beginning of a tunnel from client to web-2")?;
    let bytes: Vec<_> = ours.first.iter().map(|byte| format!("{byte:02x}")).collect();
    let choice = ours.choice.map_or_else(|| "no ServerHello".to_owned(), |choice| choice.to_string());
    scene.story.say("The tunnel's first bytes, as they were on the wire:")?;
    scene.story.output(&format!(
        "{} > {}  {}\n  16 03 ... 01 is a TLS record with a ClientHello\n{} > {}  ServerHello: {choice}",
        ours.client,
        ours.server,
        bytes.join(" "),
        ours.server,
        ours.client,
    ))?;
    let bad = all.iter().filter(|one| !one.is_tls13()).count();
    let claim = format!("all {} connections to port 15008 began with a TLS 1.3 handshake", all.len());
    scene.story.prove(&claim, bad == 0, format!("{all:?}"))
}

/// How many lines of the capture contain this, as grep counts them.
fn search(scene: &Scene<'_>, text: &str) -> Result<u64> {
    let path = scene.wire.path();
    let command = scene.lab.fabric().command("grep").args(["-a", "-c", "-e", text]).arg(path);
    // 1 says that there is none; the count says it too.
    let done = command.run()?;
    let command = format!("grep -a -c -e '{text}' {}", file_name(path));
    scene.story.typed("fabric#", &command)?;
    scene.story.output(&done.stdout)?;
    done.stdout.trim().parse().with_context(|| format!("{done}"))
}

/// Permissive, the default: an answer, and a record that says what it was.
pub(crate) fn not_in_the_mesh(scene: &mut Scene<'_>) -> Result<()> {
    scene.story.step("What a pod outside the mesh gets")?;
    scene.story.say(
        "The default is permissive, so that a mesh can be introduced one namespace at a time: the outsider\n\
         gets its answer, in plaintext and without an identity, and the flow says so.",
    )?;
    let format = format!("my own address: {OWN_ADDRESS}");
    let words = ["curl", "-sS", "-w", format.as_str(), "http://web.shop/"];
    let output = scene.in_pod("outsider", &words)?;
    let client = own_address(&output.replace("my own address: ", ""))?;
    let node = scene.server_of(&output)?.0.node().to_owned();
    let flow = scene.flow_from(&node, &client)?;
    scene.warren(&node, &["flows", "--pod", "outsider", "--last", "1", "-o", "wide"])?;
    let claim = "it got an answer; the flow is marked plaintext and names no identity of the client";
    let holds = flow["transport"] == "plaintext" && flow["source"]["identity"].is_null();
    scene.story.prove(claim, holds, &flow)?;
    Ok(())
}
