//! Keys and chains on disk, so that an agent starts while the controller is away.
//!
//! One file per identity in a folder that only the owner may enter: key and chain in one, so that they always fit
//! each other. Named by the hash of the identity, which may be longer than a file name.

use super::ca::SignedChain;
use crate::control::write_atomically;
use rcgen::KeyPair;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use warren_common::model::Identity;

/// The name of the folder of keys in the state directory.
const FOLDER: &str = "certs";

/// What an agent keeps in its state directory.
pub(crate) fn saved(state_dir: &Path) -> impl Iterator<Item = PathBuf> {
    std::iter::once(state_dir.join(FOLDER))
}

/// The folder of keys.
#[derive(Debug)]
pub(super) struct KeyFolder {
    path: PathBuf,
    // Deleting what is not wanted and saving what is must not cross.
    changing: Mutex<()>,
}

impl KeyFolder {
    /// Opens (or makes) `certs` in the state directory, for the owner alone.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        Ok(Self { path, changing: Mutex::default() })
    }

    /// The key and chain of an identity, if they are there. Nothing about them is checked yet.
    pub(super) fn load(&self, identity: &Identity) -> io::Result<Option<(KeyPair, SignedChain)>> {
        let text = match std::fs::read_to_string(self.path.join(file_name(identity))) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let key = KeyPair::from_pem(&text).map_err(io::Error::other)?;
        let chain = SignedChain::from_pem(text).map_err(io::Error::other)?;
        Ok(Some((key, chain)))
    }

    /// Saves key and chain unless `unwanted` says, at that moment, that nobody needs them any more.
    pub(super) fn save(
        &self,
        identity: &Identity,
        key_pem: &str,
        chain: &SignedChain,
        unwanted: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if unwanted() {
            return Ok(());
        }
        let path = self.path.join(file_name(identity));
        write_atomically(&path, &[key_pem.as_bytes(), b"\n", chain.pem.as_bytes()])
    }

    /// Deletes every file that belongs to none of the identities that `wanted` names at that moment.
    pub(super) fn sweep(&self, wanted: impl FnOnce() -> Vec<Identity>) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keep: BTreeSet<OsString> = wanted().iter().map(|identity| file_name(identity).into()).collect();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if !keep.contains(&entry.file_name()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn file_name(identity: &Identity) -> String {
    let mut name = String::with_capacity(68);
    for byte in Sha256::digest(identity.to_string()) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + ".pem"
}
