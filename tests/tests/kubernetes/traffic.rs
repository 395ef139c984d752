//! Two enrolled pods on two nodes: what passes between them, and as whom they speak.

use anyhow::{Result, ensure};
use serde_json::Value;
use warren_tests::cluster::{Capture, Cluster, Mesh, Namespace, SOON, account, service};

/// What no packet between the nodes may show.
const MARK: &str = "plaintext-marker-of-the-kubernetes-suite";

/// A client on the first node, an echo server of another service account on the second.
fn two_pods(namespace: &Namespace<'_>) -> Result<()> {
    let cluster = namespace.cluster();
    let [first, second] = cluster.nodes() else { anyhow::bail!("not two nodes") };
    namespace.apply([
        account("frontend"),
        account("backend"),
        cluster.client("client").account("frontend").on(&first.name).alone(),
        cluster.server("server", "echo", 9000).account("backend").on(&second.name).deployment(1),
        service("server", 80, 9000),
    ])?;
    namespace.rolled_out("server")?;
    namespace.pod_ready("client")
}

fn say(namespace: &Namespace<'_>, text: &str) -> Result<Value> {
    let seen = namespace.exec_json("client", &["connect", "--to", "server:80", "--send", text])?;
    ensure!(seen["ok"] == true && seen["text"] == text, "{seen}");
    Ok(seen)
}

fn server_address(namespace: &Namespace<'_>) -> Result<String> {
    let pods = namespace.pods("server")?;
    Ok(pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).unwrap_or_default().to_owned())
}

#[test]
fn between_nodes_passes_only_mutual_tls_of_the_service_accounts() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-tls")?;
        two_pods(&namespace)?;
        let (client, server) = (namespace.address("client")?, server_address(&namespace)?);
        let capture = Capture::start(&cluster.nodes()[0])?;
        for _ in 0..5 {
            say(&namespace, MARK)?;
        }
        let flow = cluster.flow("mesh-tls", |flow| {
            flow["source"]["pod"] == "client"
                && flow["transport"] == "hbone"
                && flow["direction"] == "outbound"
        })?;
        ensure!(flow["source"]["identity"] == "spiffe://cluster.local/ns/mesh-tls/sa/frontend", "{flow}");
        ensure!(flow["destination"]["identity"] == "spiffe://cluster.local/ns/mesh-tls/sa/backend", "{flow}");
        let packets = capture.packets();
        ensure!(!packets.show(MARK), "the marker was on the wire in plaintext");
        ensure!(packets.ports(&client, &server) == [15008], "{:?}", packets.ports(&client, &server));
        ensure!(packets.tunnels_are_tls13(&client, &server), "a connection to 15008 was not TLS 1.3");
        Ok(())
    });
}

#[test]
fn without_the_label_traffic_is_plain_again() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-label")?;
        two_pods(&namespace)?;
        let shows = |wanted: bool| {
            namespace.until("traffic to change", SOON, || {
                let capture = Capture::start(&cluster.nodes()[0])?;
                say(&namespace, MARK)?;
                // Plaintext must be there to be seen before its absence counts.
                let _ = say(&namespace, MARK)?;
                ensure!(
                    capture.packets().show(MARK) == wanted,
                    "plaintext is {}seen",
                    if wanted { "not " } else { "" }
                );
                Ok(())
            })
        };
        shows(false)?;
        namespace.label(Mesh::Absent)?;
        shows(true)?;
        namespace.label(Mesh::Enabled)?;
        shows(false)?;
        ensure!(namespace.restarts()? == 0, "a container was restarted");
        Ok(())
    });
}

#[test]
fn the_first_packet_of_a_pod_is_captured() {
    Cluster::test(|cluster| {
        let namespace = cluster.meshed("mesh-first")?;
        two_pods(&namespace)?;
        let server = server_address(&namespace)?;
        let capture = Capture::start(&cluster.nodes()[0])?;
        for number in 0..3 {
            let name = format!("early-{number}");
            // No name to look up: the connection is the first thing that the pod's first process does.
            let to = format!("{server}:9000");
            let early = cluster.pod(&name, &["pause"]).init(&["connect", "--to", &to, "--send", MARK]);
            namespace.apply([early.account("frontend").on(&cluster.nodes()[0].name).alone()])?;
            namespace.pod_ready(&name)?;
            let said = namespace.kubectl(&["logs", &name, "-c", "init"])?;
            ensure!(said.contains("\"ok\":true") && said.contains(MARK), "{said}");
            let (address, packets) = (namespace.address(&name)?, capture.packets());
            ensure!(!packets.show(MARK), "the first bytes of {name} were in plaintext");
            ensure!(packets.ports(&address, &server) == [15008], "{:?}", packets.ports(&address, &server));
        }
        Ok(())
    });
}
