//! Cuts the items out of a list while it arrives, so that a page of large objects is never held whole. Pure.
//!
//! ```text
//! {"kind":..,"metadata":{..},"items":[ {one} , {two} ]}
//!                                     |--------------|      handed out one by one
//! |----------------------------------|              |-|    the envelope, decoded at the end
//! ```

use serde::Deserialize;
use std::collections::VecDeque;

/// Longest item and longest envelope (bytes). etcd takes 1.5 MiB by default, and nobody sets more than 8 MiB.
pub(super) const LONGEST: usize = 16 << 20;
/// Depth of the list's own members, and of the array of items.
const LIST: u32 = 1;
const ITEMS: u32 = 2;

/// Why a list can't be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SplitError {
    /// One item is enormous.
    #[error("an object of the list is longer than {} MiB", LONGEST >> 20)]
    TooLong,
    /// Not a list.
    #[error("the list is malformed")]
    Malformed,
}

/// What a list says beside its items.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Envelope {
    #[serde(default)]
    pub(super) metadata: Metadata,
}

/// `ListMeta`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) resource_version: String,
    /// Where the next page begins; empty on the last one.
    pub(super) r#continue: String,
}

/// The scanner. It trusts the API server to write JSON and notices where it does not.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Of the array `items`, not of another.
    in_items: bool,
    /// The last text at the list's own level: the key, when a value follows.
    latest: Vec<u8>,
    item: Vec<u8>,
    envelope: Vec<u8>,
}

impl Splitter {
    /// Takes more of the text and adds the items that are complete now.
    pub(super) fn push(&mut self, bytes: &[u8], items: &mut VecDeque<String>) -> Result<(), SplitError> {
        for byte in bytes {
            self.step(*byte, items)?;
        }
        Ok(())
    }

    /// The list's own members, when all of it has come.
    pub(super) fn finish(self) -> Result<Envelope, SplitError> {
        if self.depth != 0 || self.in_string {
            return Err(SplitError::Malformed);
        }
        serde_json::from_slice(&self.envelope).map_err(|_| SplitError::Malformed)
    }

    fn step(&mut self, byte: u8, items: &mut VecDeque<String>) -> Result<(), SplitError> {
        if self.in_string {
            self.keep(byte)?;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ if self.depth == LIST && self.latest.len() < 16 => self.latest.push(byte),
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => {
                self.in_string = true;
                if self.depth == LIST {
                    self.latest.clear();
                }
                self.keep(byte)
            }
            b'{' | b'[' => {
                if byte == b'[' && self.depth == LIST && self.latest == b"items" {
                    self.in_items = true;
                }
                // The array's own bracket belongs to the envelope.
                let bracket = self.in_items && self.depth == LIST;
                self.depth += 1;
                if bracket { self.outside(byte) } else { self.keep(byte) }
            }
            b'}' | b']' => {
                if self.in_items && self.depth == ITEMS {
                    self.in_items = false;
                }
                self.keep(byte)?;
                self.depth = self.depth.checked_sub(1).ok_or(SplitError::Malformed)?;
                if self.in_items && self.depth == ITEMS {
                    let item = String::from_utf8(std::mem::take(&mut self.item));
                    items.push_back(item.map_err(|_| SplitError::Malformed)?);
                }
                Ok(())
            }
            // Between the items.
            b',' | b' ' | b'\n' | b'\r' | b'\t' if self.in_items && self.depth == ITEMS => Ok(()),
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) -> Result<(), SplitError> {
        match self.in_items {
            true if self.depth == ITEMS => Err(SplitError::Malformed),
            true if self.item.len() == LONGEST => Err(SplitError::TooLong),
            true => {
                self.item.push(byte);
                Ok(())
            }
            false => self.outside(byte),
        }
    }

    fn outside(&mut self, byte: u8) -> Result<(), SplitError> {
        if self.envelope.len() == LONGEST {
            return Err(SplitError::TooLong);
        }
        self.envelope.push(byte);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str, chunk: usize) -> Result<(Vec<String>, Metadata), SplitError> {
        let (mut splitter, mut items) = (Splitter::default(), VecDeque::new());
        for bytes in text.as_bytes().chunks(chunk) {
            splitter.push(bytes, &mut items)?;
        }
        Ok((items.into(), splitter.finish()?.metadata))
    }

    fn version(text: &str) -> Metadata {
        Metadata { resource_version: text.into(), ..Metadata::default() }
    }

    #[test]
    fn items_and_envelope() {
        let nested = r#"{"a":[1,{"items":[{}]}],"b":"]}\\\"{","items":[2]}"#;
        for (text, items, metadata) in [
            (r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#.to_owned(), vec![], version("7")),
            (r#"{"items":null,"metadata":{"resourceVersion":"7"}}"#.to_owned(), vec![], version("7")),
            (r#"{"kind":"items","x":[{"y":1}],"metadata":{}}"#.to_owned(), vec![], Metadata::default()),
            (
                format!(
                    "{{\n \"items\": [\n {nested},\n {{}}\n ],\n \"metadata\": {{\"continue\": \"c\"}} }}"
                ),
                vec![nested, "{}"],
                Metadata { r#continue: "c".into(), ..Metadata::default() },
            ),
        ] {
            for chunk in [1, 2, 7, 1000] {
                let found = split(&text, chunk).unwrap();
                assert_eq!(
                    (found.0, &found.1),
                    (items.iter().map(|i| (*i).to_owned()).collect(), &metadata),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in
            ["{", "}", "[]]", r#"{"items":[1]}"#, r#"{"items":[{}"#, r#"{"items":["a"]}"#, "\"", "nonsense"]
        {
            assert_eq!(split(text, 3), Err(SplitError::Malformed), "{text}");
        }
    }

    #[test]
    fn nesting_costs_nothing() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let (items, _) = split(&format!("{{\"items\":[{deep}]}}"), 4096).unwrap();
        assert_eq!(items, [deep]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut splitter = Splitter::default();
            if splitter.push(&bytes, &mut VecDeque::new()).is_ok() {
                let _ = splitter.finish();
            }
        }
    }
}
