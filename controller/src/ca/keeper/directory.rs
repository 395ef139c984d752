//! The CA in a directory: one file per part, and the document of a CA of our own.

use super::{CaError, Kept};
use crate::ca::bundle::{Bundle, KEY, ROOT};
use crate::ca::own::{Own, STATE};
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What lies there.
pub(super) fn read(directory: &Path) -> Result<Kept, CaError> {
    let state = text(directory, STATE)?;
    let own = state.as_deref().map(Own::decode).transpose().map_err(|error| bad(directory, error))?;
    let mut mark = Sha256::new();
    mark.update(state.as_deref().unwrap_or_default());
    for part in Bundle::NAMES {
        mark.update(text(directory, part)?.unwrap_or_default());
        mark.update([0]);
    }
    let mark = format!("{:x}", mark.finalize());
    let certificate = text(directory, crate::ca::bundle::CERTIFICATE)?;
    // Copies of ours, or of what ours were a moment ago.
    let is_ours = |own: &Own| certificate.as_deref().is_none_or(|certificate| own.knows(certificate));
    let parts = match &own {
        Some(own) if is_ours(own) => None,
        _ => Bundle::gather(|part| text(directory, part)).map_err(|error| match error {
            CaError::Bundle { error, .. } => bad(directory, error),
            error => error,
        })?,
    };
    Ok(match parts {
        Some(bundle) => match Own::adopt(&bundle, crate::ca::now()).filter(|_| own.is_none()) {
            Some(adopted) => Kept { plugged: None, own: Some(adopted), is_old: true, mark },
            None => Kept { plugged: Some((place(directory), bundle)), own, is_old: false, mark },
        },
        None => Kept { plugged: None, own, is_old: false, mark },
    })
}

fn place(directory: &Path) -> String {
    directory.display().to_string()
}

fn bad(directory: &Path, error: crate::ca::BundleError) -> CaError {
    CaError::Bundle { place: place(directory), error }
}

/// Replaces what was read as `before`, the document first: it alone counts.
pub(super) fn write(directory: &Path, before: &Kept, own: &Own) -> Result<(), CaError> {
    std::fs::create_dir_all(directory).map_err(|error| CaError::Io { path: directory.to_owned(), error })?;
    if read(directory)?.mark != before.mark {
        return Err(CaError::Conflict);
    }
    replace(directory, STATE, &own.encode(), 0o600)?;
    copy(directory, own)
}

/// Makes the parts say what the document does.
pub(super) fn copy(directory: &Path, own: &Own) -> Result<(), CaError> {
    for (part, content) in own.copies().parts() {
        if text(directory, part)?.as_deref() != Some(content) {
            replace(directory, part, content, if part == KEY { 0o600 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// The roots that agents on this machine read, where the CA is of our own.
pub(super) fn roots_are(directory: &Path, own: &Own) -> bool {
    text(directory, ROOT).is_ok_and(|text| text.as_deref() == Some(&own.copies().root))
}

/// Writes a file that appears whole or not at all.
fn replace(directory: &Path, part: &str, content: &str, mode: u32) -> Result<(), CaError> {
    let path = directory.join(part);
    let temporary = directory.join(format!("{part}.{}", std::process::id()));
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        // The new name must reach the disk too.
        std::fs::File::open(directory)?.sync_all()
    })();
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        CaError::Io { path, error }
    })
}

fn text(directory: &Path, part: &str) -> Result<Option<String>, CaError> {
    let path = directory.join(part);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CaError::Io { path, error }),
    }
}
