//! The cgroup above all pods.

use super::{CgroupError, Hierarchy};
use std::path::{Path, PathBuf};

/// Where kubelets put it, by driver: systemd, cgroupfs, and both again as kind nests them.
const PLACES: &[&str] =
    &["kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods"];

impl Hierarchy {
    /// The cgroup above all pods: the one that `own`, this process's, is below; on a node where the agent is in no
    /// pod, one of the usual places.
    ///
    /// # Errors
    /// [`CgroupError::NoPods`].
    pub fn pods(&self, own: &Path) -> Result<PathBuf, CgroupError> {
        if let Some(above) = own.ancestors().skip(1).find(|it| is_kubepods(it)) {
            return Ok(above.to_owned());
        }
        let tried: Vec<_> =
            self.mounts().iter().flat_map(|mount| PLACES.iter().map(|place| mount.join(place))).collect();
        let found = tried.iter().find(|place| place.is_dir()).cloned();
        found.ok_or(CgroupError::NoPods { tried })
    }
}

/// `kubepods` (cgroupfs), `kubepods.slice` (systemd), or `<--cgroup-root>-kubepods.slice`.
fn is_kubepods(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "kubepods" | "kubepods.slice") || name.ends_with("-kubepods.slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_pod_says_where_pods_are() {
        let hierarchy = Hierarchy::of_parts(vec!["/nowhere".into()], "/proc".into());
        for (own, pods) in [
            (
                "/c/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/cri-1.scope",
                "/c/kubepods.slice",
            ),
            ("/c/unified/k8sn1/kubepods/besteffort/podx/1", "/c/unified/k8sn1/kubepods"),
            (
                "/c/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podx.slice/1",
                "/c/kubelet.slice/kubelet-kubepods.slice",
            ),
            // A cluster in a pod of a cluster: its own.
            ("/c/kubepods/podx/1/kubepods/pody/2", "/c/kubepods/podx/1/kubepods"),
        ] {
            assert_eq!(hierarchy.pods(Path::new(own)).unwrap(), Path::new(pods), "{own}");
        }
    }

    #[test]
    fn outside_a_pod_the_usual_places_are_tried() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::of_parts(vec![root.path().to_owned()], "/proc".into());
        let own = root.path().join("system.slice/warren.service");
        let error = hierarchy.pods(&own).unwrap_err();
        assert!(
            error.to_string().contains("--pods-cgroup") && error.to_string().contains("kubelet/kubepods")
        );
        std::fs::create_dir_all(root.path().join("kubelet/kubepods")).unwrap();
        assert_eq!(hierarchy.pods(&own).unwrap(), root.path().join("kubelet/kubepods"));
        std::fs::create_dir_all(root.path().join("kubepods")).unwrap();
        assert_eq!(hierarchy.pods(&own).unwrap(), root.path().join("kubepods"));
    }
}
