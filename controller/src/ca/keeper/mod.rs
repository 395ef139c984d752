//! Keeps the CA: reads it again, makes one where there is none, and leads it through rotations.
//!
//! ```text
//!   Secret or directory --read every 1 or 3 s---> [`Ca`] --> sign, serve, tell agents whom to trust
//!          ^                                      |
//!          '--- write, if nobody else has --- next step (`rotation`, pure), taken by the leader alone
//! ```
//!
//! A CA that somebody plugged in is taken as it is there: all roots of `root-cert.pem` are trusted at once, and where the
//! root of what signed before is among them, that goes on signing until every node has taken up the new ones. Without
//! the old root beside the new one there is no overlap to keep. What is there and not good changes nothing.

mod directory;
mod secret;
mod shares;

use super::bundle::{Bundle, BundleError};
use super::own::{Lifetimes, Own, validity_of};
use super::rotation::{Alarm, Kind, Phase, Position, Progress, Roster, Rules, Step, Validity, alarm, next};
use super::sign::{Authority, pem};
use crate::kubernetes::{CallError, Cluster};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};
use warren_common::model::TrustBundle;

pub(crate) use follow::Following;

mod follow;

/// Somebody else wrote first: so often it is tried again.
const ATTEMPTS: usize = 5;

/// How a CA of our own is kept fresh.
#[derive(Clone, Copy, Debug)]
pub struct RotationConfig {
    /// Of a new root.
    pub root_lifetime: Duration,
    /// Of a new signing certificate.
    pub signer_lifetime: Duration,
    /// The part of its lifetime (0.0 to 1.0) after which either is replaced; none: by hand alone.
    pub rotate_at: Option<f64>,
    /// How long each phase lasts at least, so that agents which are not connected find new roots in their file.
    pub settle: Duration,
}

impl Default for RotationConfig {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            root_lifetime: Duration::from_secs(3650 * DAY),
            signer_lifetime: Duration::from_secs(365 * DAY),
            rotate_at: Some(2.0 / 3.0),
            settle: Duration::from_secs(600),
        }
    }
}

/// Why the CA can't be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file can't be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The API server.
    #[error("the Secret {name}: {error}")]
    Call {
        /// The Secret.
        name: &'static str,
        /// What came of it.
        error: CallError,
    },
    /// What is there makes no CA.
    #[error("{place}: {error}")]
    Bundle {
        /// Where.
        place: String,
        /// What is wrong.
        error: BundleError,
    },
    /// Another replica was faster.
    #[error("somebody else changed the CA at the same moment; try again")]
    Conflict,
    /// It is not ours.
    #[error("{0} was plugged in: put new files there, with the old root beside the new one in root-cert.pem")]
    PluggedIn(String),
    /// One at a time.
    #[error("a rotation is under way ({0}); `warren ca status` shows how far it is")]
    Busy(&'static str),
}

impl From<BundleError> for CaError {
    fn from(error: BundleError) -> Self {
        Self::Bundle { place: "the CA".to_owned(), error }
    }
}

/// Where the CA is kept.
#[derive(Debug)]
enum Shelf {
    Directory(PathBuf),
    Cluster(Cluster),
}

/// What lies there.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// What somebody plugged in, and where.
    plugged: Option<(String, Bundle)>,
    /// Ours.
    own: Option<Own>,
    /// Ours, but in the form of an earlier version.
    is_old: bool,
    /// Changes with the content; empty where there is nothing.
    mark: String,
}

/// The CA at one moment.
#[derive(Debug)]
pub struct Ca {
    /// Signs.
    pub authority: Arc<Authority>,
    /// What agents are told.
    pub trust: TrustBundle,
    pub(crate) position: Position,
    /// Where somebody plugged it in, if it is not our own.
    pub(crate) plugged_in: Option<String>,
    /// Plugged in, and signs once everybody has its root.
    next: Option<Arc<Authority>>,
    kept: Kept,
}

impl Ca {
    /// Trust anchors as PEM, those that agents should find in their file.
    pub fn roots_pem(&self) -> String {
        if let (None, Some(own)) = (&self.plugged_in, &self.kept.own) {
            return own.copies().root;
        }
        self.trust.roots.iter().map(|root| pem(&CertificateDer::from(root.as_slice()))).collect()
    }

    /// The roots that are trusted, and those that only vouch for open connections, with when they are valid.
    pub(crate) fn roots(&self) -> (Vec<CertificateDer<'static>>, Vec<CertificateDer<'static>>) {
        let ders = |all: &[Vec<u8>]| all.iter().cloned().map(CertificateDer::from).collect();
        (ders(&self.trust.roots), ders(&self.trust.retired))
    }

