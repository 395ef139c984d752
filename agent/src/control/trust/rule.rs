//! Whom to trust, from what a file says and what the controller has said. Pure.
//!
//! The file is the operator's word, and may be behind (a ConfigMap reaches a node after a minute or two) or never change.
//! What the controller says comes from somebody who was verified by what was trusted before; it is newer, but an agent that
//! was away has only what it was told before that. So:
//!
//! * The file as it was when the controller spoke: the controller's word counts.
//! * Another file that has nothing in common with the controller's word: the file counts. The CA is another one, or the agent
//!   was away for a whole rotation.
//! * Else the controller's word counts, without what has left the file since.

use std::collections::BTreeSet;
use warren_common::model::TrustBundle;

pub(super) type Der = Vec<u8>;

/// What the controller said, and the file of that moment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Told {
    pub(super) bundle: TrustBundle,
    pub(super) file: Vec<Der>,
}

/// What counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling<'a> {
    /// The file.
    File(&'a [Der]),
    /// The controller's word.
    Told(&'a TrustBundle),
    /// The same, without some of its roots.
    Less {
        /// The word.
        bundle: &'a TrustBundle,
        /// What is left of its roots; not empty.
        roots: Vec<Der>,
        /// What is left of the retired ones.
        retired: Vec<Der>,
    },
}

/// Decides; none while neither is known. `file` is none while it can't be read.
pub(super) fn rule<'a>(file: Option<&'a [Der]>, told: Option<&'a Told>) -> Option<Ruling<'a>> {
    let (file, Told { bundle, file: then }) = match (file, told) {
        (None, None) => return None,
        (Some(file), None) => return Some(Ruling::File(file)),
        (None, Some(told)) => return Some(Ruling::Told(&told.bundle)),
        (Some(file), Some(told)) => (file, told),
    };
    let set = |ders: &'a [Der]| ders.iter().collect::<BTreeSet<_>>();
    let (now, before) = (set(file), set(then));
    if now == before {
        return Some(Ruling::Told(bundle));
    }
    if !bundle.roots.iter().any(|root| now.contains(root)) {
        return Some(Ruling::File(file));
    }
    let has_left = |root: &&Der| before.contains(*root) && !now.contains(*root);
    let rest = |ders: &[Der]| ders.iter().filter(|root| !has_left(root)).cloned().collect::<Vec<_>>();
    let (roots, retired) = (rest(&bundle.roots), rest(&bundle.retired));
    if roots.len() == bundle.roots.len() {
        // That a root has left the file after the controller dropped it is in order.
        return Some(Ruling::Told(bundle));
    }
    Some(Ruling::Less { bundle, roots, retired })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ders(names: &str) -> Vec<Der> {
        names.bytes().map(|name| vec![name]).collect()
    }

    fn shown(ruling: Option<&Ruling<'_>>) -> String {
        let text = |ders: &[Der]| String::from_utf8(ders.concat()).unwrap();
        match ruling {
            None => "nobody".to_owned(),
            Some(Ruling::File(file)) => format!("file {}", text(file)),
            Some(Ruling::Told(bundle)) => format!("told {}/{}", text(&bundle.roots), text(&bundle.retired)),
            Some(Ruling::Less { roots, retired, .. }) => format!("less {}/{}", text(roots), text(retired)),
        }
    }

    #[test]
    fn the_newest_word_counts_and_doubt_is_distrust() {
        // File now; told roots, told retired, file then.
        for (file, told, expected) in [
            (None, None, "nobody"),
            (Some("a"), None, "file a"),
            (None, Some(("ab", "", "a")), "told ab/"),
            // The ConfigMap is behind, or a copy that nobody renews.
            (Some("a"), Some(("ab", "", "a")), "told ab/"),
            (Some("a"), Some(("b", "a", "a")), "told b/a"),
            // It follows, and comes in another order.
            (Some("ba"), Some(("ab", "", "ab")), "told ab/"),
            (Some("ab"), Some(("ab", "", "a")), "told ab/"),
            (Some("ab"), Some(("b", "a", "a")), "told b/a"),
            (Some("b"), Some(("b", "a", "ab")), "told b/a"),
            // Away for a whole rotation, or for its end, or for two of them.
            (Some("b"), Some(("a", "", "a")), "file b"),
            (Some("b"), Some(("ab", "", "a")), "less b/"),
            (Some("c"), Some(("ab", "", "ab")), "file c"),
            // The operator takes one out that the controller still names.
            (Some("b"), Some(("ab", "", "ab")), "less b/"),
            (Some("bc"), Some(("abc", "d", "abcd")), "less bc/"),
            // A CA made anew.
            (Some("x"), Some(("b", "a", "b")), "file x"),
        ] {
            let file = file.map(ders);
            let told = told.map(|(roots, retired, then)| Told {
                bundle: TrustBundle { roots: ders(roots), retired: ders(retired), ..TrustBundle::default() },
                file: ders(then),
            });
            assert_eq!(shown(rule(file.as_deref(), told.as_ref()).as_ref()), expected, "{file:?} {told:?}");
        }
    }
}
