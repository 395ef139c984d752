//! Manifests by the names of their files, and the objects that they hold. Nobody is asked.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use warren_controller::objects::{Key, Object};
use warren_controller::source::manifests::{Places, Refused, Unread, survey};

/// What files say.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Name and text of each.
    pub(crate) texts: Vec<(String, String)>,
    /// Name of each that can't be read, and why.
    pub(crate) unreadable: Vec<(String, String)>,
}

impl Files {
    /// Of files (`-`: standard input), and of directories the manifests at any depth, in the order of their names. What
    /// begins with a dot is hidden, as for the controller; nothing is read twice.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        let (mut files, mut seen) = (Self::default(), BTreeSet::new());
        for path in paths {
            let known = |files: &Self| files.texts.len() + files.unreadable.len();
            let before = known(&files);
            // A directory without manifests is no mistake inside of another one.
            if files.add(path, &mut seen) && path.is_dir() && known(&files) == before {
                files.refuse(path, "it holds no manifest (.yaml, .yml, .json)");
            }
        }
        files
    }

    /// False for what was read before, by this name or another.
    fn add(&mut self, path: &Path, seen: &mut BTreeSet<PathBuf>) -> bool {
        // What has no such name (a pipe) is taken as it is.
        if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.to_owned())) {
            return false;
        }
        if path.is_dir() {
            self.add_directory(path, seen);
            return true;
        }
        let (name, text) = if path == Path::new("-") {
            let mut text = String::new();
            ("(standard input)".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
        } else {
            (path.display().to_string(), std::fs::read_to_string(path))
        };
        match text {
            Ok(text) => self.texts.push((name, text)),
            Err(error) => self.unreadable.push((name, unreadable(&error))),
        }
        true
    }

    fn add_directory(&mut self, path: &Path, seen: &mut BTreeSet<PathBuf>) {
        let entries = std::fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>());
        let mut paths = match entries {
            Ok(paths) => paths,
            Err(error) => return self.refuse(path, &unreadable(&error)),
        };
        paths.sort();
        for path in paths {
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_manifest = path
                .extension()
                .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
            if !is_hidden && (path.is_dir() || is_manifest) {
                self.add(&path, seen);
            }
        }
    }

    fn refuse(&mut self, path: &Path, why: &str) {
        self.unreadable.push((path.display().to_string(), why.to_owned()));
    }

    /// All that they hold. Objects that do not say where they are are in `namespace`.
    pub(crate) fn objects(&self, namespace: &str) -> Objects<'_> {
        let mut all = Objects::default();
        let mut first: BTreeMap<Key, usize> = BTreeMap::new();
        for (file, text) in &self.texts {
            let survey = survey(text, namespace);
            all.values.extend(survey.values);
            all.unread.extend(survey.unread.into_iter().map(|unread| (&**file, unread)));
            all.refused.extend(survey.refused.into_iter().map(|refused| (&**file, refused)));
            for placed in survey.objects {
                let one = InFile { file, object: placed.object, places: placed.places };
                let place = *first.entry(one.object.key()).or_insert(all.objects.len());
                if let Some(first) = all.objects.get(place) {
                    all.repeated.push(Repeated::new(first, &one));
                }
                all.objects.push(one);
            }
        }
        all
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("it can't be read: {error}")
}

/// What files hold, in their order.
#[derive(Debug, Default)]
pub(crate) struct Objects<'a> {
    /// The objects. Of several of one name, the last one counts.
    pub(crate) objects: Vec<InFile<'a>>,
    /// Objects that are there more than once.
    pub(crate) repeated: Vec<Repeated>,
    /// Objects that are not read, each with its file.
    pub(crate) unread: Vec<(&'a str, Unread)>,
    /// What is wrong, each with its file.
    pub(crate) refused: Vec<(&'a str, Refused)>,
    /// All that is not wrong, of any kind, as it is written; each with its namespace.
    pub(crate) values: Vec<Value>,
}

/// An object, and where it stands.
#[derive(Debug)]
pub(crate) struct InFile<'a> {
    pub(crate) file: &'a str,
    pub(crate) object: Object,
    pub(crate) places: Places<'a>,
}

/// An object that is there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeated {
    pub(crate) object: Key,
    pub(crate) file: String,
    pub(crate) line: u64,
    /// File and line of the first one.
    pub(crate) first: String,
    /// Both say the same.
    pub(crate) alike: bool,
}

impl Repeated {
    fn new(first: &InFile<'_>, again: &InFile<'_>) -> Self {
        Self {
            object: again.object.key(),
            file: again.file.to_owned(),
            line: again.places.start(),
            first: format!("{}:{}", first.file, first.places.start()),
            alike: first.object == again.object,
        }
    }
}

impl std::fmt::Display for Repeated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.alike {
            true => write!(f, "it is also defined at {}, alike", self.first),
            false => write!(
                f,
                "it is also defined at {}, and differs: only one of them can be in force",
                self.first
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_and_must_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let read = || Files::read(&[root.to_owned()]);
        std::fs::create_dir(root.join("empty")).unwrap();
        assert!(read().unreadable[0].1.contains("no manifest"), "{:?}", read());
        for (name, text) in [("b.yaml", ""), ("notes.txt", ""), (".hidden.yaml", "x"), ("empty/a.json", "")] {
            std::fs::write(root.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("empty/again")).unwrap();
        let names: Vec<_> = read().texts.into_iter().map(|(name, _)| name).collect();
        assert!(
            names.len() == 2 && names[0].ends_with("b.yaml") && names[1].ends_with("a.json"),
            "{names:?}"
        );
        assert_eq!(read().unreadable, []);
        let twice = Files::read(&[root.to_owned(), root.join("b.yaml"), root.to_owned()]);
        assert_eq!((twice.texts.len(), twice.unreadable.len()), (2, 0));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("a.yaml"), [0xff, 0xfe]).unwrap();
        std::fs::write(root.join("b.yaml"), "").unwrap();
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("c.yaml")).unwrap();
        let files = Files::read(&[root.join("none.yaml"), root.to_owned()]);
        let names: Vec<_> =
            files.unreadable.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["none.yaml", "a.yaml", "c.yaml"]);
        assert!(files.unreadable.iter().all(|(_, why)| why.starts_with("it can't be read: ")), "{files:?}");
        assert!(files.texts.len() == 1 && files.texts[0].0.ends_with("b.yaml"));
    }

    #[test]
    fn what_is_there_twice_is_named() {
        let object = |name: &str, label: &str| {
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{of: {label}}}}}\n")
        };
        let texts = [
            ("a.yaml", format!("{}---\n{}", object("one", "a"), object("two", "a"))),
            ("b.yaml", format!("\n{}---\n{}", object("one", "a"), object("two", "b"))),
        ];
        let texts = texts.map(|(name, text)| (name.to_owned(), text)).into();
        let files = Files { texts, unreadable: vec![] };
        let said: Vec<_> = files
            .objects("default")
            .repeated
            .iter()
            .map(|it| format!("{}:{} {}: {it}", it.file, it.line, it.object))
            .collect();
        assert_eq!(
            said,
            [
                "b.yaml:2 Namespace one: it is also defined at a.yaml:1, alike",
                "b.yaml:6 Namespace two: it is also defined at a.yaml:5, and differs: only one of them can be in force",
            ]
        );
    }
}