    /// What ends soon.
    pub(crate) fn alarms(&self, now: i64) -> Vec<Alarm> {
        let by_hand = self.plugged_in.is_some();
        // While a rotation is under way, the next ones count.
        let (root, signer) = self.ages();
        let root = alarm("the root", root, by_hand, now);
        root.into_iter().chain(alarm("the signing certificate", signer, by_hand, now)).collect()
    }

    /// When root and signing certificate are valid.
    pub(crate) fn ages(&self) -> (Validity, Validity) {
        let authority = self.next.as_ref().unwrap_or(&self.authority);
        let of = |der: Option<&CertificateDer<'static>>| der.and_then(validity_of);
        let whole = Validity { from: 0, to: authority.not_after.unix_timestamp() };
        let own = self.kept.own.as_ref().filter(|_| self.plugged_in.is_none());
        own.and_then(|own| own.ages().ok()).unwrap_or_else(|| {
            let root = of(authority.roots.first()).unwrap_or(whole);
            (root, of(Some(&authority.certificate)).unwrap_or(whole))
        })
    }
}

/// Shared by all who need the CA.
#[derive(Debug)]
pub struct Keeper {
    shelf: Shelf,
    trust_domain: String,
    lifetimes: Lifetimes,
    rules: Rules,
    roster: Roster,
    current: watch::Sender<Arc<Ca>>,
    changing: Mutex<()>,
}

impl Keeper {
    /// The CA of a directory; makes one there when it has none.
    ///
    /// # Errors
    /// When files are missing, don't fit together, or have expired.
    pub async fn in_directory(
        directory: PathBuf,
        trust_domain: &str,
        config: RotationConfig,
        leaf_lifetime: Duration,
    ) -> Result<Self, CaError> {
        Self::open(Shelf::Directory(directory), trust_domain, config, leaf_lifetime, super::now()).await
    }

    /// The CA of a cluster; makes one there when it has none.
    ///
    /// # Errors
    /// When the API server does not let us, or the CA is not a good one. Nothing is replaced, so trying again is safe.
    pub(crate) async fn in_cluster(
        cluster: &Cluster,
        trust_domain: &str,
        config: RotationConfig,
        leaf_lifetime: Duration,
    ) -> Result<Self, CaError> {
        Self::open(Shelf::Cluster(cluster.clone()), trust_domain, config, leaf_lifetime, super::now()).await
    }

    async fn open(
        shelf: Shelf,
        trust_domain: &str,
        config: RotationConfig,
        leaf_lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let span = |duration: Duration| time::Duration::try_from(duration).unwrap_or(time::Duration::MAX);
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let lifetimes = Lifetimes {
            root: span(config.root_lifetime),
            signer: span(config.signer_lifetime),
            leaf: span(leaf_lifetime),
        };
        let rules = Rules {
            settle_s: seconds(config.settle),
            lifetime_s: seconds(leaf_lifetime),
            rotate_at: config.rotate_at,
        };
        let mut kept = shelf.read().await?;
        let made = match (&kept.plugged, &kept.own) {
            (None, None) => Some(Own::generate(trust_domain, &lifetimes, now)?),
            (None, Some(own)) if kept.is_old => Some(own.clone()),
            // Nobody was there to replace it in time: its root still can.
            (None, Some(own)) if own.authority(now).is_err() => {
                let position = own.position;
                tracing::warn!(
                    phase = position.phase.as_str(),
                    "the signing certificate can't be used; a new one is made"
                );
                Some(own.begin(Kind::Signer, trust_domain, &lifetimes, now)?)
            }
            _ => None,
        };
        if let Some(own) = made {
            own.authority(now)?;
            match shelf.write(&kept, &own).await {
                Ok(()) => tracing::info!(place = %shelf.place(), "new CA made"),
                // What is there counts, not what we made.
                Err(CaError::Conflict) => tracing::info!("another replica was first to make the CA"),
                // It can be used as it is; that it can't be rotated is said again and again.
                Err(error) if kept.is_old => {
                    tracing::warn!(%error, "the CA of an earlier version can't be rotated");
                }
                Err(error) => return Err(error),
            }
            kept = shelf.read().await?;
        } else if let (Shelf::Directory(directory), None, Some(own)) = (&shelf, &kept.plugged, &kept.own) {
            // An earlier controller may have ended between the document and its copies.
            directory::copy(directory, own)?;
            kept = shelf.read().await?;
        }
        let ca = ca_of(kept, None, rules, now)?;
        Ok(Self {
            shelf,
            trust_domain: trust_domain.to_owned(),
            lifetimes,
            rules,
            roster: Roster::default(),
            current: watch::Sender::new(Arc::new(ca)),
            changing: Mutex::default(),
        })
    }

