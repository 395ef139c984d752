//! The followed directory against what editors, copies and mounted ConfigMaps do to it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel};
use warren_controller::source::manifests::{ManifestsConfig, ManifestsHandle, watch};
use warren_controller::source::{Change, SourceProblems};

const PATIENCE: Duration = Duration::from_secs(20);

struct Followed {
    directory: TempDir,
    batches: Receiver<Vec<Change>>,
    problems: SourceProblems,
    _handle: ManifestsHandle,
}

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

impl Followed {
    async fn start(prepare: impl FnOnce(&Path)) -> (Self, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let (sender, batches) = channel(16);
        let problems = SourceProblems::default();
        let mut config = ManifestsConfig::new(directory.path().to_owned());
        config.debounce = Duration::from_millis(20);
        let handle = watch(config, problems.clone(), sender).unwrap();
        let mut followed = Self { directory, batches, problems, _handle: handle };
        let first = followed.next().await;
        (followed, first)
    }

    /// The next batch: `+` and `-` before the names.
    async fn next(&mut self) -> Vec<String> {
        let batch = tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("a batch").unwrap();
        let show = |change: Change| match change {
            Change::Upsert(object) => format!("+{}", object.key().name),
            Change::Delete(key) => format!("-{}", key.name),
            Change::Refused(key, _) => format!("?{}", key.name),
        };
        batch.into_iter().map(show).collect()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }
}

#[tokio::test]
async fn an_empty_directory_is_said_to_be_empty() {
    let (mut followed, first) = Followed::start(|_| {}).await;
    assert!(first.is_empty());
    followed.write("a.yaml", &node("a"));
    assert_eq!(followed.next().await, ["+a"]);
}

#[tokio::test]
async fn editors_files_are_not_manifests_and_renames_are_whole() {
    let (mut followed, first) =
        Followed::start(|path| std::fs::write(path.join("a.yaml"), node("a")).unwrap()).await;
    assert_eq!(first, ["+a"]);
    for name in [".a.yaml.swp", "a.yaml~", "#a.yaml#", ".#a.yaml", "4913", "a.yaml.tmp", "notes.txt"] {
        followed.write(name, "kind: [broken");
    }
    followed.write("a.yaml.tmp", &node("b"));
    std::fs::rename(followed.path("a.yaml.tmp"), followed.path("a.yaml")).unwrap();
    assert_eq!(followed.next().await, ["-a", "+b"]);
    assert_eq!(followed.problems.list(), []);
}

#[tokio::test]
async fn a_file_that_is_being_written_is_not_read() {
    let (mut followed, _) =
        Followed::start(|path| std::fs::write(path.join("a.yaml"), node("a")).unwrap()).await;
    // Truncated and half-written, as seen in the middle of a copy.
    let mut file = std::fs::File::create(followed.path("a.yaml")).unwrap();
    file.write_all(b"apiVersion: v1\n").unwrap();
    followed.write("b.yaml", &node("b"));
    assert_eq!(followed.next().await, ["+b"]);
    file.write_all(b"kind: Node\nmetadata: {name: c}\n").unwrap();
    drop(file);
    assert_eq!(followed.next().await, ["-a", "+c"]);
    assert_eq!(followed.problems.list(), []);
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_in_one_step() {
    let fill = |path: &Path, version: &str, name: &str| {
        std::fs::create_dir(path.join(version)).unwrap();
        std::fs::write(path.join(version).join("a.yaml"), node(name)).unwrap();
    };
    let (mut followed, first) = Followed::start(|path| {
        fill(path, "..v1", "a");
        symlink("..v1", path.join("..data")).unwrap();
        symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    })
    .await;
    assert_eq!(first, ["+a"]);
    fill(followed.directory.path(), "..v2", "b");
    symlink("..v2", followed.path("..new")).unwrap();
    std::fs::rename(followed.path("..new"), followed.path("..data")).unwrap();
    assert_eq!(followed.next().await, ["-a", "+b"]);
}

#[tokio::test]
async fn a_directory_that_vanishes_deletes_nothing() {
    let (followed, _) = Followed::start(|path| std::fs::write(path.join("a.yaml"), node("a")).unwrap()).await;
    let away = tempfile::tempdir().unwrap();
    std::fs::rename(followed.directory.path(), away.path().join("x")).unwrap();
    let polled = tokio::time::timeout(PATIENCE, async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while followed.problems.count() == 0 {
            tick.tick().await;
        }
    });
    polled.await.expect("a problem is reported");
    assert!(followed.problems.list()[0].reason.contains("nothing changes"));
    assert!(followed.batches.is_empty());
    std::fs::rename(away.path().join("x"), followed.directory.path()).unwrap();
}

#[tokio::test]
async fn files_in_new_directories_are_found_and_leave_with_them() {
    let (mut followed, _) = Followed::start(|_| {}).await;
    std::fs::create_dir_all(followed.path("x/y")).unwrap();
    followed
        .write("x/y/a.json", "{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {\"name\": \"a\"}}");
    assert_eq!(followed.next().await, ["+a"]);
    std::fs::remove_dir_all(followed.path("x")).unwrap();
    assert_eq!(followed.next().await, ["-a"]);
}
