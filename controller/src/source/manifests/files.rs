//! Files to changes: who defines what, and what is left when a file breaks. Pure.

use super::super::{Change, Problem};
use super::ParseError;
use crate::objects::{Key, Object};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every manifest file by its path, with its last good content.
#[derive(Debug, Default)]
pub struct FileSet {
    files: BTreeMap<Arc<str>, File>,
    /// Who defines an object; the first path wins.
    definers: BTreeMap<Key, BTreeSet<Arc<str>>>,
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<Key, Object>,
    /// Defined twice within the file; the first one counts.
    repeated: BTreeSet<Key>,
    error: Option<ParseError>,
    /// It was good once.
    good: bool,
}

impl File {
    fn of(objects: Vec<Object>) -> Self {
        let mut file = Self::default();
        for object in objects {
            match file.objects.entry(object.key()) {
                Entry::Occupied(first) => {
                    file.repeated.insert(first.key().clone());
                }
                Entry::Vacant(free) => {
                    free.insert(object);
                }
            }
        }
        file
    }
}

impl FileSet {
    /// A file was read. A bad one keeps what it held when it was last good.
    pub fn update(&mut self, path: &str, content: Result<Vec<Object>, ParseError>) -> Vec<Change> {
        let objects = match content {
            Ok(objects) => objects,
            Err(error) => {
                self.files.entry(path.into()).or_default().error = Some(error);
                return Vec::new();
            }
        };
        self.replace(path, Some(File { good: true, ..File::of(objects) }))
    }

    /// A file is bad. If it never was good, what of it must not be ignored counts nevertheless.
    pub fn refuse(&mut self, path: &str, error: ParseError, nevertheless: Vec<Object>) -> Vec<Change> {
        if let Some(file) = self.files.get_mut(path).filter(|file| file.good) {
            file.error = Some(error);
            return Vec::new();
        }
        self.replace(path, Some(File { error: Some(error), ..File::of(nevertheless) }))
    }

    /// A file is gone.
    pub fn remove(&mut self, path: &str) -> Vec<Change> {
        self.replace(path, None)
    }

    /// Paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(AsRef::as_ref)
    }

    /// Everything that is wrong right now.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (path, file) in &self.files {
            let mut report = |line, reason| problems.push(Problem { place: path.to_string(), line, reason });
            if let Some(error) = &file.error {
                report(Some(error.line), error.reason.clone());
            }
            for key in &file.repeated {
                report(None, format!("{key} is defined twice; the first definition counts"));
            }
        }
        for (key, paths) in &self.definers {
            let mut paths = paths.iter();
            let Some(winner) = paths.next() else { continue };
            problems.extend(paths.map(|path| Problem {
                place: path.to_string(),
                line: None,
                reason: format!("{key} is also defined in {winner}, which comes first and counts"),
            }));
        }
        problems
    }

    fn replace(&mut self, path: &str, file: Option<File>) -> Vec<Change> {
        let path: Arc<str> = path.into();
        let mut keys: BTreeSet<Key> = file.iter().flat_map(|file| file.objects.keys().cloned()).collect();
        keys.extend(self.files.get(&path).into_iter().flat_map(|file| file.objects.keys().cloned()));
        let before: Vec<_> = keys.iter().map(|key| self.winner(key).cloned()).collect();
        for key in &keys {
            let definers = self.definers.entry(key.clone()).or_default();
            if file.as_ref().is_some_and(|file| file.objects.contains_key(key)) {
                definers.insert(path.clone());
            } else {
                definers.remove(&path);
                if definers.is_empty() {
                    self.definers.remove(key);
                }
            }
        }
        match file {
            Some(file) => self.files.insert(path, file),
            None => self.files.remove(&path),
        };
        let changes =
            keys.into_iter().zip(before).filter_map(|(key, before)| match (before, self.winner(&key)) {
                (Some(before), Some(now)) if before == *now => None,
                (_, Some(now)) => Some(Change::Upsert(now.clone())),
                (Some(_), None) => Some(Change::Delete(key)),
                (None, None) => None,
            });
        changes.collect()
    }

    fn winner(&self, key: &Key) -> Option<&Object> {
        let path = self.definers.get(key)?.first()?;
        self.files.get(path)?.objects.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{Map, Namespace};

    fn namespace(name: &str, label: &str) -> Object {
        let labels: Map = [("v".into(), label.into())].into();
        Object::Namespace(Namespace { name: name.into(), labels })
    }

    fn bad() -> Result<Vec<Object>, ParseError> {
        Err(ParseError { line: 3, reason: "broken".into() })
    }

    #[test]
    fn a_bad_file_keeps_its_last_good_objects_until_it_is_fixed_or_gone() {
        let mut files = FileSet::default();
        assert_eq!(
            files.update("a.yaml", Ok(vec![namespace("x", "1")])),
            [Change::Upsert(namespace("x", "1"))]
        );
        assert_eq!(files.update("a.yaml", bad()), []);
        assert_eq!(files.problems().len(), 1);
        assert_eq!(files.problems()[0].to_string(), "a.yaml:3: broken");
        assert_eq!(files.update("a.yaml", Ok(vec![namespace("x", "1")])), []);
        assert_eq!(files.problems(), []);
        files.update("a.yaml", bad());
        assert_eq!(files.remove("a.yaml"), [Change::Delete(namespace("x", "1").key())]);
        assert_eq!(files.problems(), []);
    }

    #[test]
    fn of_a_file_that_never_was_good_some_counts() {
        let mut files = FileSet::default();
        let error = || ParseError { line: 3, reason: "broken".into() };
        let found = files.refuse("a.yaml", error(), vec![namespace("x", "1")]);
        assert_eq!(found, [Change::Upsert(namespace("x", "1"))]);
        assert_eq!(files.refuse("a.yaml", error(), vec![]), [Change::Delete(namespace("x", "1").key())]);
        assert_eq!(files.problems().len(), 1);
        files.update("a.yaml", Ok(vec![namespace("y", "1")]));
        assert_eq!(files.refuse("a.yaml", error(), vec![namespace("x", "1")]), [], "the last good one stays");
    }

    #[test]
    fn the_first_path_wins_and_the_second_takes_over() {
        let mut files = FileSet::default();
        files.update("b.yaml", Ok(vec![namespace("x", "b")]));
        assert_eq!(
            files.update("a.yaml", Ok(vec![namespace("x", "a")])),
            [Change::Upsert(namespace("x", "a"))]
        );
        assert_eq!(files.update("b.yaml", Ok(vec![namespace("x", "b2")])), []);
        assert_eq!(files.problems().len(), 1);
        assert_eq!(files.problems()[0].place, "b.yaml");
        assert_eq!(files.remove("a.yaml"), [Change::Upsert(namespace("x", "b2"))]);
        assert_eq!(files.problems(), []);
    }

    #[test]
    fn within_a_file_the_first_definition_counts() {
        let mut files = FileSet::default();
        let changes = files.update("a.yaml", Ok(vec![namespace("x", "1"), namespace("x", "2")]));
        assert_eq!(changes, [Change::Upsert(namespace("x", "1"))]);
        assert!(files.problems()[0].reason.contains("twice"));
    }
}
