//! Keeps one identity certified: load, issue, renew, for as long as a pod needs it.

use super::ca::{CaError, CertificateAuthority, SignedChain};
use super::chain::{ChainError, check, rfc3339};
use super::credential::Credential;
use super::files::KeyFolder;
use super::keys::{KeyError, PrivateKey, certificate_request, generate};
use super::manager::IdentityConfig;
use super::renewal::{renew_for_signer, retry_delay};
use crate::control::{Anchors, TrustError};
use arc_swap::ArcSwapOption;
use rcgen::KeyPair;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};
use warren_common::model::Identity;
use zeroize::Zeroizing;

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
    /// Wakes when an identity has another certificate, or none any more.
    pub(super) certified: watch::Sender<()>,
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
            certified: watch::channel(()).0,
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
    Roots(#[from] TrustError),
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

/// What a credential is made of: it is made again when others are trusted.
struct Held {
    key: PrivateKey,
    chain: SignedChain,
    /// When the CA signed, if that is known.
    issued: Option<SystemTime>,
}

/// Runs until it is aborted, which the manager does when the last pod of the identity goes.
pub(super) async fn keep_certified(shared: Arc<Shared>, slot: Arc<Slot>) {
    let mut trusted = shared.config.trust.changed();
    let mut held = take_up_saved(&shared, &slot).await;
    let mut due = match held {
        Some(_) => next_renewal(&shared, &slot),
        None => shared.now(),
    };
    let mut failures = 0;
    loop {
        tokio::select! {
            () = until(&shared, due) => {}
            // The sender outlives every task.
            _ = trusted.changed() => {
                due = trust_again(&shared, &slot, held.as_ref(), due);
                continue;
            }
        }
        match issue(&shared, &slot.identity).await {
            Ok((credential, new)) => {
                tracing::info!(
                    identity = %slot.identity, serial = credential.serial, generation = credential.generation,
                    not_after = rfc3339(credential.not_after), "certificate issued"
                );
                failures = 0;
                slot.install(credential);
                shared.certified.send_replace(());
                due = next_renewal(&shared, &slot);
                save(&shared, &slot, &new).await;
                held = Some(new);
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

/// When the credential in use is to be renewed: at half-life, or soon when another certificate signs now.
fn next_renewal(shared: &Shared, slot: &Slot) -> SystemTime {
    let now = shared.now();
    let Some(credential) = slot.credential.load_full() else { return now };
    match shared.config.trust.current() {
        Some(anchors) if anchors.signer.as_ref().is_some_and(|signer| *signer != credential.signer) => {
            credential.renew_at.min(renew_for_signer(now, anchors.renew_within, rand::random()))
        }
        _ => credential.renew_at,
    }
}

/// Others are trusted, or another certificate signs. Handshakes must go by that at once: the credential is made again, and
/// one whose own chain is not trusted any more is used no longer. Says when to renew.
fn trust_again(shared: &Shared, slot: &Slot, held: Option<&Held>, due: SystemTime) -> SystemTime {
    let now = shared.now();
    let (Some(anchors), Some(held)) = (shared.config.trust.current(), held) else {
        // The first certificate may only have lacked a root.
        return if slot.credential.load().is_none() { now } else { due };
    };
    let (before, signer) = match slot.credential.load().as_ref() {
        Some(credential) => (Some(credential.anchors.clone()), credential.signer.clone()),
        None => (None, String::new()),
    };
    if before.is_none_or(|before| !before.is_same(&anchors)) {
        match credential(shared, &slot.identity, &held.key, &held.chain, &anchors, held.issued) {
            Ok(credential) => slot.install(credential),
            Err(error) => {
                tracing::warn!(identity = %slot.identity, %error, "certificate not used any more");
                slot.credential.store(None);
                slot.outcome.send_replace(Some(error.to_string().into()));
                shared.certified.send_replace(());
                return now;
            }
        }
        shared.certified.send_replace(());
    }
    match &anchors.signer {
        Some(signs) if *signs != signer => due.min(next_renewal(shared, slot)),
        _ => due,
    }
}

async fn until(shared: &Shared, due: SystemTime) {
    while let Ok(left) = due.duration_since(shared.now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

async fn issue(shared: &Shared, identity: &Identity) -> Result<(Credential, Held), IssueError> {
    // The semaphore is never closed; a missing permit would only mean less patience.
    let _permit = shared.at_once.acquire().await;
    let anchors = shared.config.trust.refresh().await?;
    let key = generate()?;
    let csr = certificate_request(&key, identity)?;
    let chain = shared.ca.sign(identity, csr, shared.config.validity).await?;
    // Meanwhile others may be trusted.
    let anchors = shared.config.trust.current().unwrap_or(anchors);
    let issued = Some(shared.now());
    let credential = credential(shared, identity, &key, &chain, &anchors, issued)?;
    Ok((credential, Held { key, chain, issued }))
}

fn credential(
    shared: &Shared,
    identity: &Identity,
    key: &KeyPair,
    chain: &SignedChain,
    anchors: &Arc<Anchors>,
    issued: Option<SystemTime>,
) -> Result<Credential, IssueError> {
    let checked = check(&chain.certificates, identity, anchors, shared.now())?;
    let generation = shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(Credential::new(identity.clone(), key, checked, anchors.clone(), generation, issued)?)
}

/// Uses what the last run of the agent left, if it still holds.
async fn take_up_saved(shared: &Arc<Shared>, slot: &Slot) -> Option<Held> {
    match saved(shared, &slot.identity).await {
        Ok(Some((credential, held))) => {
            tracing::info!(identity = %slot.identity, serial = credential.serial, "certificate loaded from disk");
            slot.install(credential);
            shared.certified.send_replace(());
            Some(held)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(identity = %slot.identity, %error, "saved certificate ignored");
            None
        }
    }
}

async fn saved(shared: &Shared, identity: &Identity) -> Result<Option<(Credential, Held)>, IssueError> {
    let Some(folder) = shared.folder.clone() else {
        return Ok(None);
    };
    let wanted = identity.clone();
    let loaded = tokio::task::spawn_blocking(move || folder.load(&wanted)).await;
    let Some((key, chain)) = loaded.map_err(io::Error::other).flatten().map_err(IssueError::Saved)? else {
        return Ok(None);
    };
    let anchors = shared.config.trust.refresh().await?;
    let credential = credential(shared, identity, &key, &chain, &anchors, None)?;
    Ok(Some((credential, Held { key, chain, issued: None })))
}

async fn save(shared: &Shared, slot: &Arc<Slot>, held: &Held) {
    let (Some(folder), slot) = (shared.folder.clone(), slot.clone()) else {
        return;
    };
    let (key, chain) = (Zeroizing::new(held.key.serialize_pem()), held.chain.clone());
    let saved = tokio::task::spawn_blocking(move || {
        folder.save(&slot.identity, &key, &chain, || slot.retired.load(Ordering::Acquire))
    });
    if let Err(error) = saved.await.map_err(io::Error::other).flatten() {
        tracing::warn!(%error, "cannot save a certificate: it would be asked for again after a restart");
    }
}
