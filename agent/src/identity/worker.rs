//! Keeps one identity certified: load, issue, renew, for as long as a pod needs it.

use super::ca::{CaError, CertificateAuthority, SignedChain};
use super::chain::{ChainError, check, rfc3339};
use super::credential::Credential;
use super::files::KeyFolder;
use super::keys::{KeyError, certificate_request, generate};
use super::manager::IdentityConfig;
use super::renewal::retry_delay;
use super::roots::{Roots, RootsError};
use arc_swap::ArcSwapOption;
use rcgen::KeyPair;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};
use warren_common::model::Identity;

/// So many requests to the CA at once; a node that starts has many identities.
const AT_ONCE: usize = 8;
/// The wall clock is looked at this often: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(30);

/// What all identities of the node share.
pub(super) struct Shared {
    pub(super) config: IdentityConfig,
    pub(super) ca: Arc<dyn CertificateAuthority>,
    pub(super) folder: Option<Arc<KeyFolder>>,
    pub(super) clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    pub(super) roots: ArcSwapOption<Roots>,
    /// Wakes when the roots are others than before.
    pub(super) trust: watch::Sender<()>,
    pub(super) generation: AtomicU64,
    pub(super) at_once: Semaphore,
}

impl Shared {
    pub(super) fn new(
        config: IdentityConfig,
        ca: Arc<dyn CertificateAuthority>,
        folder: Option<Arc<KeyFolder>>,
        clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ) -> Self {
        let at_once = Semaphore::new(AT_ONCE);
        Self {
            config,
            ca,
            folder,
            clock,
            roots: ArcSwapOption::empty(),
            trust: watch::channel(()).0,
            generation: AtomicU64::new(0),
            at_once,
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }
}

/// One identity: written by its task, read by every worker.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) identity: Identity,
    pub(super) credential: ArcSwapOption<Credential>,
    /// The last failure since the last success; wakes at every outcome.
    pub(super) outcome: watch::Sender<Option<Arc<str>>>,
    /// No pod needs it any more.
    pub(super) retired: AtomicBool,
}

impl Slot {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            credential: ArcSwapOption::empty(),
            outcome: watch::channel(None).0,
            retired: AtomicBool::new(false),
        }
    }

    fn install(&self, credential: Credential) {
        self.credential.store(Some(Arc::new(credential)));
        self.outcome.send_replace(None);
    }
}

/// Why an identity has no new certificate.
#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("the CA's answer is not used: {0}")]
    Chain(#[from] ChainError),
    #[error("key and certificate make no TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the saved key cannot be read: {0}")]
    Saved(io::Error),
}

/// Runs until it is aborted, which the manager does when the last pod of the identity goes.
pub(super) async fn keep_certified(shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut due = take_up_saved(&shared, &slot).await.unwrap_or_else(|| shared.now());
    let mut failures = 0;
    loop {
        until(&shared, due).await;
        match issue(&shared, &slot.identity).await {
            Ok((credential, key, chain)) => {
                tracing::info!(
                    identity = %slot.identity, serial = credential.serial, generation = credential.generation,
                    not_after = rfc3339(credential.not_after), "certificate issued"
                );
                due = credential.renew_at;
                failures = 0;
                slot.install(credential);
                save(&shared, &slot, key, chain).await;
            }
            Err(error) => {
                tracing::warn!(identity = %slot.identity, %error, "no certificate");
                slot.outcome.send_replace(Some(error.to_string().into()));
                let now = shared.now();
                let left = slot.credential.load().as_ref().and_then(|credential| credential.left(now));
                due = now + retry_delay(failures, left, rand::random());
                failures += 1;
            }
        }
    }
}

async fn until(shared: &Shared, due: SystemTime) {
    while let Ok(left) = due.duration_since(shared.now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

async fn issue(
    shared: &Shared,
    identity: &Identity,
) -> Result<(Credential, KeyPair, SignedChain), IssueError> {
    // The semaphore is never closed; a missing permit would only mean less patience.
    let _permit = shared.at_once.acquire().await;
    let roots = load_roots(shared).await?;
    let key = generate()?;
    let csr = certificate_request(&key, identity)?;
    let chain = shared.ca.sign(identity, csr, shared.config.validity).await?;
    let credential = credential(shared, identity, &key, &chain, &roots, Some(shared.now()))?;
    Ok((credential, key, chain))
}

fn credential(
    shared: &Shared,
    identity: &Identity,
    key: &KeyPair,
    chain: &SignedChain,
    roots: &Roots,
    issued: Option<SystemTime>,
) -> Result<Credential, IssueError> {
    let checked = check(&chain.certificates, identity, roots, shared.now())?;
    let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(Credential::new(identity.clone(), key, checked, roots, generation, issued)?)
}

async fn load_roots(shared: &Shared) -> Result<Arc<Roots>, RootsError> {
    let roots = Arc::new(Roots::load(&shared.config.ca_file).await?);
    let before = shared.roots.swap(Some(roots.clone()));
    if before.is_none_or(|before| before.certificates != roots.certificates) {
        shared.trust.send_replace(());
    }
    Ok(roots)
}

/// Uses what the last run of the agent left, if it still holds. Returns when to renew it.
async fn take_up_saved(shared: &Arc<Shared>, slot: &Slot) -> Option<SystemTime> {
    match saved(shared, &slot.identity).await {
        Ok(Some(credential)) => {
            tracing::info!(identity = %slot.identity, serial = credential.serial, "certificate loaded from disk");
            let due = credential.renew_at;
            slot.install(credential);
            Some(due)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(identity = %slot.identity, %error, "saved certificate ignored");
            None
        }
    }
}

async fn saved(shared: &Shared, identity: &Identity) -> Result<Option<Credential>, IssueError> {
    let Some(folder) = shared.folder.clone() else {
        return Ok(None);
    };
    let wanted = identity.clone();
    let loaded = tokio::task::spawn_blocking(move || folder.load(&wanted)).await;
    let Some((key, chain)) = loaded.map_err(io::Error::other).flatten().map_err(IssueError::Saved)? else {
        return Ok(None);
    };
    let roots = load_roots(shared).await?;
    credential(shared, identity, &key, &chain, &roots, None).map(Some)
}

async fn save(shared: &Shared, slot: &Arc<Slot>, key: KeyPair, chain: SignedChain) {
    let (Some(folder), slot) = (shared.folder.clone(), slot.clone()) else {
        return;
    };
    let saved = tokio::task::spawn_blocking(move || {
        folder.save(&slot.identity, &key, &chain, || slot.retired.load(Ordering::Acquire))
    });
    if let Err(error) = saved.await.map_err(io::Error::other).flatten() {
        tracing::warn!(%error, "cannot save a certificate: it would be asked for again after a restart");
    }
}
