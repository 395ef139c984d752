//! The identities of this node: which are wanted, and what each has to prove itself with.

use super::ca::CertificateAuthority;
use super::chain::{describe, rfc3339};
use super::credential::{Credential, CredentialError};
use super::files::KeyFolder;
use super::worker::{Shared, Slot, keep_certified};
use crate::control::Trust;
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use warren_common::model::admin::{Certificate, Certificates};
use warren_common::model::{Identity, TrustReport};

/// How identities are certified.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// What every peer's chain, and our own, must lead to.
    pub trust: Trust,
    /// Where keys and chains are kept (in `certs/`); without it an agent does not start without its controller.
    pub state_dir: Option<PathBuf>,
    /// The validity to ask for.
    pub validity: Duration,
}

/// How often it is looked whether an expired certificate is to be reported no more.
const REPORT: Duration = Duration::from_secs(5);

type Entries = HashMap<Identity, Arc<Entry>>;

/// A wanted identity and the task that keeps it certified.
struct Entry {
    slot: Arc<Slot>,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Inner {
    shared: Arc<Shared>,
    runtime: Handle,
    /// Read by every connection, so without a lock.
    entries: Arc<ArcSwap<Entries>>,
    /// Wakes who waits for an identity to become wanted.
    changed: watch::Sender<()>,
    /// Whether anything was ever wanted, if only nothing: before that, what is on disk is not judged.
    wanting: Mutex<bool>,
}

/// The identities of this node. Cheap to clone; used from any runtime; ends with its last clone.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.entries.load().keys()).finish()
    }
}

impl Identities {
    /// Nothing is wanted yet. Its tasks run on the runtime this is called from (which has timers enabled).
    pub fn new(config: IdentityConfig, ca: Arc<dyn CertificateAuthority>) -> Self {
        Self::with_clock(config, ca, Arc::new(SystemTime::now))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(super) fn with_clock(
        config: IdentityConfig,
        ca: Arc<dyn CertificateAuthority>,
        clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    ) -> Self {
        let open = |state_dir: &PathBuf| match KeyFolder::open(state_dir) {
            Ok(folder) => Some(Arc::new(folder)),
            Err(error) => {
                tracing::warn!(path = %state_dir.display(), %error, "cannot keep certificates on disk");
                None
            }
        };
        let folder = config.state_dir.as_ref().and_then(open);
        Self(Arc::new(Inner {
            shared: Arc::new(Shared::new(config, ca, folder, clock)),
            runtime: Handle::current(),
            entries: Arc::default(),
            changed: watch::channel(()).0,
            wanting: Mutex::default(),
        }))
    }

    /// These, all of them and no others, have a pod on this node. Starts to certify new ones; forgets the keys of the
    /// rest, on disk too. To be called only once the node's pods are known: what is not named is deleted.
    pub fn want(&self, identities: BTreeSet<Identity>) {
        let inner = &*self.0;
        let mut known = inner.wanting.lock().unwrap_or_else(PoisonError::into_inner);
        let current = inner.entries.load_full();
        if *known
            && current.len() == identities.len()
            && identities.iter().all(|one| current.contains_key(one))
        {
            return;
        }
        *known = true;
        for (_, entry) in current.iter().filter(|(identity, _)| !identities.contains(identity)) {
            entry.slot.retired.store(true, Ordering::Release);
            entry.task.abort();
        }
        let entry = |identity: Identity| {
            let entry = current.get(&identity).cloned().unwrap_or_else(|| inner.certify(identity.clone()));
            (identity, entry)
        };
        inner.entries.store(Arc::new(identities.into_iter().map(entry).collect()));
        inner.changed.send_replace(());
        if let Some(folder) = inner.shared.folder.clone() {
            let entries = inner.entries.clone();
            inner.runtime.spawn_blocking(move || {
                if let Err(error) = folder.sweep(|| entries.load().keys().cloned().collect()) {
                    tracing::warn!(%error, "cannot delete the keys of identities that left this node");
                }
            });
        }
    }

    /// What `identity` proves itself with. Nearly always at once and without a lock; otherwise waits for the first
    /// certificate, or for the identity to become wanted, at most for `deadline`.
    ///
    /// # Errors
    /// [`CredentialError`], naming the CA's last failure.
    pub async fn credential(
        &self,
        identity: &Identity,
        deadline: Duration,
    ) -> Result<Arc<Credential>, CredentialError> {
        if let Some(credential) = self.ready(identity) {
            return Ok(credential);
        }
        let until = Instant::now() + deadline;
        let mut wanted = self.0.changed.subscribe();
        loop {
            let Some(entry) = self.0.entries.load().get(identity).cloned() else {
                match timeout_at(until, wanted.changed()).await {
                    Ok(Ok(())) => continue,
                    _ => return Err(CredentialError::NotWanted(identity.clone())),
                }
            };
            let mut outcome = entry.slot.outcome.subscribe();
            if let Some(credential) = self.ready(identity) {
                return Ok(credential);
            }
            let failure = outcome.borrow_and_update().clone();
            if let (Some(expired), Some(reason)) = (entry.slot.credential.load_full(), &failure) {
                let not_after = rfc3339(expired.not_after);
                return Err(CredentialError::Expired {
                    identity: identity.clone(),
                    not_after,
                    reason: reason.clone(),
                });
            }
            let woken = async {
                tokio::select! {
                    _ = outcome.changed() => {}
                    _ = wanted.changed() => {}
                }
            };
            if timeout_at(until, woken).await.is_err() {
                let reason = failure.unwrap_or_else(|| "the CA has not answered yet".into());
                return Err(CredentialError::Pending {
                    identity: identity.clone(),
                    waited: deadline,
                    reason,
                });
            }
        }
    }

    /// Tells, whenever it changes, by which roots this node verifies and whose certificates it has.
    pub async fn report_trust(self) {
        let shared = &self.0.shared;
        let (mut certified, mut trusted) = (shared.certified.subscribe(), shared.config.trust.changed());
        let mut wanted = self.0.changed.subscribe();
        loop {
            certified.mark_unchanged();
            trusted.mark_unchanged();
            wanted.mark_unchanged();
            let mut report = TrustReport::default();
            let entries = self.0.entries.load_full();
            for credential in entries.values().filter_map(|entry| entry.slot.credential.load_full()) {
                if credential.left(shared.now()).is_some() {
                    report.bundles.insert(credential.anchors.id.clone());
                    report.signers.insert(credential.signer.clone());
                }
            }
            report.bundles.extend(shared.config.trust.current().map(|anchors| anchors.id.clone()));
            shared.config.trust.report(report);
            // Expiry tells nobody.
            tokio::select! {
                _ = certified.changed() => {}
                _ = trusted.changed() => {}
                _ = wanted.changed() => {}
                () = tokio::time::sleep(REPORT) => {}
            }
        }
    }

    /// When the first of this node's certificates ends (Unix seconds), if it has any.
    pub fn soonest_end(&self) -> Option<i64> {
        let entries = self.0.entries.load();
        let ends =
            entries.values().filter_map(|entry| Some(entry.slot.credential.load().as_ref()?.not_after));
        let since = ends.min()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).ok()
    }

