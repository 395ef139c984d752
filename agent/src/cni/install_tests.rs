use super::*;
use std::collections::BTreeMap;
use std::time::Instant;
use tempfile::TempDir;
use warren_common::runtime::drain;

const LIST: &str =
    r#"{"cniVersion": "1.0.0", "name": "podnet", "plugins": [ {"type": "ptp"}, {"type": "portmap"} ]}"#;
const SINGLE: &str = r#"{"cniVersion": "0.4.0", "name": "mynet", "type": "bridge"}"#;

struct Node {
    root: TempDir,
    config: InstallConfig,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("net.d")).unwrap();
        fs::create_dir(at("bin")).unwrap();
        fs::write(at("plugin"), "the plugin").unwrap();
        for (name, text) in files {
            fs::write(at("net.d").join(name), text).unwrap();
        }
        let config = InstallConfig {
            bin_dir: at("bin"),
            conf_dir: at("net.d"),
            plugin: at("plugin"),
            entry: Entry::default(),
        };
        Self { root, config }
    }

    /// Every file with its content.
    fn files(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for folder in ["bin", "net.d"] {
            for entry in fs::read_dir(self.root.path().join(folder)).unwrap().flatten() {
                let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
                found.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
        found
    }
}

#[test]
fn the_first_configuration_gets_our_entry_and_loses_it_again() {
    let node = Node::new(&[("10-a.conflist", LIST), ("20-b.conflist", LIST), ("00-readme.txt", "x")]);
    let before = node.files();
    assert_eq!(install(&node.config).unwrap(), Some(node.config.conf_dir.join("10-a.conflist")));
    let files = node.files();
    assert!(files["net.d/10-a.conflist"].contains("warren-cni"));
    assert_eq!(files["net.d/20-b.conflist"], LIST);
    assert_eq!(files["bin/warren-cni"], "the plugin");
    let mode = fs::metadata(node.config.bin_dir.join(PLUGIN)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(install(&node.config).unwrap(), None, "again");
    remove(&node.config).unwrap();
    assert_eq!(node.files(), before);
    remove(&node.config).unwrap();
}

#[test]
fn a_single_configuration_becomes_a_list_and_comes_back() {
    let node = Node::new(&[("10-a.conf", SINGLE)]);
    let before = node.files();
    assert_eq!(install(&node.config).unwrap(), Some(node.config.conf_dir.join("10-a.conflist")));
    let files = node.files();
    assert_eq!(files["net.d/10-a.conf.warren-saved"], SINGLE);
    assert!(!files.contains_key("net.d/10-a.conf") && files["net.d/10-a.conflist"].contains("warren-cni"));
    assert_eq!(install(&node.config).unwrap(), None, "again");
    // The provider writes it anew.
    fs::write(node.config.conf_dir.join("10-a.conf"), SINGLE).unwrap();
    assert!(install(&node.config).unwrap().is_some());
    assert_eq!(node.files(), files);
    remove(&node.config).unwrap();
    assert_eq!(node.files(), before);
}

#[test]
fn what_is_broken_or_not_there_is_said_and_left_alone() {
    let node = Node::new(&[("10-a.conflist", "{")]);
    let error = install(&node.config).unwrap_err().to_string();
    assert!(error.contains("10-a.conflist was left alone"), "{error}");
    assert_eq!(node.files()["net.d/10-a.conflist"], "{");
    remove(&node.config).unwrap();

    let node = Node::new(&[]);
    assert!(matches!(install(&node.config), Err(InstallError::NoConfiguration(_))));
    assert_eq!(node.files()["bin/warren-cni"], "the plugin");

    let node = Node::new(&[("10-a.conflist", LIST)]);
    fs::remove_file(&node.config.plugin).unwrap();
    assert!(install(&node.config).is_err());
    assert_eq!(node.files()["net.d/10-a.conflist"], LIST, "no entry without a plugin");
}

#[test]
fn the_plugin_stays_while_a_broken_file_may_name_it() {
    let node = Node::new(&[("10-a.conflist", LIST), ("20-b.conflist", r#"{"plugins": "warren-cni"}"#)]);
    install(&node.config).unwrap();
    assert!(remove(&node.config).is_err());
    assert!(node.files().contains_key("bin/warren-cni"));
}

#[tokio::test]
async fn what_others_undo_is_done_again() {
    let node = Node::new(&[("10-a.conflist", LIST)]);
    let (trigger, draining) = drain();
    let following = tokio::spawn(follow(node.config.clone(), draining));
    let path = node.config.conf_dir.join("10-a.conflist");
    let deadline = Instant::now() + Duration::from_secs(20);
    for round in 0..3 {
        while !fs::read_to_string(&path).unwrap().contains("warren-cni") {
            assert!(Instant::now() < deadline, "round {round}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        fs::write(&path, LIST).unwrap();
    }
    trigger.start(Duration::ZERO).await;
    following.await.unwrap();
}

#[test]
fn looking_is_no_news() {
    use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
    use notify::{Event, EventKind};
    for (kind, news) in [
        (EventKind::Access(AccessKind::Any), false),
        (EventKind::Access(AccessKind::Open(AccessMode::Any)), false),
        (EventKind::Access(AccessKind::Close(AccessMode::Write)), true),
        (EventKind::Create(CreateKind::File), true),
        (EventKind::Modify(ModifyKind::Name(RenameMode::To)), true),
    ] {
        assert_eq!(is_news(&Ok(Event::new(kind))), news, "{kind:?}");
    }
    assert!(is_news(&Err(notify::Error::generic("the queue ran over"))));
}
