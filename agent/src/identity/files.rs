//! Keys and chains on disk, so that an agent starts while the controller is away.
//!
//! One file per identity in a folder that only the owner may enter: key and chain in one, so that they always fit
//! each other. Named by the hash of the identity, which may be longer than a file name.

use super::ca::SignedChain;
use super::keys::PrivateKey;
use crate::control::write_atomically;
use rcgen::KeyPair;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use warren_common::model::Identity;
use zeroize::Zeroizing;

/// How a certificate begins.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE";
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
    pub(super) fn load(&self, identity: &Identity) -> io::Result<Option<(PrivateKey, SignedChain)>> {
        let text = match std::fs::read_to_string(self.path.join(file_name(identity))) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let key = Zeroizing::new(KeyPair::from_pem(&text).map_err(io::Error::other)?);
        // The chain is kept for long, without the key before it.
        let chain = text.find(CERTIFICATE).and_then(|start| text.get(start..)).unwrap_or_default();
        let chain = SignedChain::from_pem(chain.to_owned()).map_err(io::Error::other)?;
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
                wipe(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Deletes a file of which nothing should be left; its bytes are overwritten first, as far as the file system writes them
/// where they were.
fn wipe(path: &Path) -> io::Result<()> {
    let overwrite = || {
        let mut file = File::options().write(true).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        file.write_all(&vec![0; length])?;
        file.sync_data()
    };
    // A disk that is full or broken must not keep the name either.
    let overwritten = overwrite();
    std::fs::remove_file(path)?;
    overwritten
}

fn file_name(identity: &Identity) -> String {
    let mut name = String::with_capacity(68);
    for byte in Sha256::digest(identity.to_string()) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + ".pem"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::keys::generate;
    use rcgen::CertificateParams;

    #[test]
    fn nothing_is_left_of_a_key_that_is_not_wanted() {
        let state = tempfile::tempdir().unwrap();
        let folder = KeyFolder::open(state.path()).unwrap();
        let identity = Identity::new("cluster.local", "shop", "cart").unwrap();
        let key = generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&*key).unwrap();
        let chain = SignedChain::from_pem(certificate.pem()).unwrap();
        folder.save(&identity, &key.serialize_pem(), &chain, || false).unwrap();
        let (loaded, held) = folder.load(&identity).unwrap().unwrap();
        assert_eq!(loaded.serialize_der(), key.serialize_der());
        assert_eq!(held.certificates, chain.certificates);
        assert!(!held.pem.contains("PRIVATE"), "the chain goes where the key must not");
        // Another name of the same file shows what is left of it.
        let path = state.path().join(FOLDER).join(file_name(&identity));
        let beside = state.path().join("beside");
        std::fs::hard_link(&path, &beside).unwrap();
        folder.sweep(Vec::new).unwrap();
        assert!(!path.exists());
        let left = std::fs::read(&beside).unwrap();
        assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
    }
}
