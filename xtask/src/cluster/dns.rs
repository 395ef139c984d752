//! DNS for services and pods: CoreDNS, as clusters have it.

use std::time::Duration;

use anyhow::{Result, bail};

use super::image::COREDNS;
use super::layout::{DNS, Layout};
use super::tool::{feed, kubectl, output};
use super::wait;

const MANIFEST: &str = include_str!("dns.yaml");

/// Creates its objects.
pub(crate) fn apply(layout: &Layout) -> Result<()> {
    println!("DNS");
    let manifest = MANIFEST.replace("CLUSTER_IP", DNS).replace("IMAGE", COREDNS);
    feed(kubectl(layout)?.args(["apply", "--server-side", "-f", "-"]), &manifest)
}

/// Waits until it answers.
pub(crate) fn wait(layout: &Layout) -> Result<()> {
    wait::until("DNS", Duration::from_secs(60), || {
        let mut get = kubectl(layout)?;
        get.args(["-n", "kube-system", "get", "deployment", "coredns"]);
        get.args(["-o", "jsonpath={.status.availableReplicas}"]);
        if output(&mut get)?.trim() == "1" { Ok(()) } else { bail!("its pod is not ready") }
    })
}
