//! Builds the kernel programs and puts the object where the agent embeds it.
//!
//! The object is committed, so that building the agent needs no BPF toolchain; beside it stands the hash of the
//! sources that it was built from, and `--check` fails when the two part. Two toolchains serve:
//!
//! * a `rustc` with a precompiled `core` for the BPF target (Debian: `rustc-web`, `libstd-rust-web-dev-bpf`);
//! * rustup's nightly with `rust-src`, which compiles `core` itself.
//!
//! Both need `bpf-linker`.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The target of every machine we run on (x86-64 and arm64 are little endian).
const TARGET: &str = "bpfel-unknown-none";
const OBJECT_DIR: &str = "agent/src/kernel/object";
const OBJECT: &str = "warren.bpf.o";
const HASHES: &str = "SOURCES.sha256";

/// What the object is built from.
const SOURCES: &[&str] = &["ebpf/src", "ebpf/Cargo.toml", "common/src/abi", "common/src/lib.rs"];
/// What the layout of maps depends on: pinned maps are taken over only between objects that agree on it.
const ABI_SOURCES: &[&str] =
    &["ebpf/src/maps.rs", "common/src/abi/mod.rs", "common/src/abi/counters.rs", "common/src/abi/events.rs"];

/// Builds the object, or with `check` only verifies that the committed one belongs to the sources.
pub fn run(check: bool) -> Result<()> {
    let root = root();
    let hashes = root.join(OBJECT_DIR).join(HASHES);
    let expected = hash_file()?;
    if check {
        let committed = fs::read_to_string(&hashes).unwrap_or_default();
        ensure!(root.join(OBJECT_DIR).join(OBJECT).exists(), "{OBJECT_DIR}/{OBJECT} is missing: {REBUILD}");
        ensure!(
            committed == expected,
            "{OBJECT_DIR}/{OBJECT} was not built from the sources as they are now: {REBUILD}"
        );
        return Ok(());
    }
    let built = Toolchain::find()?.build(&root)?;
    fs::create_dir_all(root.join(OBJECT_DIR))?;
    place_object(&built, &root.join(OBJECT_DIR).join(OBJECT))?;
    fs::write(&hashes, expected).with_context(|| format!("writing {}", hashes.display()))?;
    println!("{OBJECT_DIR}/{OBJECT} is up to date");
    Ok(())
}

const REBUILD: &str = "run `cargo xtask build-ebpf` and commit both files";

/// SHA-256 over everything the object is built from, as lower-case hex.
pub fn source_hash() -> Result<String> {
    hash(SOURCES)
}

/// The content of the file beside the object, in the format of `sha256sum`.
fn hash_file() -> Result<String> {
    Ok(format!("{}  sources\n{}  abi\n", source_hash()?, hash(ABI_SOURCES)?))
}

