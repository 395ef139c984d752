//! etcd, the API server, the controller manager and the scheduler.

use std::time::Duration;

use anyhow::Result;

use super::binaries::Tools;
use super::layout::{CONTROL_PLANE, Layout, SERVICES};
use super::tool::{in_netns, kubectl, output};
use super::{daemon, wait};

/// Names of the daemons, in the order in which they end: what writes to another one first.
pub(crate) const DAEMONS: [&str; 4] = ["scheduler", "controller-manager", "apiserver", "etcd"];

const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";

/// Starts etcd and the API server, which waits for it by itself.
pub(crate) fn start_api(layout: &Layout, tools: &Tools) -> Result<()> {
    println!("etcd and API server");
    let netns = layout.control_plane_netns();
    let mut etcd = in_netns(&netns, tools.path("etcd"));
    etcd.arg("--data-dir").arg(layout.control_plane_dir().join("etcd"));
    etcd.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    etcd.args(["--listen-peer-urls", ETCD_PEER, "--initial-advertise-peer-urls", ETCD_PEER]);
    etcd.args(["--initial-cluster", &format!("default={ETCD_PEER}")]);
    // Nothing in it outlives the machine's next crash.
    etcd.args(["--unsafe-no-fsync", "--quota-backend-bytes", "2147483648", "--log-level", "warn"]);
    daemon::start(layout, "etcd", &etcd)?;
    start_api_server(layout, tools)
}

/// Starts the API server alone; the tests stop it for a while.
fn start_api_server(layout: &Layout, tools: &Tools) -> Result<()> {
    let pki = layout.pki();
    let mut server = in_netns(&layout.control_plane_netns(), tools.path("kube-apiserver"));
    for (flag, file) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("kubelet-client-certificate", "kubelet-client.crt"),
        ("kubelet-client-key", "kubelet-client.key"),
        ("kubelet-certificate-authority", "ca.crt"),
    ] {
        server.arg(format!("--{flag}={}", pki.join(file).display()));
    }
    server.args([
        &format!("--etcd-servers={ETCD}"),
        &format!("--advertise-address={CONTROL_PLANE}"),
        &format!("--service-cluster-ip-range={SERVICES}"),
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
    ]);
    daemon::start(layout, "apiserver", &server)
}

/// Waits until the API server serves.
pub(crate) fn wait_for_api(layout: &Layout) -> Result<()> {
    wait::until("the API server", Duration::from_secs(60), || {
        output(kubectl(layout)?.args(["get", "--raw", "/readyz"])).map(|_| ())
    })
}

/// Starts what acts on the API server's content.
pub(crate) fn start_controllers(layout: &Layout, tools: &Tools) -> Result<()> {
    println!("controller manager and scheduler");
    let netns = layout.control_plane_netns();
    let pki = layout.pki();
    let mut manager = in_netns(&netns, tools.path("kube-controller-manager"));
    for (flag, file) in [
        ("service-account-private-key-file", "sa.key"),
        ("root-ca-file", "ca.crt"),
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
    ] {
        manager.arg(format!("--{flag}={}", pki.join(file).display()));
    }
    manager.args(["--use-service-account-credentials", "--allocate-node-cidrs=false"]);
    let scheduler = in_netns(&netns, tools.path("kube-scheduler"));
    for (name, mut command) in [("controller-manager", manager), ("scheduler", scheduler)] {
        let kubeconfig = layout.kubeconfig(name);
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{flag}={}", kubeconfig.display()));
        }
        command.args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
        daemon::start(layout, name, &command)?;
    }
    Ok(())
}
