//! `--keep`: how to look around, until the reader has seen enough.

use std::fs;
use std::io::{self, BufRead as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Result;

use super::scene::Scene;
use crate::lab::{Lab, warren_path};

/// Prints what to try and waits for Enter; Ctrl-C ends the whole program, so nothing waits for it here.
pub(crate) fn until_told(scene: &Scene<'_>) -> Result<()> {
    let lab = scene.lab;
    let enter = write_enter(lab)?;
    let (enter, warren) = (enter.display(), warren_path().display().to_string());
    let sockets = |name: &str| lab.node(name).admin_socket().display().to_string();
    scene.story.heading("Look around (in another terminal, as root)")?;
    scene
        .story
        .say("A command in a pod (client, web-1, web-2, outsider), its cgroup and service names included:")?;
    scene.story.typed("#", &format!("{enter} client curl -s http://web.shop/"))?;
    scene.story.say("Every connection as it ends; the agent of the other node is at the other socket:")?;
    scene.story.typed("#", &format!("{warren} flows -f --admin-socket {}", sockets("n1")))?;
    scene.story.typed("#", &format!("{warren} status --admin-socket {}", sockets("n2")))?;
    scene.story.say("A pod's network, a node's network, and what passes between the nodes:")?;
    let netns = |pod: &str| lab.pod(pod).place().netns().name().to_owned();
    scene.story.typed("#", &format!("ip netns exec {} ss -tanp", netns("client")))?;
    scene.story.typed("#", &format!("ip netns exec {} ip route", lab.node("n1").place().netns().name()))?;
    let fabric = lab.fabric().netns().name();
    scene.story.typed("#", &format!("ip netns exec {fabric} tcpdump -ni n1 tcp"))?;
    scene.story.say("The cluster's objects (edit them: the controller follows) and all logs:")?;
    scene.story.typed("#", &format!("ls {0}/manifests {0}/logs", lab.dir().display()))?;
    scene.story.heading("Enter or Ctrl-C removes everything.")?;
    if io::stdin().lock().read_line(&mut String::new())? == 0 {
        // No terminal, no Enter: until a signal.
        loop {
            crate::sys::pause();
        }
    }
    Ok(())
}

/// A script that runs a command in a pod. `ip netns exec` alone would stay outside the pod's cgroup, and so outside
/// the mesh.
fn write_enter(lab: &Lab) -> Result<PathBuf> {
    let mut cases = String::new();
    for name in ["client", "web-1", "web-2", "outsider"] {
        let pod = lab.pod(name);
        let (cgroup, netns) = (pod.place().cgroup().display(), pod.place().netns().name().to_owned());
        let namespace = pod.namespace();
        cases += &format!("{name}) cgroup='{cgroup}' netns={netns} namespace={namespace} ;;\n");
    }
    let hosts = lab.dir().join("hosts");
    let text = format!(
        "#!/bin/sh\n# enter POD COMMAND...: runs a command in a pod of this demo.\nset -e\n\
         pod=$1; shift\ncase $pod in\n{cases}*) echo \"no pod $pod\" >&2; exit 2 ;;\nesac\n\
         echo $$ > \"$cgroup/cgroup.procs\"\n\
         exec ip netns exec \"$netns\" sh -c 'mount --bind \"$0\" /etc/hosts; exec \"$@\"' \
         \"{}/$namespace\" \"$@\"\n",
        hosts.display()
    );
    let path = lab.dir().join("enter");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
