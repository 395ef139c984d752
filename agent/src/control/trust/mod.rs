//! Whom this agent trusts: what its file says and what the controller has said since, by [`rule`].
//!
//! ```text
//!   file (read every 2 s) --.
//!                            >-- rule (pure) --> Anchors --> channel, handshakes, open tunnels
//!   controller (xDS) --------'       |
//!         trust.json <---------------'  what the controller said outlives the agent
//! ```

mod anchors;
mod rule;

pub use anchors::{Anchors, FROM_FILE};

use super::write_atomically;
use arc_swap::ArcSwapOption;
use rule::{Der, Told, rule};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use warren_common::model::{TrustBundle, TrustReport};
use warren_common::runtime::DrainWatch;

const SAVED: &str = "trust.json";
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What an agent keeps in its state directory.
pub(crate) fn saved(state_dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(state_dir.join(SAVED))
}

/// Why there is nothing to trust.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot read the root certificates {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It holds something that is not a certificate, or none.
    #[error("{} does not hold root certificates: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Default)]
struct State {
    /// As it was last read.
    file: Option<Vec<Der>>,
    /// What is wrong with it since, if that was said.
    complaint: Option<String>,
    told: Option<Told>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    saved: Option<PathBuf>,
    state: Mutex<State>,
    /// Read by every handshake, so without a lock.
    current: ArcSwapOption<Anchors>,
    changed: watch::Sender<()>,
    report: watch::Sender<TrustReport>,
}

/// Shared by all who verify. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<Inner>);

impl Trust {
    /// By the file at `path`, and by what an earlier run of the agent was told, if that is kept in `state_dir`.
    /// Blocks for the time of one read.
    pub fn new(path: PathBuf, state_dir: Option<&Path>) -> Self {
        let saved = state_dir.map(|folder| folder.join(SAVED));
        let told = saved.as_deref().and_then(|saved| match load(saved) {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(path = %saved.display(), %error, "saved roots ignored; the file counts");
                None
            }
        });
        Self(Arc::new(Inner {
            path,
            saved,
            state: Mutex::new(State { told, ..State::default() }),
            current: ArcSwapOption::empty(),
            changed: watch::Sender::new(()),
            report: watch::Sender::new(TrustReport::default()),
        }))
    }

    /// What was trusted when the file was last read.
    pub fn current(&self) -> Option<Arc<Anchors>> {
        self.0.current.load_full()
    }

    /// Wakes when [`Self::current`] is another.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// When it is not good and nothing else is known.
    pub async fn refresh(&self) -> Result<Arc<Anchors>, TrustError> {
        let inner = &*self.0;
        let read = tokio::fs::read(&inner.path).await;
        let read = read
            .map_err(|source| TrustError::Read { path: inner.path.clone(), source: Arc::new(source) })
            .and_then(|pem| parse(&pem).map_err(|reason| self.bad(reason)));
        let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(file) => {
                state.file = Some(file);
                state.complaint = None;
            }
            // What was good stays.
            Err(error) if inner.current.load().is_none() && state.told.is_none() => return Err(error),
            Err(error) => {
                let said = Some(error.to_string());
                if state.complaint != said {
                    tracing::warn!(%error, "the last good roots stay");
                    state.complaint = said;
                }
            }
        }
        self.decide(&state).map_err(|reason| self.bad(reason))
    }

    /// Takes the controller's word, from a channel that was verified by what is trusted now.
    pub async fn accept(&self, bundle: TrustBundle) {
        // What the file says at this moment belongs to it.
        if let Err(error) = self.refresh().await {
            tracing::debug!(%error, "no file beside the controller's word");
        }
        let saved = {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let told = Told { bundle, file: state.file.clone().unwrap_or_default() };
            let before = state.told.replace(told);
            match self.decide(&state) {
                Ok(anchors) => tracing::info!(
                    id = anchors.id,
                    roots = anchors.certificates.len(),
                    signer = anchors.signer,
                    "the controller says whom to trust"
                ),
                Err(reason) => {
                    tracing::warn!(reason, "the controller's roots are not used");
                    state.told = before;
                    return;
                }
            }
            // Names and numbers: writing them can't fail.
            serde_json::to_vec(&state.told).unwrap_or_default()
        };
        if let Some(path) = self.0.saved.clone() {
            let written = tokio::task::spawn_blocking(move || {
                std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
                write_atomically(&path, &[&saved])
            });
            if let Err(error) = written.await.map_err(io::Error::other).flatten() {
                tracing::warn!(%error, "cannot save whom to trust: after a restart the file alone counts");
            }
        }
    }

    /// Looks at the file again and again, until the drain.
    pub async fn follow(self, mut drain: DrainWatch) {
        let mut said = None;
        loop {
            let error = self.refresh().await.err().map(|error| error.to_string());
            if let Some(error) = error.as_ref().filter(|error| said.as_ref() != Some(*error)) {
                tracing::warn!(error, "nobody can be verified");
            }
            said = error;
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = drain.started() => return,
            }
        }
    }

    /// Says how far the certificates of this node are.
    pub fn report(&self, report: TrustReport) {
        self.0.report.send_if_modified(|said| {
            let is_new = *said != report;
            *said = report;
            is_new
        });
    }

    /// What the controller should be told.
    pub fn reports(&self) -> watch::Receiver<TrustReport> {
        self.0.report.subscribe()
    }

    fn decide(&self, state: &State) -> Result<Arc<Anchors>, String> {
        let ruling = rule(state.file.as_deref(), state.told.as_ref()).ok_or("nothing is known")?;
        let current = self.0.current.load_full();
        let anchors = Arc::new(Anchors::of(&ruling)?);
        if let Some(current) = current
            && current.is_same(&anchors)
            && current.signer == anchors.signer
            && current.open.roots == anchors.open.roots
        {
            return Ok(current);
        }
        self.0.current.store(Some(anchors.clone()));
        self.0.changed.send_replace(());
        Ok(anchors)
    }

    fn bad(&self, reason: String) -> TrustError {
        TrustError::Content { path: self.0.path.clone(), reason }
    }
}

/// The certificates of a file, all of them good.
fn parse(pem: &[u8]) -> Result<Vec<Der>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let file: Vec<Der> =
        certificates.map_err(|error| error.to_string())?.iter().map(|der| der.to_vec()).collect();
    Anchors::of(&rule::Ruling::File(&file)).map(|_| file)
}

fn load(path: &Path) -> io::Result<Option<Told>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::other)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
