//! Which matches may hold for a path, so that thousands of others are not asked.
//!
//! A match with an exact path is found by hash. Prefixes are sorted, and each knows the longest other one that is a prefix of it:
//! the last prefix that is not after the path in that order has every prefix of the path among itself and those above it.
//! What is left (expressions, no path) is asked one by one. Among all of these the first in the order of declaration is looked
//! for, and nothing that comes after one that was found is asked.

use super::condition::{Path, PathTest};
use std::collections::{BTreeMap, HashMap};

/// Places of matches in the order of declaration, ascending.
type Places = Vec<u32>;

#[derive(Debug, Default)]
pub(super) struct Index {
    literal: Keys,
    // Of matches that ignore case: in lower case.
    folded: Keys,
    rest: Places,
}

#[derive(Debug, Default)]
struct Keys {
    exact: HashMap<Box<str>, Places>,
    // Sorted by text.
    prefixes: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    // The longest other one that this one begins with.
    above: Option<u32>,
    places: Places,
}

impl Index {
    /// The index of paths in the order of declaration.
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let mut index = Self::default();
        let (mut literal, mut folded) = (BTreeMap::new(), BTreeMap::new());
        for (place, path) in (0_u32..).zip(paths) {
            let (keys, prefixes) = match path.ignore_case {
                true => (&mut index.folded, &mut folded),
                false => (&mut index.literal, &mut literal),
            };
            let key = |text: &str| match path.ignore_case {
                true => text.to_ascii_lowercase().into_boxed_str(),
                false => Box::from(text),
            };
            let places = match &path.test {
                PathTest::Any | PathTest::Regex(_) => &mut index.rest,
                PathTest::Exact(text) => keys.exact.entry(key(text)).or_default(),
                PathTest::Prefix(text) | PathTest::Segments(text) => {
                    prefixes.entry(key(text)).or_insert_with(Places::new)
                }
            };
            places.push(place);
        }
        index.literal.prefixes = linked(literal);
        index.folded.prefixes = linked(folded);
        index
    }

    /// The first place of which `holds` is true, if no match but those with a place in this index can hold for `path`.
    pub(super) fn first<T>(&self, path: &str, holds: impl Fn(u32) -> Option<T>) -> Option<(u32, T)> {
        let mut search = Search { best: None, holds };
        self.literal.search(path, &mut search);
        if !self.folded.is_empty() {
            self.folded.search(&path.to_ascii_lowercase(), &mut search);
        }
        search.among(&self.rest);
        search.best
    }
}

struct Search<T, F> {
    best: Option<(u32, T)>,
    holds: F,
}

impl<T, F: Fn(u32) -> Option<T>> Search<T, F> {
    fn among(&mut self, places: &Places) {
        let end = self.best.as_ref().map_or(u32::MAX, |(place, _)| *place);
        let earlier = places.iter().take_while(|place| **place < end);
        if let Some(found) = earlier.copied().find_map(|place| Some((place, (self.holds)(place)?))) {
            self.best = Some(found);
        }
    }
}

impl Keys {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    fn search<T>(&self, path: &str, search: &mut Search<T, impl Fn(u32) -> Option<T>>) {
        if let Some(places) = self.exact.get(path) {
            search.among(places);
        }
        let after = self.prefixes.partition_point(|prefix| *prefix.text <= *path);
        let mut next = after.checked_sub(1);
        while let Some(prefix) = next.and_then(|index| self.prefixes.get(index)) {
            if path.starts_with(&*prefix.text) {
                search.among(&prefix.places);
            }
            next = prefix.above.map(|above| above as usize);
        }
    }
}

fn linked(sorted: BTreeMap<Box<str>, Places>) -> Vec<Prefix> {
    let mut all: Vec<Prefix> = Vec::with_capacity(sorted.len());
    for (text, places) in sorted {
        // The one before has among itself and those above it all that this one begins with.
        let mut above = all.len().checked_sub(1);
        while let Some(prefix) = above.and_then(|index| all.get(index)) {
            if text.starts_with(&*prefix.text) {
                break;
            }
            above = prefix.above.map(|above| above as usize);
        }
        all.push(Prefix { text, above: above.map(|above| above as u32), places });
    }
    all
}
