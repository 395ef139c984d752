use super::*;
use std::fs;
use std::os::unix::fs::symlink;

/// A node: process 1, and whoever is added.
struct World {
    root: tempfile::TempDir,
    hierarchy: Hierarchy,
}

const PODS: &str = "kubepods.slice";
const AGENT: &str = "kubepods.slice/pod1/c1";

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (mount, proc) = (root.path().join("cgroup"), root.path().join("proc"));
        let world = Self { hierarchy: Hierarchy::of_parts(vec![mount], proc), root };
        fs::create_dir_all(world.dir("")).unwrap();
        world.process(1, "systemd", "0", "init.scope", ["pid:[1]", "net:[1]"]);
        world.process(2, "warren", "0", AGENT, ["pid:[1]", "net:[2]"]);
        symlink("2", world.root.path().join("proc/self")).unwrap();
        world
    }

    fn dir(&self, cgroup: &str) -> PathBuf {
        self.root.path().join("cgroup").join(cgroup)
    }

    fn process(&self, pid: u32, comm: &str, uid: &str, cgroup: &str, [pid_ns, net_ns]: [&str; 2]) {
        let proc = self.root.path().join("proc").join(pid.to_string());
        fs::create_dir_all(proc.join("ns")).unwrap();
        fs::write(proc.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(proc.join("status"), format!("Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")).unwrap();
        fs::write(proc.join("cgroup"), format!("0::/{cgroup}\n")).unwrap();
        symlink(pid_ns, proc.join("ns/pid")).unwrap();
        symlink(net_ns, proc.join("ns/net")).unwrap();
        let dir = self.dir(cgroup);
        fs::create_dir_all(&dir).unwrap();
        let others = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        fs::write(dir.join("cgroup.procs"), format!("{others}{pid}\n")).unwrap();
    }

    fn find(&self) -> Result<PathBuf, KubeletError> {
        self.hierarchy.kubelet(&self.dir(PODS), &self.dir(AGENT)).map(|(_, cgroup)| cgroup)
    }

    fn why(&self) -> String {
        self.find().unwrap_err().to_string()
    }
}

const NODE: [&str; 2] = ["pid:[1]", "net:[1]"];
const SERVICE: &str = "system.slice/kubelet.service";

#[test]
fn the_nodes_kubelet_is_found_and_followed() {
    let world = World::new();
    assert_eq!(world.find(), Err(KubeletError::None));
    world.process(10, "kubelet", "0", SERVICE, NODE);
    assert_eq!(world.find().unwrap(), world.dir(SERVICE));
    assert!(world.hierarchy.is_kubelet(10, &world.dir(SERVICE)));
    assert!(!world.hierarchy.is_kubelet(1, &world.dir(SERVICE)));
    assert!(!world.hierarchy.is_kubelet(10, &world.dir(PODS)));
}

#[test]
fn who_only_calls_itself_kubelet_does_not_qualify() {
    let world = World::new();
    // A pod's process, also one with the node's namespaces; an ordinary user's; one in another pid namespace.
    world.process(20, "kubelet", "0", "kubepods.slice/pod2/c1", ["pid:[9]", "net:[9]"]);
    world.process(21, "kubelet", "0", "kubepods.slice/pod3/c1", NODE);
    world.process(22, "kubelet", "1000", "user.slice/a", NODE);
    world.process(23, "kubelet", "0", "docker/1", ["pid:[7]", "net:[1]"]);
    assert_eq!(world.find(), Err(KubeletError::None));
    world.process(10, "kubelet", "0", SERVICE, NODE);
    assert_eq!(world.find().unwrap(), world.dir(SERVICE));
}

#[test]
fn a_kubelet_without_a_cgroup_of_its_own_is_refused() {
    let world = World::new();
    world.process(10, "kubelet", "0", "", NODE);
    assert!(world.why().contains("the root of all cgroups"), "{}", world.why());

    let world = World::new();
    let pods = world.dir("all/kubepods");
    fs::create_dir_all(&pods).unwrap();
    world.process(10, "kubelet", "0", "all", NODE);
    let above = world.hierarchy.kubelet(&pods, &world.dir(AGENT)).unwrap_err().to_string();
    assert!(above.contains("the pods"), "{above}");

    let world = World::new();
    world.process(10, "kubelet", "0", "system.slice", NODE);
    world.process(11, "nginx", "33", "system.slice/nginx.service", NODE);
    assert!(world.why().contains("process 11"), "{}", world.why());
}

#[test]
fn root_of_the_node_may_be_beside_it() {
    let world = World::new();
    world.process(10, "k3s-server", "0", "system.slice/k3s.service", NODE);
    world.process(11, "containerd", "0", "system.slice/k3s.service", NODE);
    assert_eq!(world.find().unwrap(), world.dir("system.slice/k3s.service"));
}

#[test]
fn of_several_the_nodes_and_then_the_nearest_is_taken() {
    let world = World::new();
    let pods = world.dir("n1/kubepods");
    fs::create_dir_all(&pods).unwrap();
    world.process(10, "kubelet", "0", "n1/kubelet", ["pid:[1]", "net:[5]"]);
    world.process(11, "kubelet", "0", "n2/kubelet", ["pid:[1]", "net:[6]"]);
    let find = || world.hierarchy.kubelet(&pods, &world.dir(AGENT)).map(|(_, cgroup)| cgroup);
    assert_eq!(find().unwrap(), world.dir("n1/kubelet"));
    assert!(matches!(world.find(), Err(KubeletError::Several(..))));
    world.process(12, "kubelet", "0", SERVICE, NODE);
    assert_eq!(find().unwrap(), world.dir(SERVICE));
}
