//! Whom agents trust, and what they have made of that.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a controller says about whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// Changes with [`Self::roots`] and [`Self::retired`].
    pub id: String,
    /// DER certificates that every chain must lead to, the one of the signing certificate first. Never empty.
    pub roots: Vec<Vec<u8>>,
    /// Roots that vouch for nothing new: connections that were proven by one of them may stay open.
    pub retired: Vec<Vec<u8>>,
    /// SHA-256 of the certificate that signs now, lower-case hexadecimal.
    pub signer: String,
    /// Whoever has a certificate of another one renews it within this.
    pub renew_within: Duration,
}

/// What an agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustReport {
    /// The bundles (their ids) by which its certificates of now verify peers; one, but for moments.
    pub bundles: BTreeSet<String>,
    /// The signing certificates (as [`TrustBundle::signer`]) that its certificates of now were signed by.
    pub signers: BTreeSet<String>,
}
