//! Running other programs: said aloud, in the workspace's root, with an error that names the command.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace's root, whatever folder `cargo xtask` was called from.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// What is built for this machine. Always the same selection: cargo chooses dependencies' features by it, and would
/// build them anew for another.
pub(crate) const HOST_CRATES: &[&str] =
    &["--workspace", "--exclude", "warren-ebpf", "--exclude", "warren-fuzz"];

/// Builds all programs, as the tests have them. There are no examples: naming them makes the features of dev-dependencies
/// count as they do in `cargo test`, which would build everything anew otherwise.
pub(crate) fn build_programs() -> Result<()> {
    run(cargo().arg("build").args(HOST_CRATES).args(["--bins", "--examples"]))
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The target directory of this workspace.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Shows the command, runs it, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    eprintln!("+ {shown}");
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Shows the command and becomes it, so that Ctrl-C is its own to handle and nobody returns to the prompt before it.
pub(crate) fn exec(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let shown = show(command);
    eprintln!("+ {shown}");
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{shown}`"))
}

/// The command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The triple of this machine.
pub(crate) fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" }
}

/// Whether the effective user is root.
pub(crate) fn is_root() -> bool {
    // /proc/self belongs to the effective user; std alone has no geteuid.
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Finds a program where root would find it.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}
