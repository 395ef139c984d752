//! Who we are and who they are: keys and certificates of this node's identities, and the proof of the peer's.
//!
//! ```text
//!   want(identities of this node's pods)
//!        |  per identity, one task:
//!        v
//!   [load from disk] --> issue: new key, CSR --CA--> chain --check--> Credential --> swapped in, saved
//!                          ^  failed: backoff                             |
//!                          '---------------- at half-life ----------------'
//! ```
//!
//! Keys never leave the node, and a key is there only while the node has a pod of its identity (DESIGN 5).

mod ca;
mod chain;
mod credential;
mod files;
mod keys;
mod manager;
mod outside;
mod peer;
mod renewal;
mod tls;
mod trust;
mod worker;

#[cfg(test)]
mod tests;

pub use ca::{CaError, CertificateAuthority, ControllerCa, SignedChain, Signing};
pub use chain::ChainError;
pub use credential::{Credential, CredentialError};
pub(crate) use files::saved;
pub use keys::KeyError;
pub use manager::{Identities, IdentityConfig};
pub use outside::{Application, FileError, Outside, OutsideError, connect_as_pod};
pub use peer::{PeerError, peer_identity, peer_identity_at};
pub use tls::{for_dedicated, for_either, widen};
pub use trust::{Distrusted, MovedProof, Proof};
