//! All that a file holds, for the one who wrote it: what is wrong with one object hides nothing of the others, and every field
//! has its line. Pure; any text is safe to pass in.

use super::super::kinds::ServedKind;
use super::parse::{DEFAULT_NAMESPACE, Document, Piece, Read, called, documents};
use super::places::Node;
use super::{ParseError, Unread};
use crate::objects::Object;
use serde_json::Value;
use std::rc::Rc;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Survey<'a> {
    /// Its objects, in the order of the file.
    pub objects: Vec<Placed<'a>>,
    /// Objects that the controller does not read, of kinds that say something to a mesh.
    pub unread: Vec<Unread>,
    /// What is wrong.
    pub refused: Vec<Refused>,
    /// All that is not wrong, of any kind, as it is written; each with its namespace.
    pub values: Vec<Value>,
}

/// An object, and where it stands.
#[derive(Debug)]
pub struct Placed<'a> {
    /// The object.
    pub object: Object,
    /// Where it stands.
    pub places: Places<'a>,
}

/// An object that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `Kind namespace/name`, where that much can be read.
    pub object: Option<String>,
    /// Where and why.
    pub error: ParseError,
}

/// The lines of one object's fields.
#[derive(Clone, Debug)]
pub struct Places<'a> {
    document: Document<'a>,
    fields: Option<Rc<Node>>,
    /// Its place in a list.
    item: Option<usize>,
    start: Option<u64>,
}

impl Places<'_> {
    /// The line on which it begins, counted from 1 as editors do.
    pub fn start(&self) -> u64 {
        self.document.line_of_file(self.start)
    }

    /// The line of a field, for example `spec.http[0].route[0]`; where there is none of this path, that of what it would
    /// be in.
    pub fn line(&self, path: &str) -> u64 {
        let object = self.fields.as_deref().and_then(|fields| match self.item {
            Some(place) => fields.item(place),
            None => Some(fields),
        });
        self.document.line_of_file(object.and_then(|object| object.line(path)).or(self.start))
    }
}

/// Reads what [`parse`](super::parse) reads. Objects that do not say where they are are in `namespace`.
pub fn survey<'a>(text: &'a str, namespace: &str) -> Survey<'a> {
    let mut survey = Survey::default();
    for document in documents(text) {
        let pieces = match document.pieces() {
            Ok(pieces) => pieces,
            Err(error) => {
                survey.refused.push(Refused { object: None, error });
                continue;
            }
        };
        let fields = document.decode::<Node>().ok().map(Rc::new);
        for piece in pieces {
            match piece {
                Ok(piece) => survey.add(piece, fields.clone(), namespace),
                Err(error) => survey.refused.push(Refused { object: None, error }),
            }
        }
    }
    survey
}

impl<'a> Survey<'a> {
    fn add(&mut self, piece: Piece<'a>, fields: Option<Rc<Node>>, namespace: &str) {
        let (document, start) = (piece.document, piece.start());
        let places = Places { document, fields, item: piece.item.as_ref().map(|item| item.place), start };
        let mut value = piece.value().unwrap_or_default();
        let is_moved = put(&mut value, namespace);
        let name = called(&piece.kind, &value);
        let served = ServedKind::find(&piece.version, &piece.kind);
        match piece.read() {
            Ok(Read::Object(object)) => {
                let moved = served.filter(|_| is_moved).and_then(|served| served.object(value.clone()).ok());
                self.objects.push(Placed { object: moved.unwrap_or(*object), places });
            }
            Ok(Read::Unread(unread)) => self.unread.push(Unread { object: name, ..unread }),
            Ok(Read::Nothing) => {}
            Err(error) => {
                let object = name_is_known(&value).then_some(name);
                return self.refused.push(Refused { object, error });
            }
        }
        self.values.push(value);
    }
}

fn name_is_known(object: &Value) -> bool {
    object["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty())
}

/// Puts an object that does not say where it is into `namespace`; whether that is another one than it would be in.
fn put(object: &mut Value, namespace: &str) -> bool {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let is_said = |said: Option<&Value>| said.and_then(Value::as_str).is_some_and(|said| !said.is_empty());
    let Some(metadata) = metadata.filter(|metadata| !is_said(metadata.get("namespace"))) else {
        return false;
    };
    metadata.insert("namespace".to_owned(), namespace.into());
    namespace != DEFAULT_NAMESPACE
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# first
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web}, weight: 1}
    - destination:
        host: other
      headers:
        request:
          set: {a.b.c: x, a.b: z}
    retries: {attempts: 2,
      per_try_timeout: 1s}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec:
    ports:
    - {name: http, port: 80}