    /// The CA of now.
    pub fn current(&self) -> Arc<Ca> {
        self.current.borrow().clone()
    }

    /// Who is connected.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Begins a rotation, on whichever replica.
    ///
    /// # Errors
    /// When the CA is not ours, a rotation is under way, or it can't be written. Nothing has changed then.
    pub(crate) async fn rotate(&self, kind: Kind, now: OffsetDateTime) -> Result<(), CaError> {
        self.change(now, |own| {
            if own.position.phase != Phase::Steady {
                return Err(CaError::Busy(own.position.phase.as_str()));
            }
            Ok(Some(own.begin(kind, &self.trust_domain, &self.lifetimes, now)?))
        })
        .await
    }

    /// Ends what was proven by roots that were dropped.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn forget(&self, now: OffsetDateTime) -> Result<(), CaError> {
        self.change(now, |own| Ok(Some(own.forget()))).await
    }

    /// Changes our own CA as `to` says, as often as others are faster.
    async fn change(
        &self,
        now: OffsetDateTime,
        to: impl Fn(&Own) -> Result<Option<Own>, CaError>,
    ) -> Result<(), CaError> {
        let _changing = self.changing.lock().await;
        let mut attempts = 0;
        loop {
            let kept = self.shelf.read().await?;
            let own = match (&kept.plugged, &kept.own) {
                (None, Some(own)) => own,
                (Some((place, _)), _) => return Err(CaError::PluggedIn(place.clone())),
                (None, None) => return Err(CaError::Conflict),
            };
            let Some(changed) = to(own)? else { return self.adopt(kept, now) };
            // What can't be used is not written.
            changed.authority(now)?;
            attempts += 1;
            match self.shelf.write(&kept, &changed).await {
                Err(CaError::Conflict) if attempts < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(()) => return self.adopt(self.shelf.read().await?, now),
            }
        }
    }

    /// Takes up what lies there, unless it is what is known.
    fn adopt(&self, kept: Kept, now: OffsetDateTime) -> Result<(), CaError> {
        let current = self.current();
        if kept.mark == current.kept.mark {
            return Ok(());
        }
        let ca = ca_of(kept, Some(&current), self.rules, now)?;
        tracing::info!(
            phase = ca.position.phase.as_str(),
            trust = ca.trust.id,
            signer = ca.trust.signer,
            plugged_in = ca.plugged_in.is_some(),
            "the CA is another"
        );
        self.current.send_replace(Arc::new(ca));
        Ok(())
    }

    /// Takes the next step, if it is due.
    async fn step(&self, progress: &Progress, now: OffsetDateTime) -> Result<(), CaError> {
        let current = self.current();
        let mut rules = self.rules;
        if current.plugged_in.is_some() {
            // Nobody but the operator begins.
            rules.rotate_at = None;
        }
        let seconds = now.unix_timestamp();
        let Some(step) = next(&current.position, current.ages(), progress, &rules, seconds) else {
            return Ok(());
        };
        tracing::info!(
            ?step, nodes = progress.nodes, with_bundle = progress.with_bundle, renewed = progress.renewed,
            behind = ?progress.behind, "the rotation goes on"
        );
        if current.plugged_in.is_some() {
            let ca = current.plugged_step(step, self.rules, seconds);
            self.current.send_replace(Arc::new(ca));
            return Ok(());
        }
        let at = current.position;
        self.change(now, |own| {
            if own.position != at {
                // Another replica led, and has gone on.
                return Ok(None);
            }
            Ok(Some(match step {
                Step::Begin(kind) => own.begin(kind, &self.trust_domain, &self.lifetimes, now)?,
                Step::Sign => own.sign(&self.lifetimes, now)?,
                Step::Drop => own.drop_root(&self.lifetimes, now),
                Step::Finish => own.finish(now),
            }))
        })
        .await
    }
}

