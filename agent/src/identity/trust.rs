//! Whether a peer that was trusted at its handshake still is.

use super::manager::Identities;
use super::tls::verify_chain;
use crate::control::Anchors;
use bytes::Bytes;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a peer proved itself with.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Leaf first.
    chain: Vec<CertificateDer<'static>>,
    at: SystemTime,
    /// The anchors that it was last found good by: these need not be asked again.
    held: Arc<Mutex<Option<Arc<Anchors>>>>,
}

/// A [`Proof`] as data.
#[derive(Clone, Debug)]
pub struct MovedProof {
    /// Seconds since 1970.
    pub at: u64,
    /// Certificates, leaf first, DER.
    pub chain: Vec<Bytes>,
}

/// Why a peer is trusted no longer.
#[derive(Debug, thiserror::Error)]
#[error("its certificate leads to none of the roots that are trusted now: {0}")]
pub struct Distrusted(#[source] rustls::Error);

impl Proof {
    /// As data, for an agent that goes on with the peer's connection.
    pub fn to_moved(&self) -> MovedProof {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        MovedProof { at, chain: self.chain.iter().map(|one| Bytes::copy_from_slice(one)).collect() }
    }

    /// As it was taken by the agent that the peer proved itself to.
    pub fn from_moved(moved: &MovedProof) -> Self {
        let chain = moved.chain.iter().map(|one| CertificateDer::from(one.to_vec())).collect();
        Self { chain, at: UNIX_EPOCH + Duration::from_secs(moved.at), held: Arc::default() }
    }

    /// Whether an open connection may have been proven by it. Its age does not matter: a certificate may expire under an open
    /// connection, and so may a root be retired in order.
    fn holds(&self, anchors: &Arc<Anchors>) -> Result<(), rustls::Error> {
        if self.held.lock().as_ref().is_some_and(|held| Arc::ptr_eq(held, anchors)) {
            return Ok(());
        }
        let (leaf, intermediates) = self.chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let at = UnixTime::since_unix_epoch(self.at.duration_since(UNIX_EPOCH).unwrap_or_default());
        verify_chain(leaf, intermediates, &anchors.open, at)?;
        *self.held.lock() = Some(Arc::clone(anchors));
        Ok(())
    }
}

impl Identities {
    /// What a finished handshake brought (`peer_certificates()`).
    pub fn proof(&self, certificates: Option<&[CertificateDer<'_>]>) -> Proof {
        let chain = certificates.unwrap_or_default().iter().map(|one| one.clone().into_owned()).collect();
        // The handshake may have begun by older roots than those of now, and a resumed one has asked none: nothing is held yet.
        Proof { chain, at: self.shared().now(), held: Arc::default() }
    }

    /// Waits until the peer is trusted no longer, which may be so already: roots may have gone since its handshake, or while
    /// nobody waited. Costs one look at its chain, and nothing more while the roots stay.
    pub async fn distrust(&self, proof: &Proof) -> Distrusted {
        let trust = &self.shared().config.trust;
        let mut changed = trust.changed();
        loop {
            if let Some(anchors) = trust.current()
                && let Err(error) = proof.holds(&anchors)
            {
                return Distrusted(error);
            }
            if changed.changed().await.is_err() {
                // The agent ends.
                return pending().await;
            }
        }
    }
}
