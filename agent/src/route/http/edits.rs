//! Changes of headers.

use super::substitute::{Template, Values};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use warren_common::model::traffic::values::{RuleError, is_host};
use warren_common::model::traffic::{HeaderChange, HeaderChanges, RouteApi};

/// Changes of headers, compiled.
#[derive(Debug)]
pub struct HeaderEdits {
    set: Vec<(Field, Template)>,
    add: Vec<(Field, Template)>,
    remove: Vec<HeaderName>,
}

#[derive(Clone, Debug)]
enum Field {
    Authority,
    Header(HeaderName),
}

/// Changes whose values are known: they hold nothing of the request they were made of, so its headers may change.
#[derive(Debug)]
pub struct PreparedEdits<'a> {
    edits: &'a HeaderEdits,
    set: Vec<Option<HeaderValue>>,
    add: Vec<Option<HeaderValue>>,
}

impl HeaderEdits {
    pub(super) fn new(changes: &HeaderChanges, api: RouteApi) -> Result<Self, RuleError> {
        let one = |change: &HeaderChange| Ok((Field::new(&change.name)?, Template::new(change, api)?));
        Ok(Self {
            set: changes.set.iter().map(one).collect::<Result<_, RuleError>>()?,
            add: changes.add.iter().map(one).collect::<Result<_, RuleError>>()?,
            // The host can't be taken away.
            remove: changes
                .remove
                .iter()
                .filter(|name| !is_host(name))
                .map(header_name)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// The changes, with the values that their substitutions have now.
    pub fn prepare(&self, values: &Values<'_>) -> PreparedEdits<'_> {
        let all = |changes: &[(Field, Template)]| -> Vec<_> {
            changes.iter().map(|(_, template)| template.value(values)).collect()
        };
        PreparedEdits { edits: self, set: all(&self.set), add: all(&self.add) }
    }
}

impl PreparedEdits<'_> {
    /// Changes `headers`. What is returned is the new `:authority`, if there is one.
    pub fn apply(self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        let mut authority = None;
        for ((field, _), value) in self.edits.set.iter().zip(self.set) {
            match (field, value) {
                (_, None) => {}
                (Field::Authority, Some(value)) => authority = Some(value),
                (Field::Header(name), Some(value)) => {
                    headers.insert(name.clone(), value);
                }
            }
        }
        for ((field, _), value) in self.edits.add.iter().zip(self.add) {
            match (field, value) {
                (_, None) => {}
                // There is one host: what is added to it replaces it.
                (Field::Authority, Some(value)) => authority = Some(value),
                (Field::Header(name), Some(value)) => {
                    // Fails with 32,768 headers, which the limits on requests don't let in.
                    let _ = headers.try_append(name.clone(), value);
                }
            }
        }
        for name in &self.edits.remove {
            headers.remove(name);
        }
        authority
    }
}

impl Field {
    fn new(name: &Arc<str>) -> Result<Self, RuleError> {
        match is_host(name) {
            true => Ok(Self::Authority),
            false => header_name(name).map(Self::Header),
        }
    }
}

fn header_name(name: &Arc<str>) -> Result<HeaderName, RuleError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| RuleError::HeaderName(Arc::clone(name)))
}

#[cfg(test)]
mod tests {
    use super::super::RequestView;
    use super::*;
    use std::time::{Duration, SystemTime};

    fn changes(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderChanges {
        let all = |changes: &[(&str, &str)]| {
            changes
                .iter()
                .map(|(name, value)| HeaderChange { name: (*name).into(), value: (*value).into() })
                .collect()
        };
        HeaderChanges {
            set: all(set),
            add: all(add),
            remove: remove.iter().map(|name| (*name).into()).collect(),
        }
    }

    fn edited(
        changes: &HeaderChanges,
        api: RouteApi,
        before: &[(&str, &str)],
    ) -> (Vec<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let as_it_was = headers.clone();
        let request = RequestView {
            method: "GET",
            scheme: "http",
            authority: "web:80",
            path: "/p",
            query: Some("q"),
            headers: &as_it_was,
        };
        let start = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let values =
            Values { request: &request, response: None, remote: "10.0.0.1:5".parse().unwrap(), start };
        let edits = HeaderEdits::new(changes, api).unwrap();
        let authority = edits.prepare(&values).apply(&mut headers);
        let mut all: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        all.sort();
        (all, authority.map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn set_add_and_remove() {
        let before = [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")];
        let changes = changes(&[("A", "3"), ("d", "1")], &[("b", "2"), ("e", "1")], &["C", "none", "host"]);
        let (headers, authority) = edited(&changes, RouteApi::Gateway, &before);
        assert_eq!(headers, ["a=3", "b=1", "b=2", "d=1", "e=1"]);
        assert_eq!(authority, None);
    }

    #[test]
    fn the_host_is_changed_by_either_name() {
        for name in [":authority", "Host", "host"] {
            let (headers, authority) = edited(&changes(&[(name, "b")], &[], &[]), RouteApi::Istio, &[]);
            assert_eq!((headers, authority.as_deref()), (vec![], Some("b")));
            let (_, authority) = edited(&changes(&[], &[(name, "c")], &[]), RouteApi::Istio, &[]);
            assert_eq!(authority.as_deref(), Some("c"));
        }
    }

    #[test]
    fn substitutions() {
        for (value, expected) in [
            ("plain", Some("plain")),
            ("100%%", Some("100%")),
            ("%REQ(x)%", Some("1,2")),
            ("<%REQ(X)%>", Some("<1,2>")),
            ("%REQ(:authority)% %REQ(:METHOD)% %REQ(:path)%", Some("web:80 GET /p?q")),
            ("%REQ(none)%", None),
            ("-%REQ(none)%", Some("-")),
            ("%REQ(none?x):1%", Some("1")),
            ("%RESP(x)%", None),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", Some("10.0.0.1:5")),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", Some("10.0.0.1")),
            ("%START_TIME%", Some("2023-11-14T22:13:20.123Z")),
        ] {
            let changes = changes(&[("y", value)], &[], &["x"]);
            let (headers, _) = edited(&changes, RouteApi::Istio, &[("x", "1"), ("x", "2")]);
            let expected: Vec<_> = expected.into_iter().map(|value| format!("y={value}")).collect();
            assert_eq!(headers, expected, "{value}");
        }
        let (headers, _) = edited(&changes(&[("y", "50%REQ(x)%")], &[], &[]), RouteApi::Gateway, &[]);
        assert_eq!(headers, ["y=50%REQ(x)%"], "the Gateway API has no substitutions");
    }
}
