//! Public material that tests read and the project has no copy of: manifests of others, fixtures of suites.

use std::path::PathBuf;

/// Where it is: `../shared/data` beside the project, or what `WARREN_SAMPLES` says.
#[must_use]
pub fn directory() -> PathBuf {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("WARREN_SAMPLES").map_or(beside, PathBuf::from)
}

/// A directory of it; none, and said aloud, when it is not here.
#[must_use]
pub fn or_skip(name: &str, test: &str) -> Option<PathBuf> {
    let found = directory().join(name);
    if found.is_dir() {
        return Some(found);
    }
    // Past libtest's capture, so that it is seen; `cargo xtask test` counts it.
    let text = format!("SKIPPED: {test}: there is no {} (WARREN_SAMPLES)\n", found.display());
    let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    None
}
