//! The CA in a directory: one file per part.

use super::bundle::{Bundle, BundleError, KEY};
use super::sign::Authority;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

/// Why the CA can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A file can't be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The files don't make a CA.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Loads the CA of a directory, or makes one there when it has none.
///
/// # Errors
/// When files are missing, don't fit together, or have expired.
pub fn load_or_create(
    directory: &Path,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Authority, RootsError> {
    let bundle = match Bundle::gather(|part| read(directory, part))? {
        Some(bundle) => bundle,
        None => {
            let bundle = Bundle::generate(trust_domain, now)?;
            write(directory, &bundle)?;
            tracing::info!(directory = %directory.display(), "new CA made");
            bundle
        }
    };
    Ok(bundle.authority(now)?)
}

/// None of the files replaces one that is there.
fn write(directory: &Path, bundle: &Bundle) -> Result<(), RootsError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| RootsError::Io { path: directory.to_owned(), error })?;
    for (part, content) in bundle.parts() {
        let path = directory.join(part);
        let mode = if part == KEY { 0o600 } else { 0o644 };
        write_new(&path, content.as_bytes(), mode).map_err(|error| RootsError::Io { path, error })?;
    }
    Ok(())
}

/// Writes a file that appears whole or not at all, and replaces none.
fn write_new(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary = path.with_extension("pem.new");
    let result = (|| {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike rename(2), link(2) fails when the name is taken.
        std::fs::hard_link(&temporary, path)
    })();
    match &result {
        // Another controller's, at work right now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.exists() => {}
        _ => std::fs::remove_file(&temporary)?,
    }
    result
}

fn read(directory: &Path, part: &str) -> Result<Option<String>, RootsError> {
    let path = directory.join(part);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RootsError::Io { path, error }),
    }
}

#[cfg(test)]
#[path = "roots_tests.rs"]
mod tests;
