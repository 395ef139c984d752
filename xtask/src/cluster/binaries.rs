//! Kubernetes' own programs, etcd and CoreDNS: built once from their Go modules, then kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{self, root, which};

/// What is built from Kubernetes' module.
const KUBERNETES: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];

/// Newer than Debian's, whose API server streams no lists.
const ETCD: &str = "etcd";

const KUBERNETES_MODULE: &str = "k8s.io/kubernetes";
const ETCD_MODULE: &str = "go.etcd.io/etcd/server/v3";
const COREDNS_MODULE: &str = "github.com/coredns/coredns";

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub(crate) fn path(&self, program: &str) -> PathBuf {
        self.folder.join(program)
    }
}

/// Why this machine can't have a cluster, if it has neither the programs nor Go to build them.
pub(crate) fn go_missing() -> Option<String> {
    let all = |folder: PathBuf| KUBERNETES.iter().chain([&ETCD]).all(|program| folder.join(program).exists());
    let there = folder().is_ok_and(all) && coredns().is_ok_and(|path| path.exists());
    if there || which("go").is_some() {
        return None;
    }
    Some("needs Go (https://go.dev/dl) to build Kubernetes' programs, once: no `go` on the PATH".to_owned())
}

/// Where Kubernetes' programs of the version that we test with are kept.
pub(crate) fn folder() -> Result<PathBuf> {
    let version = required("tests/kubernetes/go.mod", KUBERNETES_MODULE)?;
    Ok(cache()?.join("kubernetes").join(version))
}

/// Where CoreDNS is kept.
pub(crate) fn coredns() -> Result<PathBuf> {
    let version = required("tests/kubernetes/coredns/go.mod", COREDNS_MODULE)?;
    Ok(cache()?.join("coredns").join(version).join("coredns"))
}

/// Builds what is missing.
pub(crate) fn ensure() -> Result<Tools> {
    let folder = folder()?;
    let version = required("tests/kubernetes/go.mod", KUBERNETES_MODULE)?;
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    for program in KUBERNETES {
        let package = format!("{KUBERNETES_MODULE}/cmd/{program}");
        build("tests/kubernetes", &package, &flags, &folder.join(program))?;
    }
    build("tests/kubernetes", ETCD_MODULE, "-s -w", &folder.join(ETCD))?;
    build("tests/kubernetes/coredns", ".", "-s -w", &coredns()?)?;
    Ok(Tools { folder })
}

fn build(module: &str, package: &str, flags: &str, target: &Path) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    println!("building {package} into {} (once; all of Kubernetes takes about 15 minutes)", target.display());
    // A build that is killed must leave nothing that looks finished.
    let part = target.with_extension("part");
    process::run(
        Command::new("go")
            .current_dir(root().join(module))
            .env("CGO_ENABLED", "0")
            .args(["build", "-trimpath", "-ldflags", flags, "-o"])
            .arg(&part)
            .arg(package),
    )?;
    fs::rename(&part, target).with_context(|| format!("cannot rename {}", part.display()))
}

/// The version of `module` that a go.mod requires.
fn required(file: &str, module: &str) -> Result<String> {
    let text = fs::read_to_string(root().join(file)).with_context(|| format!("cannot read {file}"))?;
    version_in(&text, module).with_context(|| format!("{file} does not require {module}"))
}

fn version_in(text: &str, module: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "require");
        (words.next() == Some(module)).then(|| words.next().map(str::to_owned)).flatten()
    })
}

fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    match base {
        Some(base) => Ok(base.join("warren")),
        None => bail!("neither XDG_CACHE_HOME nor HOME is set: nowhere to keep Kubernetes' programs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_required_one() {
        let text = "module x\n\ntool (\n\tk8s.io/kubernetes/cmd/kubelet\n)\nrequire (\n\tk8s.io/kubernetes v1.36.2 // \
                    indirect\n)\n";
        assert_eq!(version_in(text, KUBERNETES_MODULE).as_deref(), Some("v1.36.2"));
        assert_eq!(version_in("require a.b/c v1.0.0", "a.b/c").as_deref(), Some("v1.0.0"));
        assert_eq!(version_in(text, COREDNS_MODULE), None);
    }

    #[test]
    fn our_modules_name_their_versions() {
        assert!(folder().is_ok_and(|path| path.to_string_lossy().contains("/v1.")));
        assert!(coredns().is_ok());
    }
}
