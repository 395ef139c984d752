//! What a pod proves itself with.

use super::chain::{CheckedChain, rfc3339};
use super::renewal::renew_at;
use super::tls::{client_config, server_config};
use crate::control::Anchors;
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use warren_common::model::Identity;
use zeroize::Zeroizing;

/// A certificate of one identity, ready for handshakes. Renewal makes a new one; connections keep theirs.
pub struct Credential {
    /// Whose it is.
    pub identity: Identity,
    /// For the tunnels its pods open. Whoever dials picks a `ServerName` per destination pod: it is the key under
    /// which sessions are resumed, and is neither sent nor checked.
    pub client: Arc<rustls::ClientConfig>,
    /// For the tunnels its pods accept.
    pub server: Arc<rustls::ServerConfig>,
    /// Differs between any two credentials of this agent, grows with time.
    pub generation: u64,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// When a new one will be asked for.
    pub renew_at: SystemTime,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 (hexadecimal) of the certificate that signed it.
    pub signer: String,
    /// What it verifies peers by.
    pub anchors: Arc<Anchors>,
}

impl Credential {
    /// `issued` is when the CA signed, if that is known: CAs set notBefore back to be safe from clock skew.
    pub(super) fn new(
        identity: Identity,
        key: &KeyPair,
        chain: CheckedChain,
        anchors: Arc<Anchors>,
        generation: u64,
        issued: Option<SystemTime>,
    ) -> Result<Self, rustls::Error> {
        let der = Zeroizing::new(key.serialize_der());
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der.as_slice()));
        let CheckedChain { certificates, not_before, not_after, serial, signer } = chain;
        let from = issued.map_or(not_before, |issued| issued.max(not_before));
        Ok(Self {
            identity,
            client: Arc::new(client_config(certificates.clone(), &der, anchors.store.clone())?),
            server: Arc::new(server_config(certificates, &der, anchors.store.clone())?),
            generation,
            not_before,
            not_after,
            renew_at: renew_at(from, not_after, rand::random()),
            serial,
            signer,
            anchors,
        })
    }

    /// How long it is still valid at `now`; none if it has expired.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok().filter(|left| !left.is_zero())
    }
}

// The TLS configurations say nothing to people and should not be searched for secrets.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("identity", &self.identity)
            .field("generation", &self.generation)
            .field("serial", &self.serial)
            .field("not_after", &rfc3339(self.not_after))
            .finish_non_exhaustive()
    }
}

/// Why there is no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No pod of this node has the identity, as far as the agent knows.
    #[error("no pod of this node is known to be {0}")]
    NotWanted(Identity),
    /// The first certificate has not come in time.
    #[error("no certificate for {identity} within {} ms: {reason}", waited.as_millis())]
    Pending {
        /// Whose.
        identity: Identity,
        /// How long it was waited for.
        waited: Duration,
        /// The CA's last failure, or that it has not answered.
        reason: Arc<str>,
    },
    /// Renewal has failed until the certificate expired.
    #[error("the certificate of {identity} expired at {not_after} and was not renewed: {reason}")]
    Expired {
        /// Whose.
        identity: Identity,
        /// When, RFC 3339.
        not_after: String,
        /// The CA's last failure.
        reason: Arc<str>,
    },
}
