//! Neighbours: nobody on a node is taken for another pod of it, and nobody gets anywhere through its agent.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use warren_tests::lab::{Lab, Pod, poll_until};

use crate::forge::{Ca, Papers, Valid};
use crate::hostile::refused_by;
use crate::peer::{Ask, Client};

const SOON: Duration = Duration::from_secs(20);
const POLICY: &str = "neighbours.yaml";
const FRIEND: &str = "spiffe://cluster.local/ns/shop/sa/friend";

fn say(from: &Pod, to: &str, more: &[&str]) -> Result<Value> {
    let args = ["connect", "--to", to, "--send", "hello", "--timeout-ms", "2000"];
    from.workload(args).args(more).json()
}

/// One more address in a pod's namespace, for as long as this lives: whoever has CAP_NET_ADMIN in a pod can do that.
struct Stolen<'a> {
    pod: &'a Pod,
    address: String,
}

impl<'a> Stolen<'a> {
    fn new(pod: &'a Pod, from: &Pod) -> Result<Self> {
        let address = format!("{}/32", from.ip4());
        pod.command("ip").args(["address", "add", &address, "dev", "lo"]).run()?;
        Ok(Self { pod, address })
    }
}

impl Drop for Stolen<'_> {
    fn drop(&mut self) {
        // The namespace goes with the lab, should this fail.
        let _ = self.pod.command("ip").args(["address", "del", &self.address, "dev", "lo"]).run();
    }
}

/// A policy by address knows a pod by what the kernel says of its namespace, not by what its socket is bound to.
pub(crate) fn anothers_address_opens_nothing(lab: &Lab) -> Result<()> {
    let (client, careful, near, stranger) =
        (lab.pod("client"), lab.pod("careful"), lab.pod("near"), lab.pod("stranger"));
    let _server = near.serve(["echo", "--port", "9000"])?;
    let to = format!("{}:9000", near.ip4());
    let allow = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: neighbours, namespace: shop}}\n\
         spec: {{rules: [{{from: [{{source: {{ipBlocks: ['{}']}}}}]}}]}}\n",
        careful.ip4()
    );
    lab.write_manifest(POLICY, &allow)?;
    poll_until("the client to be refused", SOON, || {
        (say(&client, &to, &[]).ok()?["ok"] == false).then_some(())
    })?;
    let seen = say(&careful, &to, &[])?;
    ensure!(seen["ok"] == true && seen["text"] == "hello", "who is named is refused: {seen}");
    // A pod of the mesh that calls itself by the address that is named.
    let stolen = Stolen::new(&client, &careful)?;
    let flows = lab.node("n1").watch_flows()?;
    let bind = format!("{}:0", careful.ip4());
    let seen = say(&client, &to, &["--bind", &bind])?;
    ensure!(seen["ok"] == false, "an address was believed: {seen}");
    let flow = flows.expect(&[
        ("/direction", "inbound"),
        ("/verdict", "denied"),
        ("/policy", "deny (no ALLOW rule matched)"),
        ("/source/pod", "client"),
        ("/destination/pod", "near"),
    ])?;
    let address = flow["source"]["address"].as_str().unwrap_or_default();
    ensure!(address.starts_with(&client.ip4().to_string()), "{flow}");
    drop(stolen);
    // A pod that is not in the mesh: the answer to its SYN goes to the address's owner.
    let stolen = Stolen::new(&stranger, &careful)?;
    let flows = lab.node("n1").watch_flows()?;
    let seen = say(&stranger, &to, &["--bind", &bind])?;
    ensure!(seen["ok"] == false, "an address was believed: {seen}");
    let entered = flows.seen()?.into_iter().find(|flow| flow["verdict"] == "allowed");
    ensure!(entered.is_none(), "{entered:?}");
    drop(stolen);
    lab.remove_manifest(POLICY)?;
    poll_until("the client to enter again", SOON, || {
        (say(&client, &to, &[]).ok()?["ok"] == true).then_some(())
    })
}

/// Port 15008 of a pod on the caller's own node asks for papers as any other, and leads to that pod alone.
pub(crate) fn a_neighbours_tunnel_asks_for_papers_and_leads_nowhere_else(lab: &Lab) -> Result<()> {
    let (stranger, near, client, far) =
        (lab.pod("stranger"), lab.pod("near"), lab.pod("client"), lab.pod("far"));
    let _servers = [&near, &client, &far]
        .map(|pod| pod.serve(["whoami", "--port", "9000"]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let gateway = (near.ip4(), 15008).into();
    let at_near = format!("{}:9000", near.ip4());
    for papers in [None, Some(Papers::self_signed(FRIEND)?), Some(Ca::unknown()?.sign(FRIEND, Valid::Now)?)] {
        refused_by(lab, "near", "TLS_FAILURE", "TLS", None, || {
            Client::new(&stranger, papers.as_ref()).ask(gateway, &Ask::Connect(&at_near, None))
        })?;
    }
    let papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
    let friend = Client::new(&stranger, Some(&papers));
    for third in [&client, &far] {
        let to = format!("{}:9000", third.ip4());
        refused_by(lab, "near", "DENY", "is not an address of pod near", Some(400), || {
            friend.ask(gateway, &Ask::Connect(&to, None))
        })?;
    }
    // Whose address it names does not matter.
    let claimed = format!("{}:1234", client.ip4());
    let (status, text) = friend.ask(gateway, &Ask::Connect(&at_near, Some(&claimed)))?;
    ensure!(status == 200 && text.contains(&stranger.ip4().to_string()), "{status} {text}");
    Ok(())
}