    fn ready(&self, identity: &Identity) -> Option<Arc<Credential>> {
        let credential = self.0.entries.load().get(identity)?.slot.credential.load_full()?;
        credential.left(self.0.shared.now()).map(|_| credential)
    }

    /// For people: every wanted identity, ordered, and the roots.
    pub fn certificates(&self) -> Certificates {
        let entries = self.0.entries.load();
        let mut certificates: Vec<_> = entries.values().map(|entry| self.describe(&entry.slot)).collect();
        certificates.sort_by(|a, b| a.identity.cmp(&b.identity));
        let roots = self.0.shared.config.trust.current();
        let roots = roots.map(|anchors| describe(&anchors.certificates)).unwrap_or_default();
        Certificates { certificates, roots }
    }

    fn describe(&self, slot: &Slot) -> Certificate {
        let credential = slot.credential.load();
        let failure = slot.outcome.borrow().clone();
        let state = match (credential.as_ref().map(|held| held.left(self.0.shared.now())), failure) {
            (Some(Some(_)), None) => "ready".to_owned(),
            (Some(Some(_)), Some(reason)) => format!("ready, renewal fails: {reason}"),
            (Some(None), reason) => {
                format!("expired: {}", reason.as_deref().unwrap_or("renewal is under way"))
            }
            (None, reason) => {
                format!("waiting: {}", reason.as_deref().unwrap_or("the CA has not answered yet"))
            }
        };
        let time = |of: fn(&Credential) -> SystemTime| credential.as_ref().map(|held| rfc3339(of(held)));
        Certificate {
            identity: slot.identity.clone(),
            state,
            serial: credential.as_ref().map(|held| held.serial.clone()),
            not_before: time(|held| held.not_before),
            not_after: time(|held| held.not_after),
            renew_at: time(|held| held.renew_at),
        }
    }
}

impl Inner {
    fn certify(&self, identity: Identity) -> Arc<Entry> {
        let slot = Arc::new(Slot::new(identity));
        let task = self.runtime.spawn(keep_certified(self.shared.clone(), slot.clone())).abort_handle();
        Arc::new(Entry { slot, task })
    }
}
