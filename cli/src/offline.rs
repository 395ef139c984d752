//! The mesh that manifests make: read and resolved as the controller does, held as an agent does. Nobody is asked.

use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use warren_agent::explain::{Nothing, Scene};
use warren_agent::store::{Mesh, MeshChange};
use warren_common::model::{
    Enrolment, Health, Identity, PeerAuthentication, Placement, TunnelProtocol, Workload, WorkloadKind,
    WorkloadUid,
};
use warren_common::proto::MeshResource;
use warren_controller::index::{Index, RootNamespaces};
use warren_controller::resolve::{ResolveConfig, Resource, resolve};
use warren_controller::source::Change;
use warren_controller::source::manifests::parse;

/// The names that resources carry, where nobody says which.
pub(crate) fn names(domain: &str) -> ResolveConfig {
    ResolveConfig {
        cluster: "Kubernetes".into(),
        cluster_domain: domain.into(),
        trust_domain: "cluster.local".into(),
    }
}

/// The manifests of a file (`-`: standard input), or of every file below a directory in the order of their names.
///
/// # Errors
/// What can't be read; a directory without manifests.
pub(crate) fn read(path: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    let shown = path.display().to_string();
    if shown == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        files.push(("(standard input)".to_owned(), text));
        return Ok(());
    }
    let failed = || format!("cannot read {shown}");
    if !path.is_dir() {
        files.push((shown.clone(), std::fs::read_to_string(path).with_context(failed)?));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(failed)?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    let before = files.len();
    for path in paths {
        let is_manifest = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if path.is_dir() || is_manifest {
            // A directory without manifests is no mistake inside of another one.
            let _ = read(&path, files).map_err(|error| tracing::debug!(%error, "left out"));
        }
    }
    if files.len() == before {
        bail!("{shown} holds no manifest (.yaml, .yml, .json)");
    }
    Ok(())
}

/// What manifests make of a mesh.
pub(crate) struct Offline {
    mesh: Mesh,
}

impl Offline {
    /// Of these files and directories.
    ///
    /// # Errors
    /// The first thing that can't be read, with file and line.
    pub(crate) fn of(paths: &[PathBuf], domain: &str) -> Result<Self> {
        let mut files = Vec::new();
        for path in paths {
            read(path, &mut files)?;
        }
        Self::new(&files, domain)
    }

    /// Of these texts.
    fn new(files: &[(String, String)], domain: &str) -> Result<Self> {
        let mut index = Index::new(RootNamespaces::default(), domain.into());
        let mut keys = BTreeSet::new();
        for (file, text) in files {
            let parsed = match parse(text) {
                Ok(parsed) => parsed,
                Err(error) => bail!("{file}:{}: {}", error.line, error.reason),
            };
            for object in parsed.objects {
                keys.extend(index.apply(&Change::Upsert(object)));
            }
        }
        let config = names(domain);
        let mut mesh = Mesh::default();
        let resolved = keys.iter().filter_map(|key| resolve(&index, &config, key).resource);
        mesh.apply(std::iter::once(MeshChange::Policies).chain(resolved.map(change)));
        Ok(Self { mesh })
    }

    /// With this client: where the files have no such pod, a pod of that namespace without labels.
    ///
    /// # Errors
    /// When `client` is not `namespace/name`.
    pub(crate) fn with_client(mut self, client: &str) -> Result<(Self, bool)> {
        let Some((namespace, name)) = client.split_once('/') else {
            bail!("{client:?} is no client; write NAMESPACE/POD");
        };
        let known = self.mesh.workloads().any(|pod| *pod.namespace == *namespace && *pod.name == *name);
        if !known {
            let pod = made_up(namespace, name).with_context(|| format!("{client:?} is no pod's name"))?;
            self.mesh.apply([MeshChange::Workload(Arc::new(pod))]);
        }
        Ok((self, known))
    }

    /// To be looked at; chance falls the same way every time.
    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene { mesh: &self.mesh, node: None, known: &Nothing, entropy: 0, now: Instant::now() }
    }
}

fn change(resource: Resource) -> MeshChange {
    match resource {
        Resource::Address(MeshResource::Workload(workload)) => MeshChange::Workload(Arc::from(workload)),
        Resource::Address(MeshResource::Service(service)) => MeshChange::Service(Arc::from(service)),
        Resource::Namespace(name) => MeshChange::Namespaces { enrolled: vec![name], released: vec![] },
        Resource::Authorization(policy) => MeshChange::Policy(Arc::from(policy)),
        Resource::Traffic(traffic) => MeshChange::Traffic(Arc::from(traffic)),
    }
}

fn made_up(namespace: &str, name: &str) -> Result<Workload> {
    Ok(Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/{namespace}/{name}").into()),
        name: name.into(),
        namespace: namespace.into(),
        addresses: Vec::new(),
        identity: Identity::new("cluster.local", namespace, "default")?,
        node: Arc::default(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: Health::Healthy,
        owner: name.into(),
        kind: WorkloadKind::Pod,
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        services: Arc::default(),
        labels: Arc::default(),
        enrolment: Enrolment { enrolled: true, ..Enrolment::default() },
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    })
}

#[cfg(test)]
mod decisions;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_and_must_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let mut files = Vec::new();
        assert!(read(folder.path(), &mut files).is_err());
        std::fs::write(folder.path().join("b.yaml"), "").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        read(folder.path(), &mut files).unwrap();
        assert!(files.len() == 1 && files[0].0.ends_with("b.yaml"));
        assert!(read(&folder.path().join("none.yaml"), &mut files).is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error =
            Offline::new(&[("a.yaml".to_owned(), "kind: [".to_owned())], "cluster.local").err().unwrap();
        assert!(error.to_string().starts_with("a.yaml:1: "), "{error}");
        let empty = Offline::new(&[], "cluster.local").unwrap();
        assert!(empty.with_client("web").is_err());
        let (_, known) = Offline::new(&[], "cluster.local").unwrap().with_client("shop/web").unwrap();
        assert!(!known);
    }
}
