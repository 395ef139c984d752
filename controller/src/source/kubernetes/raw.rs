//! An object as the API server sent it: text, of which only the head is decoded at once. Pure.
//!
//! The head is decoded without recursion into what is not needed, so that no object, however it looks inside, keeps
//! others from being read; the rest is decoded by the kind's own conversion, and fails for that object alone.

use crate::objects::Name;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Marks the end of the objects that were there when a streamed list began.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// An object that is not decoded yet.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    text: String,
    /// The text is an event of a watch, and the object a member of it.
    in_event: bool,
}

/// What every object says about itself.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Head {
    name: String,
    namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

impl Head {
    /// Namespace and name.
    pub(super) fn name(&self) -> Name {
        Name::new(self.namespace.as_str(), self.name.as_str())
    }
}

/// A head with its object.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) head: Head,
    pub(super) raw: Raw,
}

#[derive(Deserialize)]
struct Event<T> {
    object: T,
}

#[derive(Deserialize)]
struct Headed {
    #[serde(default)]
    metadata: Head,
}

/// A line of a watch.
#[derive(Debug)]
pub(super) enum Line {
    /// It appeared or changed.
    Present(Item),
    /// It is gone.
    Gone(Item),
    /// Nothing happened up to this version.
    Bookmark {
        /// To go on from.
        version: String,
        /// All that was there at the beginning has been sent.
        initial_end: bool,
    },
    /// The watch failed.
    Failed(Box<Status>),
}

impl Raw {
    /// The whole object.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        if self.in_event {
            return serde_json::from_str::<Event<T>>(&self.text).map(|event| event.object);
        }
        serde_json::from_str(&self.text)
    }
}

impl Item {
    /// An item of a list.
    pub(super) fn listed(text: String) -> Result<Self, serde_json::Error> {
        let headed: Headed = serde_json::from_str(&text)?;
        Ok(Self { head: headed.metadata, raw: Raw { text, in_event: false } })
    }

    fn watched(text: String) -> Result<Self, serde_json::Error> {
        let event: Event<Headed> = serde_json::from_str(&text)?;
        Ok(Self { head: event.object.metadata, raw: Raw { text, in_event: true } })
    }
}

impl Line {
    /// Reads a line. Types of events that are unknown are `None`.
    pub(super) fn parse(text: String) -> Result<Option<Self>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Typed {
            r#type: String,
        }
        #[derive(Deserialize)]
        struct Bookmark {
            metadata: BookmarkMetadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct BookmarkMetadata {
            resource_version: String,
            #[serde(default)]
            annotations: BTreeMap<String, String>,
        }
        let line = match serde_json::from_str::<Typed>(&text)?.r#type.as_str() {
            "ADDED" | "MODIFIED" => Self::Present(Item::watched(text)?),
            "DELETED" => Self::Gone(Item::watched(text)?),
            "BOOKMARK" => {
                let Bookmark { metadata } = serde_json::from_str::<Event<Bookmark>>(&text)?.object;
                let initial_end = metadata.annotations.contains_key(INITIAL_EVENTS_END);
                Self::Bookmark { version: metadata.resource_version, initial_end }
            }
            "ERROR" => Self::Failed(serde_json::from_str::<Event<Box<Status>>>(&text)?.object),
            _ => return Ok(None),
        };
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn line(text: &str) -> Line {
        Line::parse(text.to_owned()).unwrap().unwrap()
    }

    #[test]
    fn lines_of_a_watch() {
        let head = r#"{"metadata":{"name":"a","namespace":"n","resourceVersion":"5","managedFields":[{}]}}"#;
        let Line::Present(item) = line(&format!(r#"{{"type":"ADDED","object":{head}}}"#)) else { panic!() };
        assert_eq!((item.head.name(), item.head.resource_version.as_str()), (Name::new("n", "a"), "5"));
        assert_eq!(item.raw.decode::<Value>().unwrap(), serde_json::from_str::<Value>(head).unwrap());
        assert!(matches!(line(&format!(r#"{{"type":"DELETED","object":{head}}}"#)), Line::Gone(_)));
        let end = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        assert!(matches!(line(end), Line::Bookmark { version, initial_end: true } if version == "9"));
        let failed = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(matches!(line(failed), Line::Failed(status) if status.code == 410));
        assert!(Line::parse(r#"{"type":"NEW","object":{}}"#.to_owned()).unwrap().is_none());
        assert!(Line::parse("{}".to_owned()).is_err());
    }

    #[test]
    fn a_deep_object_has_a_head_and_fails_alone() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!(r#"{{"spec":{deep},"metadata":{{"name":"a","managedFields":{deep}}}}}"#);
        let item = Item::listed(text).unwrap();
        assert_eq!(item.head.name(), Name::new("", "a"));
        assert!(item.raw.decode::<Value>().unwrap_err().to_string().contains("recursion"));
    }
}
