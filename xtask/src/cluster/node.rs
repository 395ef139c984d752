//! A node: namespaces of its own, containerd, the kubelet and kube-proxy.
//!
//! Its first process (`init.sh`) sees the machine's files with this node's own /run, /etc, /opt, /var and
//! /sys/fs/bpf. When that process is killed the kernel ends everything of the node, mounts and pods included.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::binaries::Tools;
use super::layout::{DNS, Layout, NODES, NodeName};
use super::tool::{in_netns, kubectl, output};
use super::{cgroup, daemon, image, wait};

/// What runs on each node, beside its first process.
pub(crate) const DAEMONS: [&str; 3] = ["containerd", "kubelet", "proxy"];

const INIT: &str = include_str!("init.sh");
const CONTAINERD: &str = include_str!("containerd.toml");
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The name of a node's daemon among the cluster's: `node1-kubelet`.
pub(crate) fn daemon_name(node: NodeName, part: &str) -> String {
    format!("{}-{part}", node.name())
}

/// Starts every node and its containerd.
pub(crate) fn start_runtimes(layout: &Layout) -> Result<()> {
    println!("nodes and their container runtimes");
    for node in NODES {
        cgroup::create(layout, node)?;
        let dir = layout.node_dir(node);
        let write = |name: &str, text: &str| {
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        write("init.sh", INIT)?;
        write("containerd.toml", &CONTAINERD.replace("PAUSE", image::PAUSE))?;
        write("10-pods.conflist", &pod_network(node))?;
        write("kubelet.yaml", &kubelet_config(layout, node))?;
        write("proxy.yaml", &proxy_config(layout, node))?;
        let mut init = in_netns(&layout.netns(node), "unshare");
        init.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        init.arg("sh").arg(dir.join("init.sh")).arg(&dir).arg(node.name());
        daemon::start(layout, &daemon_name(node, "init"), &init)?;
    }
    for node in NODES {
        let dir = layout.node_dir(node);
        wait::until("a node's mounts", Duration::from_secs(10), || {
            if dir.join("run/ready").exists() {
                Ok(())
            } else {
                bail!("see {}", layout.log("node1-init").display())
            }
        })?;
        let config = dir.join("containerd.toml");
        let mut command = on_node(layout, node)?;
        command.args(in_cgroup(layout, node, "runtime")?).arg("containerd").arg("-c").arg(config);
        daemon::start(layout, &daemon_name(node, "containerd"), &command)?;
    }
    Ok(())
}

/// Gives every node the current images.
pub(crate) fn load_images(layout: &Layout) -> Result<()> {
    println!("images");
    let archive = image::archive();
    std::thread::scope(|scope| {
        let imports = NODES.map(|node| {
            let archive = &archive;
            scope.spawn(move || import(layout, node, archive))
        });
        imports.into_iter().try_for_each(super::join)
    })
}

fn import(layout: &Layout, node: NodeName, archive: &Path) -> Result<()> {
    wait::until("containerd", Duration::from_secs(20), || {
        output(on_node(layout, node)?.args(["ctr", "--address", SOCKET, "version"])).map(|_| ())
    })?;
    let mut ctr = on_node(layout, node)?;
    ctr.args(["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import"]).arg(archive);
    output(&mut ctr).map(|_| ())
}

/// Starts every node's kubelet and kube-proxy.
pub(crate) fn start_kubelets(layout: &Layout, tools: &Tools) -> Result<()> {
    println!("kubelets and kube-proxies");
    for node in NODES {
        let dir = layout.node_dir(node);
        let mut kubelet = on_node(layout, node)?;
        kubelet.args(in_cgroup(layout, node, "kubelet")?).arg(tools.path("kubelet"));
        kubelet.arg("--config").arg(dir.join("kubelet.yaml"));
        kubelet.arg("--kubeconfig").arg(layout.kubeconfig(&node.name()));
        kubelet.arg(format!("--hostname-override={}", node.name()));
        kubelet.arg(format!("--node-ip={}", node.address()));
        kubelet.arg(format!(
            "--node-labels=topology.kubernetes.io/region=here,topology.kubernetes.io/zone={}",
            node.zone()
        ));
        daemon::start(layout, &daemon_name(node, "kubelet"), &kubelet)?;
        let mut proxy = on_node(layout, node)?;
        proxy.arg(tools.path("kube-proxy")).arg("--config").arg(dir.join("proxy.yaml"));
        daemon::start(layout, &daemon_name(node, "proxy"), &proxy)?;
    }
    Ok(())
}

/// Waits until the API server calls every node ready.
pub(crate) fn wait_until_ready(layout: &Layout) -> Result<()> {
    wait::until("the nodes to become ready", Duration::from_secs(60), || {
        let mut get = kubectl(layout)?;
        get.args(["get", "nodes", "--no-headers"]);
        let nodes = output(&mut get)?;
        let ready = nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
        if ready == NODES.len() { Ok(()) } else { bail!("{ready} of {} are: {}", NODES.len(), nodes.trim()) }
    })
}

/// A program among a node's own: in its namespaces of every kind.
fn on_node(layout: &Layout, node: NodeName) -> Result<Command> {
    let record = layout.record(&daemon_name(node, "init"));
    let init = daemon::pid(&record).with_context(|| format!("{} does not run", node.name()))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", layout.netns(node)));
    // The recorded process is the one that made the namespaces; it is itself outside its process namespace.
    for (kind, file) in [("mount", "mnt"), ("uts", "uts"), ("pid", "pid_for_children")] {
        command.arg(format!("--{kind}=/proc/{init}/ns/{file}"));
    }
    command.arg("--");
    Ok(command)
}

/// Words that put what follows them into one of the node's cgroups.
fn in_cgroup(layout: &Layout, node: NodeName, part: &str) -> Result<[OsString; 4]> {
    let procs = cgroup::of_part(layout, node, part)?.join("cgroup.procs");
    Ok(["sh".into(), "-c".into(), "echo 0 > \"$0\" && exec \"$@\"".into(), procs.into()])
}

/// The network of the node's pods: one veth pair for each, addresses from the node's range.
fn pod_network(node: NodeName) -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {{
      "type": "ptp",
      "mtu": 1500,
      "ipMasq": false,
      "ipam": {{
        "type": "host-local",
        "ranges": [[{{"subnet": "{}"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}, "snat": true}}
  ]
}}
"#,
        node.pods()
    )
}

fn kubelet_config(layout: &Layout, node: NodeName) -> String {
    let pki = layout.pki();
    let pki = pki.display();
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: "{pki}/ca.crt"}}}}
authorization: {{mode: Webhook}}
tlsCertFile: "{pki}/{name}.crt"
tlsPrivateKeyFile: "{pki}/{name}.key"
containerRuntimeEndpoint: unix://{SOCKET}
clusterDNS: ["{DNS}"]
clusterDomain: cluster.local
# There is no DNS server outside.
resolvConf: ""
staticPodPath: /etc/kubernetes/manifests
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
# Some machines don't let root raise limits (CAP_SYS_RESOURCE).
oomScoreAdj: 0
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
"#,
        address = node.address(),
        name = node.name(),
        cgroup = layout.cgroup(node),
    )
}

fn proxy_config(layout: &Layout, node: NodeName) -> String {
    format!(
        r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: "{}"}}
mode: nftables
clusterCIDR: 10.244.0.0/16
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
# Leave the machine's own limits alone.
conntrack: {{maxPerCore: 0, min: 0}}
hostnameOverride: {}
nodePortAddresses: [primary]
"#,
        layout.kubeconfig("proxy").display(),
        node.name(),
    )
}
