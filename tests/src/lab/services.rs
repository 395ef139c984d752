//! Services for pods outside the mesh, the way kube-proxy's nftables mode does it, and their names in /etc/hosts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::netns::NetNs;
use super::network::Fed;
use super::world::{PodRecord, World};

/// Replaces the rules of every node.
pub(crate) fn apply_rules<'a>(nodes: impl Iterator<Item = &'a NetNs>, world: &World) -> Result<()> {
    let rules = rules(world);
    let started: Vec<_> =
        nodes.map(|netns| Fed::start(netns, "nft", &["-f", "-"], &rules)).collect::<Result<_>>()?;
    started.into_iter().try_for_each(Fed::finish)
}

/// One transaction: drop the old table, if any, and make the new one.
fn rules(world: &World) -> String {
    let mut dnat = String::new();
    let mut reject = String::new();
    for service in world.services.values() {
        let pods = world.ready_endpoints(service);
        for port in &service.ports {
            let (vip4, vip6, number) = (service.ip4, service.ip6, port.port);
            if pods.is_empty() {
                let _ = writeln!(reject, "    ip daddr {vip4} tcp dport {number} reject");
                let _ = writeln!(reject, "    ip6 daddr {vip6} tcp dport {number} reject");
                continue;
            }
            let target = port.target;
            let to4 = choice(&pods, |pod| format!("{} . {target}", pod.ip4));
            let to6 = choice(&pods, |pod| format!("{} . {target}", pod.ip6));
            let _ = writeln!(dnat, "    ip daddr {vip4} tcp dport {number} dnat ip to {to4}");
            let _ = writeln!(dnat, "    ip6 daddr {vip6} tcp dport {number} dnat ip6 to {to6}");
        }
    }
    // A pod that reaches itself through a service must see another source, or it would answer itself directly.
    let mut hairpin = String::new();
    for pod in world.pods.values() {
        let _ = writeln!(hairpin, "    ct status dnat ip saddr {0} ip daddr {0} masquerade", pod.ip4);
        let _ = writeln!(hairpin, "    ct status dnat ip6 saddr {0} ip6 daddr {0} masquerade", pod.ip6);
    }
    format!(
        "table inet services\ndelete table inet services\ntable inet services {{\n\
         \x20 chain choose {{\n{dnat}  }}\n\
         \x20 chain refuse {{\n{reject}  }}\n\
         \x20 chain prerouting {{ type nat hook prerouting priority -100; jump choose; }}\n\
         \x20 chain output {{ type nat hook output priority -100; jump choose; }}\n\
         \x20 chain postrouting {{ type nat hook postrouting priority 100;\n{hairpin}  }}\n\
         \x20 chain forward {{ type filter hook forward priority 0; jump refuse; }}\n\
         \x20 chain local {{ type filter hook output priority 0; jump refuse; }}\n\
         }}\n"
    )
}

fn choice(pods: &[&PodRecord], target: impl Fn(&PodRecord) -> String) -> String {
    let targets: Vec<_> =
        pods.iter().enumerate().map(|(at, pod)| format!("{at} : {}", target(pod))).collect();
    format!("numgen random mod {} map {{ {} }}", pods.len(), targets.join(", "))
}

/// The hosts file of a namespace's pods.
pub(crate) fn hosts_path(dir: &Path, namespace: &str) -> PathBuf {
    dir.join("hosts").join(namespace)
}

/// Writes one hosts file per namespace: short names are those of the pod's own namespace.
pub(crate) fn write_hosts(dir: &Path, world: &World) -> Result<()> {
    for (namespace, text) in hosts(world) {
        let path = hosts_path(dir, namespace);
        // Written in place, not renamed: running pods have bind mounts of this very file.
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn hosts(world: &World) -> BTreeMap<&str, String> {
    let of_namespace = |own: &str| {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for service in world.services.values() {
            let (name, namespace) = (&service.name, &service.namespace);
            let mut names =
                format!("{name}.{namespace} {name}.{namespace}.svc {name}.{namespace}.svc.cluster.local");
            if namespace == own {
                names = format!("{name} {names}");
            }
            let _ = writeln!(text, "{} {names}\n{} {names}", service.ip4, service.ip6);
        }
        for pod in world.pods.values().filter(|pod| pod.namespace == own) {
            let _ = writeln!(text, "{} {}\n{} {}", pod.ip4, pod.name, pod.ip6, pod.name);
        }
        text
    };
    world.namespaces.keys().map(|namespace| (namespace.as_str(), of_namespace(namespace))).collect()
}