fn hash(sources: &[&str]) -> Result<String> {
    let root = root();
    let mut files = Vec::new();
    for source in sources {
        collect(&root, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let content = fs::read(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        hasher.update(file.to_string_lossy().as_bytes());
        hasher.update([0]);
        hasher.update((content.len() as u64).to_le_bytes());
        hasher.update(content);
    }
    let mut hex = String::new();
    for byte in hasher.finalize() {
        write!(hex, "{byte:02x}")?;
    }
    Ok(hex)
}

/// Adds the files at or beneath `path`, relative to `root`.
fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let full = root.join(path);
    if !full.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(&full).with_context(|| format!("reading {}", full.display()))? {
        collect(root, &path.join(entry?.file_name()), files)?;
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A compiler that can build for the BPF target.
enum Toolchain {
    /// A rustc whose sysroot has `core` for the target.
    Precompiled(PathBuf),
    /// rustup's nightly with rust-src.
    Nightly { rustup: PathBuf },
}

impl Toolchain {
    fn find() -> Result<Self> {
        ensure!(
            in_path("bpf-linker").is_some(),
            "bpf-linker is not in PATH. Install it with `cargo install bpf-linker --locked`; against Debian's \
             LLVM: `apt install llvm-22-dev && LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --locked \
             --no-default-features --features llvm-22`"
        );
        let candidates =
            [std::env::var_os("WARREN_BPF_RUSTC").map(PathBuf::from), Some("/usr/bin/rustc".into())];
        for rustc in candidates.into_iter().flatten() {
            if sysroot(Command::new(&rustc)).is_some_and(|sysroot| has_core(&sysroot)) {
                return Ok(Self::Precompiled(rustc));
            }
        }
        if let Some(rustup) = in_path("rustup") {
            let mut rustc = Command::new(&rustup);
            rustc.args(["run", "nightly", "rustc"]);
            if sysroot(rustc).is_some_and(|it| it.join("lib/rustlib/src/rust/library/core").exists()) {
                return Ok(Self::Nightly { rustup });
            }
        }
        bail!(
            "no Rust toolchain here can build for {TARGET}. Install one of: Debian's `rustc-web` and \
             `libstd-rust-web-dev-bpf`; or `rustup toolchain install nightly --component rust-src`"
        )
    }

    /// Builds and returns the path of the linked object.
    fn build(&self, root: &Path) -> Result<PathBuf> {
        let target_dir = root.join("ebpf/target");
        let mut command = match self {
            Self::Precompiled(rustc) => {
                let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.arg("build").env("RUSTC", rustc);
                command
            }
            Self::Nightly { rustup } => {
                let mut command = Command::new(rustup);
                command.args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"]).env_remove("RUSTC");
                command
            }
        };
        command
            .current_dir(root)
            .args(["--release", "--package", "warren-ebpf", "--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            // The BPF target's features are unstable; this is how a stable compiler agrees to use them.
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env("CARGO_ENCODED_RUSTFLAGS", flags(root));
        let status = command.status().with_context(|| format!("starting {command:?}"))?;
        ensure!(status.success(), "building the kernel programs failed ({status})");
        Ok(target_dir.join(TARGET).join("release/warren-ebpf"))
    }
}

/// Debug information becomes BTF, which the kernel wants; no path of this machine may land in it.
fn flags(root: &Path) -> OsString {
    let mut flags = OsString::from("-Cdebuginfo=2\u{1f}-Clink-arg=--btf");
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(root, "warren");
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        #[allow(deprecated, reason = "right on every system that can run the programs")]
        std::env::home_dir().map(|home| home.join(".cargo"))
    });
    // Each registry has a directory of its own, named after its host.
    let registries = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    for registry in registries.into_iter().flatten().flatten() {
        remap(&registry.path(), "crates");
    }
    flags
}

/// Copies the object without its DWARF, if there is a tool that can take it off; BTF stays.
fn place_object(built: &Path, object: &Path) -> Result<()> {
    let Some(objcopy) = objcopy() else {
        println!("no llvm-objcopy here: the object keeps its DWARF (ten times the size, same programs)");
        fs::copy(built, object).with_context(|| format!("copying to {}", object.display()))?;
        return Ok(());
    };
    let status = Command::new(&objcopy).arg("--strip-debug").arg(built).arg(object).status()?;
    ensure!(status.success(), "{} failed ({status})", objcopy.display());
    Ok(())
}

fn objcopy() -> Option<PathBuf> {
    in_path("llvm-objcopy").or_else(|| {
        let llvms = fs::read_dir("/usr/lib").ok()?.flatten();
        let tools = llvms
            .filter(|it| it.file_name().to_string_lossy().starts_with("llvm-"))
            .map(|it| it.path().join("bin/llvm-objcopy"))
            .filter(|it| it.exists());
        tools.max()
    })
}

fn sysroot(mut rustc: Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).output().ok().filter(|it| it.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().into())
}

fn has_core(sysroot: &Path) -> bool {
    let libraries = fs::read_dir(sysroot.join("lib/rustlib").join(TARGET).join("lib")).ok();
    libraries
        .into_iter()
        .flatten()
        .flatten()
        .any(|it| it.file_name().to_string_lossy().starts_with("libcore"))
}

fn in_path(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|it| it.is_file())
}
