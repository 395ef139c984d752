//! Container images from this checkout's own programs: one OCI archive (image-spec 1.1, layout) with all of them.
//!
//! Laid out like distroless/cc: the program, glibc's libraries, users, nothing else.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::binaries;
use super::tool::output;
use crate::process::{build_programs, cargo, run, target_dir};

pub(crate) const WARREN: &str = "localhost/warren:test";
pub(crate) const WORKLOAD: &str = "localhost/warren-workload:test";
pub(crate) const COREDNS: &str = "localhost/coredns:test";
/// What holds a pod's namespaces.
pub(crate) const PAUSE: &str = "localhost/pause:test";

const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n";
const NSSWITCH: &str = "hosts: files dns\n";

/// The archive of all images.
pub(crate) fn archive() -> PathBuf {
    folder().join("images.tar")
}

fn folder() -> PathBuf {
    target_dir().join("images")
}

/// Builds the workspace's programs and makes images of them.
pub(crate) fn build() -> Result<()> {
    build_programs()?;
    let oci = folder().join("oci");
    let _ = fs::remove_dir_all(&oci);
    fs::create_dir_all(oci.join("blobs/sha256")).context("cannot make the images' folder")?;
    let built = |name: &str| target_dir().join("debug").join(name);
    let mut manifests = Vec::new();
    let mut add = |programs: &[PathBuf], images: &[(&str, &[&str])]| -> Result<()> {
        let layer = Blob::layer(&oci, programs)?;
        for (image, entrypoint) in images {
            manifests.push(manifest(&oci, &layer, image, entrypoint)?);
        }
        Ok(())
    };
    add(&[built("warren"), plugin()?], &[(WARREN, &["/usr/bin/warren"])])?;
    let workload = "/usr/bin/warren-workload";
    add(&[built("warren-workload")], &[(WORKLOAD, &[workload]), (PAUSE, &[workload, "pause"])])?;
    add(&[binaries::coredns()?], &[(COREDNS, &["/usr/bin/coredns"])])?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    let write = |name: &str, value: Value| {
        fs::write(oci.join(name), value.to_string()).with_context(|| format!("cannot write {name}"))
    };
    write("index.json", index)?;
    write("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))?;
    tar(&oci, &archive())
}

/// Builds the CNI plugin as it is shipped: it runs on nodes of any kind, so it is linked statically.
pub(crate) fn plugin() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["rustc", "--profile", "plugin", "-p", "warren-cni", "--bin", "warren-cni"]);
    run(build.args(["--", "-C", "target-feature=+crt-static"]))?;
    Ok(target_dir().join("plugin/warren-cni"))
}

/// Content that is found by its hash.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    /// Moves a file to its place in the layout.
    fn adopt(oci: &Path, file: &Path) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut input = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = input.read(&mut buffer).context("cannot read a layer")?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
        }
        let size = input.metadata()?.len();
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        fs::rename(file, oci.join("blobs/sha256").join(&hex)).context("cannot move a blob")?;
        Ok(Self { digest: format!("sha256:{hex}"), size })
    }

    fn json(oci: &Path, value: &Value) -> Result<Self> {
        let file = oci.join("part");
        fs::write(&file, value.to_string()).context("cannot write a blob")?;
        Self::adopt(oci, &file)
    }

    /// A root file system with programs, stripped, and what they are linked with.
    fn layer(oci: &Path, programs: &[PathBuf]) -> Result<Self> {
        let root = folder().join("root");
        let _ = fs::remove_dir_all(&root);
        for dir in ["usr/bin", "etc", "tmp", "proc", "sys", "dev", "run", "var"] {
            fs::create_dir_all(root.join(dir)).context("cannot make a root file system")?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        for (file, text) in [("passwd", PASSWD), ("group", GROUP), ("nsswitch.conf", NSSWITCH)] {
            fs::write(root.join("etc").join(file), text).context("cannot write users")?;
        }
        for program in programs {
            for library in libraries(program)? {
                let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
                fs::create_dir_all(inside.parent().unwrap_or(&root))
                    .context("cannot make a root file system")?;
                fs::copy(&library, inside).with_context(|| format!("cannot copy {}", library.display()))?;
            }
            let name = program.file_name().context("a program has a name")?;
            let mut strip = Command::new("strip");
            output(strip.arg("--strip-debug").arg("-o").arg(root.join("usr/bin").join(name)).arg(program))?;
        }
        let archive = oci.join("part");
        tar(&root, &archive)?;
        Self::adopt(oci, &archive)
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

/// The shared libraries of a program and the loader; none if it is static.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let done = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    Ok(paths_in(&String::from_utf8_lossy(&done.stdout)))
}

fn paths_in(ldd: &str) -> Vec<PathBuf> {
    let words = ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

/// The same content makes the same archive, and so the same digest.
fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--create"]);
    tar.arg("--file").arg(archive).arg("--exclude=./part").arg("-C").arg(folder).arg(".");
    output(&mut tar).map(|_| ())
}

/// Writes an image's manifest and describes it for the index.
fn manifest(oci: &Path, layer: &Blob, image: &str, entrypoint: &[&str]) -> Result<Value> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = Blob::json(
        oci,
        &json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": ["PATH=/usr/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }),
    )?;
    let manifest = Blob::json(
        oci,
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        }),
    )?;
    let mut described = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    if let Some(fields) = described.as_object_mut() {
        fields.insert("platform".to_owned(), json!({"architecture": architecture, "os": "linux"}));
        fields.insert("annotations".to_owned(), json!({"io.containerd.image.name": image}));
    }
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t\
                    /lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths_in(text), expected.map(PathBuf::from));
        assert!(paths_in("\tnot a dynamic executable\n").is_empty());
    }
}