- apiVersion: v1
  kind: Node
  metadata:
    name: n1
";

    #[test]
    fn every_field_has_its_line() {
        let survey = survey(TWO, "default");
        let lines = |place: usize, paths: &[&str]| -> Vec<u64> {
            paths.iter().map(|path| survey.objects[place].places.line(path)).collect()
        };
        assert_eq!(survey.objects.iter().map(|it| it.places.start()).collect::<Vec<_>>(), [2, 21, 27]);
        for (path, line) in [
            ("", 2),
            ("metadata.name", 4),
            ("spec", 5),
            ("spec.hosts[0]", 6),
            ("spec.http[0]", 8),
            ("spec.http[0].route[0].destination", 9),
            ("spec.http[0].route[1]", 10),
            ("spec.http[0].route[1].destination", 10),
            ("spec.http[0].route[1].destination.host", 11),
            ("spec.http[0].route[1].headers.request.set[a.b.c]", 14),
            ("spec.http[0].route[1].headers.request.set.a.b", 14),
            ("spec.http[0].retries.perTryTimeout", 16),
            ("spec.http[0].retries.per_try_timeout", 16),
            // What is not there is missing where it would be.
            ("spec.http[0].route[1].destination.subset", 10),
            ("spec.http[0].route[7]", 8),
            ("spec.http[0].mirror[0]", 8),
            ("spec.tcp[0]", 5),
            ("status", 2),
            ("[", 2),
            ("spec.http[x]", 7),
        ] {
            assert_eq!(lines(0, &[path]), [line], "{path}");
        }
        assert_eq!(lines(1, &["spec.ports[0].port", "spec.ports", "metadata.name", "x"]), [26, 25, 23, 21]);
        assert_eq!(lines(2, &["metadata.name"]), [30]);
    }

    #[test]
    fn aliases_lead_to_where_the_field_stands() {
        let text = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /a}}]
    route: &to
    - destination:
        host: web
  - route: *to
";
        let survey = survey(text, "default");
        let places = &survey.objects[0].places;
        assert_eq!(places.line("spec.http[1].route"), 11);
        assert_eq!(places.line("spec.http[1].route[0].destination.host"), 10);
    }

    #[test]
    fn what_is_wrong_with_one_hides_nothing_of_the_others() {
        let text = format!(
            "kind: [\n---\napiVersion: v1\n---\n{TWO}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: odd}}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {{simple: SOMEHOW}}
---
apiVersion: v1
kind: List
items:
- {{}}
- {{apiVersion: v1, kind: Service, metadata: {{name: bad}}, spec: {{clusterIP: x}}}}
- {{apiVersion: v1, kind: Service, metadata: {{name: good}}}}
"
        );
        let survey = survey(&text, "shop");
        let keys: Vec<_> = survey.objects.iter().map(|it| it.object.key().to_string()).collect();
        assert_eq!(keys, ["VirtualService shop/a", "Service shop/web", "Node n1", "Service shop/good"]);
        let refused: Vec<_> = survey.refused.iter().map(|it| (it.error.line, it.object.as_deref())).collect();
        assert_eq!(
            refused,
            [
                (1, None),
                (3, None),
                (42, Some("DestinationRule shop/odd")),
                (47, None),
                (48, Some("Service shop/bad")),
            ]
        );
        assert!(survey.refused[2].error.reason.starts_with("spec.trafficPolicy.loadBalancer.simple: "));
    }

    #[test]
    fn objects_are_where_they_say_or_where_they_are_put() {
        let text = "{apiVersion: v1, kind: Service, metadata: {name: a}}
---
{apiVersion: v1, kind: Service, metadata: {name: b, namespace: bank}}
---
{apiVersion: networking.istio.io/v1, kind: EnvoyFilter, metadata: {name: c}}
";
        let survey = survey(text, "shop");
        let keys: Vec<_> = survey.objects.iter().map(|it| it.object.key().to_string()).collect();
        assert_eq!(keys, ["Service shop/a", "Service bank/b"]);
        assert_eq!(survey.unread[0].object, "EnvoyFilter shop/c");
    }
}
