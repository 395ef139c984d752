//! On which line of a document each of its fields is.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A document reduced to where its parts are. Lines are as YAML counts them, from 1.
#[derive(Debug)]
pub(super) enum Node {
    Scalar,
    List(Vec<(u64, Node)>),
    /// Of each entry the line of its key.
    Map(Vec<(u64, String, Node)>),
}

impl Node {
    /// The line of the field at `path`, for example `spec.http[0].route`, or of as much of the path as there is (what is
    /// missing has no line). None where not even its beginning is there.
    pub(super) fn line(&self, path: &str) -> Option<u64> {
        let (line, node, rest) = self.step(path)?;
        node.line(rest).or(Some(line))
    }

    /// Its part that `path` begins with, and the rest of the path.
    fn step<'p>(&self, path: &'p str) -> Option<(u64, &Self, &'p str)> {
        match self {
            Self::Scalar => None,
            Self::List(items) => {
                let (place, rest) = path.strip_prefix('[')?.split_once(']')?;
                let (line, node) = items.get(place.parse::<usize>().ok()?)?;
                Some((*line, node, rest))
            }
            // Keys may hold points and brackets themselves, as those of labels do: the longest one that fits is meant.
            Self::Map(entries) => {
                let fits = |key: &str| {
                    let in_brackets = || path.strip_prefix('[')?.strip_prefix(key)?.strip_prefix(']');
                    let name = || path.strip_prefix('.').unwrap_or(path).strip_prefix(key);
                    let name = name().filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
                    name.or_else(in_brackets)
                };
                let found = entries.iter().filter_map(|(line, key, node)| {
                    let rest = fits(key).or_else(|| fits(&camel_case(key)))?;
                    Some((*line, node, rest))
                });
                found.min_by_key(|(_, _, rest)| rest.len())
            }
        }
    }

    /// An item of its list `items`.
    pub(super) fn item(&self, place: usize) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        let (.., items) = entries.iter().find(|(_, key, _)| key == "items")?;
        let Self::List(items) = items else { return None };
        items.get(place).map(|(_, item)| item)
    }
}

/// `perTryTimeout` of `per_try_timeout`: fields may be written either way, paths have the first.
fn camel_case(key: &str) -> String {
    let mut parts = key.split('_');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            list.push((item.referenced.line(), item.value));
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            map.push((key.defined.line(), key.value, entries.next_value()?));
        }
        Ok(Node::Map(map))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
}
