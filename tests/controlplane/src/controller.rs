//! The real controller, in a process of its own.

use crate::process::Process;
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// gRPC; nobody else is in this network namespace.
pub(crate) const ADDRESS: &str = "127.0.0.1:15012";
const METRICS: &str = "127.0.0.1:15014";
/// The name in its certificate.
pub(crate) const NAME: &str = "warren-controller.warren-system.svc";

/// Ends when this is dropped.
pub(crate) struct Controller {
    child: Child,
    log: PathBuf,
}

impl Controller {
    /// Starts the `warren` that was built beside this program.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let program = match std::env::var_os("WARREN_BIN") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("warren"),
        };
        let log = directory.join("controller.log");
        let child = Command::new(&program)
            .args(["controller", "--listen", ADDRESS, "--metrics-listen", METRICS, "--serving-name", NAME])
            .arg("--manifests")
            .arg(directory.join("manifests"))
            .arg("--ca-dir")
            .arg(directory.join("ca"))
            .arg("--jwks")
            .arg(directory.join("jwks.json"))
            .stderr(File::create(&log)?)
            .stdout(File::create(directory.join("controller.out"))?)
            .spawn()
            .with_context(|| {
                format!("cannot start {}: build it (cargo build -p warren)", program.display())
            })?;
        Ok(Self { child, log })
    }

    pub(crate) fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// Waits until it has read everything and serves.
    pub(crate) async fn wait_ready(&self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if is_ready().await {
                return Ok(());
            }
            if self.process().memory().is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        bail!("the controller is not ready after {limit:?}:\n{}", tail.join("\n"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Ours, by its handle.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn is_ready() -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(METRICS).await?;
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}
