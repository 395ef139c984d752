//! The API server, away for a while: packets to it are answered with a reset, new connections and old ones alike.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Cluster, stdout};

const TABLE: &str = "api_outage";

/// While this lives nobody reaches the API server, kubelets and controllers of Kubernetes included.
struct ApiOutage;

impl Cluster {
    /// An outage of this length.
    pub fn api_outage_for(&self, time: Duration) -> Result<()> {
        let _outage = ApiOutage::begin()?;
        #[allow(clippy::disallowed_methods, reason = "the time is what is tested; nothing is awaited")]
        std::thread::sleep(time);
        Ok(())
    }
}

impl ApiOutage {
    fn begin() -> Result<Self> {
        nft(&format!(
            "add table ip {TABLE}; add chain ip {TABLE} input {{ type filter hook input priority 0; }}; add rule ip \
             {TABLE} input tcp dport 6443 reject with tcp reset"
        ))?;
        Ok(Self)
    }
}

fn nft(commands: &str) -> Result<()> {
    let done = Command::new("nft").arg(commands).output().context("cannot start nft")?;
    stdout(commands, &done).map(|_| ())
}

impl Drop for ApiOutage {
    fn drop(&mut self) {
        if let Err(error) = nft(&format!("delete table ip {TABLE}")) {
            eprintln!("the API server stays away: {error:#}");
        }
    }
}