impl Ca {
    /// The operator's files are all there is to know: nothing is written.
    fn plugged_step(&self, step: Step, rules: Rules, now: i64) -> Self {
        let (position, next) = match step {
            Step::Sign => (renewing(rules, now), None),
            _ => (Position::steady(now), self.next.clone()),
        };
        let authority = match step {
            Step::Sign => self.next.clone().unwrap_or_else(|| self.authority.clone()),
            _ => self.authority.clone(),
        };
        let mut trust = self.trust.clone();
        trust.signer = fingerprint(&authority.certificate);
        let plugged_in = self.plugged_in.clone();
        Self { authority, trust, position, plugged_in, next, kept: self.kept.clone() }
    }
}

fn renewing(rules: Rules, now: i64) -> Position {
    Position {
        phase: Phase::Renewing,
        kind: Kind::Signer,
        since: now,
        until: now.saturating_add(rules.lifetime_s),
    }
}

/// What lies there as a CA; `before` is the one that it follows.
fn ca_of(kept: Kept, before: Option<&Ca>, rules: Rules, now: OffsetDateTime) -> Result<Ca, CaError> {
    let seconds = now.unix_timestamp();
    // Half of the time, so that who is slow has the other half.
    let renew_within = Duration::from_secs(u64::try_from(rules.settle_s / 2).unwrap_or_default().max(1));
    if let Some((place, bundle)) = &kept.plugged {
        let bad = |error| CaError::Bundle { place: place.clone(), error };
        let authority = Arc::new(bundle.authority(now).map_err(bad)?);
        let signing = before.map(|before| &before.authority);
        let is_same = |signing: &&Arc<Authority>| signing.certificate == authority.certificate;
        let old = signing.filter(|signing| !is_same(signing) && signing.not_after > now);
        let overlaps =
            |old: &&Arc<Authority>| old.roots.first().is_some_and(|root| authority.roots.contains(root));
        let (signs, next, position) = match (signing, old) {
            (None, _) => (authority.clone(), None, Position::steady(seconds)),
            (Some(_), Some(old)) if overlaps(&old) => {
                let until = seconds.saturating_add(rules.lifetime_s);
                let position =
                    Position { phase: Phase::Distributing, kind: Kind::Root, since: seconds, until };
                (old.clone(), Some(authority.clone()), position)
            }
            (Some(_), Some(_)) => {
                tracing::warn!(place, "the new root-cert.pem does not hold the old root: nothing overlaps");
                (authority.clone(), None, renewing(rules, seconds))
            }
            (Some(_), None) => (authority.clone(), None, Position::steady(seconds)),
        };
        let trust = bundle_of(&authority.roots, &[], &signs, renew_within);
        let plugged_in = Some(place.clone());
        return Ok(Ca { authority: signs, trust, position, plugged_in, next, kept });
    }
    let own = kept.own.as_ref().ok_or(BundleError::Missing(super::own::STATE))?;
    let authority = Arc::new(own.authority(now)?);
    let trust = bundle_of(&authority.roots, &own.retired()?, &authority, renew_within);
    let position = own.position;
    Ok(Ca { authority, trust, position, plugged_in: None, next: None, kept })
}

fn bundle_of(
    roots: &[CertificateDer<'static>],
    retired: &[CertificateDer<'static>],
    signing: &Authority,
    renew_within: Duration,
) -> TrustBundle {
    let bytes = |ders: &[CertificateDer<'static>]| ders.iter().map(|der| der.to_vec()).collect::<Vec<_>>();
    let mut hash = Sha256::new();
    let mut add = |ders: &[CertificateDer<'static>]| {
        hash.update((ders.len() as u64).to_be_bytes());
        // In any order they are the same.
        for digest in ders.iter().map(Sha256::digest).collect::<BTreeSet<_>>() {
            hash.update(digest);
        }
    };
    add(roots);
    add(retired);
    let id = hex(&hash.finalize()[..12]);
    let signer = fingerprint(&signing.certificate);
    TrustBundle { id, roots: bytes(roots), retired: bytes(retired), signer, renew_within }
}

/// SHA-256 of a certificate, as agents compute it.
fn fingerprint(der: &CertificateDer<'_>) -> String {
    hex(&Sha256::digest(der))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Shelf {
    async fn read(&self) -> Result<Kept, CaError> {
        match self {
            Self::Directory(directory) => directory::read(directory),
            Self::Cluster(cluster) => secret::read(cluster).await,
        }
    }

    async fn write(&self, before: &Kept, own: &Own) -> Result<(), CaError> {
        match self {
            Self::Directory(directory) => directory::write(directory, before, own),
            Self::Cluster(cluster) => secret::write(cluster, before, own).await,
        }
    }

    fn place(&self) -> String {
        match self {
            Self::Directory(directory) => directory.display().to_string(),
            Self::Cluster(_) => "the Secret warren-ca".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
