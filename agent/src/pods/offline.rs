//! The file that the CNI plugin decides by while no agent answers.

use crate::control::write_atomically;
use crate::store::Mesh;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use warren_common::model::cni::{OFFLINE_FILE, Offline};

/// Which namespaces are enrolled, in memory and on disk.
#[derive(Debug, Default)]
pub(super) struct OfflineFile {
    path: Option<PathBuf>,
    /// As it is on disk, if it is.
    written: Option<Offline>,
    known: Offline,
}

impl OfflineFile {
    /// Starts from what an earlier agent left in `folder`. A damaged file is reported and counts as none.
    pub(super) fn load(folder: Option<PathBuf>, fail_open: bool) -> Self {
        let path = folder.map(|folder| folder.join(OFFLINE_FILE));
        let read = |path: &PathBuf| match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let written: Option<Offline> =
            path.as_ref().map(read).transpose().map(Option::flatten).unwrap_or_else(|error| {
                tracing::warn!(%error, file = OFFLINE_FILE, "which namespaces are enrolled is asked again");
                None
            });
        let known = Offline { fail_open, ..written.clone().unwrap_or_default() };
        Self { path, written, known }
    }

    /// Takes the mesh in, and writes the file if that changes anything. Until the controller has said which
    /// namespaces are enrolled, those of before stay.
    pub(super) fn refresh(&mut self, mesh: &Mesh, node: &str) {
        let by_pod = mesh.pods_of_node(node).filter(|workload| workload.enrolment.enrolled);
        let mut namespaces: BTreeSet<String> =
            by_pod.map(|workload| workload.namespace.to_string()).collect();
        match mesh.enrolled_namespaces() {
            Some(told) => namespaces.extend(told.iter().map(ToString::to_string)),
            None => namespaces.extend(self.known.enrolled_namespaces.iter().cloned()),
        }
        self.known.enrolled_namespaces = namespaces;
        let Some(path) = self.path.as_ref().filter(|_| self.written.as_ref() != Some(&self.known)) else {
            return;
        };
        let bytes = serde_json::to_vec(&self.known).map_err(io::Error::from);
        match bytes.and_then(|bytes| write_atomically(path, &[&bytes])) {
            Ok(()) => self.written = Some(self.known.clone()),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot write what the CNI plugin decides by while this agent is away");
            }
        }
    }

    /// Whether pods of the namespace are in the mesh, as far as is known without the pod.
    pub(super) fn enrols(&self, namespace: &str) -> bool {
        self.known.enrolled_namespaces.contains(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::pod;
    use crate::store::MeshChange;

    #[test]
    fn the_file_follows_the_controllers_word_and_survives_its_absence() {
        let folder = tempfile::tempdir().unwrap();
        let load = || OfflineFile::load(Some(folder.path().to_owned()), false);
        let saved = || {
            let bytes = std::fs::read(folder.path().join(OFFLINE_FILE)).unwrap();
            let offline: Offline = serde_json::from_slice(&bytes).unwrap();
            offline.enrolled_namespaces.into_iter().collect::<Vec<_>>().join(" ")
        };
        let mut mesh = Mesh::default();
        let mut file = load();
        mesh.apply([MeshChange::Namespaces { enrolled: vec!["bank".into()], released: vec![] }]);
        file.refresh(&mesh, "n1");
        assert_eq!(saved(), "bank");
        // A pod by its own label.
        mesh.apply([MeshChange::Workload(pod("web", "u1", &[], true))]);
        file.refresh(&mesh, "n1");
        assert_eq!(saved(), "bank shop");
        // The next agent, before the controller's word.
        let mut file = load();
        assert!(file.enrols("bank") && !file.enrols("other"));
        file.refresh(&Mesh::default(), "n1");
        assert_eq!(saved(), "bank shop");
        mesh.apply([MeshChange::Namespaces { enrolled: vec![], released: vec!["bank".into()] }]);
        file.refresh(&mesh, "n1");
        assert_eq!(saved(), "shop");
    }
}
