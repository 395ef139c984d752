//! The list in the CA's directory.

use super::{RevocationError, decode, encode};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use warren_common::model::Identity;

const NAME: &str = "revoked.json";

/// No file is an empty list.
pub(super) fn read(directory: &Path) -> Result<BTreeSet<Identity>, RevocationError> {
    let path = directory.join(NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) => decode(&path.display().to_string(), &text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(RevocationError::Io { path, error }),
    }
}

/// Replaces the file in one step.
pub(super) fn write(directory: &Path, list: &BTreeSet<Identity>) -> Result<(), RevocationError> {
    let path = directory.join(NAME);
    let temporary = directory.join(format!("{NAME}.{}", std::process::id()));
    let written = (|| {
        std::fs::create_dir_all(directory)?;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
        file.write_all(encode(list).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        // The new name must reach the disk too.
        std::fs::File::open(directory)?.sync_all()
    })();
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        RevocationError::Io { path, error }
    })
}
