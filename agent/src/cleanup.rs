//! `warren agent --cleanup`: takes off the node what its agent put there. The agent itself must have ended.
//!
//! Runs in the agent's own pod when warren is uninstalled: its readiness says that the node is clean, and it stays
//! until it is told to stop, so that whoever waits for it can see that.

use crate::cni::{self, InstallConfig, InstallError};
use crate::control;
use crate::identity;
use crate::kernel::{BpfKernel, KernelError};
use crate::observe::{EndpointError, bind, serve_readiness};
use crate::pods;
use crate::xds;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use warren_common::runtime::{Readiness, shutdown_signal};

/// Where the agent left what.
#[derive(Clone, Debug)]
pub struct CleanupConfig {
    /// Directory on a bpffs where programs and maps are pinned.
    pub bpf_dir: PathBuf,
    /// Directory of the last good configuration and certificates.
    pub state_dir: PathBuf,
    /// Unix sockets of the admin API and of the CNI plugin.
    pub sockets: [PathBuf; 2],
    /// Where the CNI plugin was installed, if it was.
    pub cni_install: Option<InstallConfig>,
    /// Where readiness is served: ready when the node is clean.
    pub readiness_address: SocketAddr,
}

/// Why the node is not clean.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Programs or maps stay.
    #[error("the kernel programs stay: {0}")]
    Kernel(#[from] KernelError),
    /// Pods would still start with the plugin.
    #[error("the CNI plugin stays: {0}")]
    Cni(#[from] InstallError),
    /// A file stays.
    #[error("{} stays: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Readiness cannot be served.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No runtime, no signals.
    #[error("cannot wait for the end: {0}")]
    Wait(#[from] io::Error),
}

/// Cleans the node, then says so until SIGTERM or SIGINT. Enrolled pods are captured no more and go on in plaintext.
///
/// # Errors
/// [`CleanupError`] for the first thing that does not go; running it again goes on from there.
pub fn run(config: &CleanupConfig) -> Result<(), CleanupError> {
    clean(config)?;
    tracing::info!("this node is clean; waiting to be deleted");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = bind(config.readiness_address).await?;
        tokio::spawn(serve_readiness(listener, Readiness::default()));
        shutdown_signal().await?;
        Ok(())
    })
}

/// The node's network first, then what nobody uses any more. The plugin goes before everything: without an agent it
/// holds up pods of the mesh.
fn clean(config: &CleanupConfig) -> Result<(), CleanupError> {
    if let Some(install) = &config.cni_install {
        cni::remove(install)?;
    }
    BpfKernel::uninstall(&config.bpf_dir)?;
    for path in identity::saved(&config.state_dir)
        .chain(xds::saved(&config.state_dir))
        .chain(pods::saved(&config.state_dir))
        .chain(control::saved(&config.state_dir))
    {
        remove(&path)?;
    }
    config.sockets.iter().try_for_each(|socket| remove(socket))
}

fn remove(path: &Path) -> Result<(), CleanupError> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(CleanupError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_goes_and_the_rest_stays() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("state/certs")).unwrap();
        for file in ["state/certs/key.pem", "state/other", "admin.sock"] {
            fs::write(at(file), "x").unwrap();
        }
        for saved in
            xds::saved(&at("state")).chain(pods::saved(&at("state"))).chain(control::saved(&at("state")))
        {
            fs::write(saved, "x").unwrap();
        }
        let config = CleanupConfig {
            bpf_dir: at("bpf"),
            state_dir: at("state"),
            sockets: [at("admin.sock"), at("cni.sock")],
            cni_install: None,
            readiness_address: ([127, 0, 0, 1], 0).into(),
        };
        // Twice: what is gone already is no error.
        clean(&config).unwrap();
        clean(&config).unwrap();
        let left: Vec<_> =
            fs::read_dir(at("state")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["other"]);
        assert!(!at("admin.sock").exists());
    }
}
