//! The text of a manifest file to objects. Pure; any text is safe to pass in.

use super::super::ConvertError;
use super::super::convert::shorten;
use super::super::custom::stand_in;
use super::super::kinds::{Decode, MESH_GROUPS, ServedKind, decode};
use super::meant::meant;
use super::places::Node;
use crate::objects::{Kind, Object};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::{Options, Spanned};

/// Why a file could not be used, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// Line of the file, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// What every object begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Option<Vec<Spanned<Value>>>,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// The objects, in the order of the file.
    pub objects: Vec<Object>,
    /// Objects that the controller does not read, of kinds that say something to a mesh.
    pub unread: Vec<Unread>,
}

/// An object that somebody expects something of, and that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The line on which it begins, counted from 1.
    pub line: u64,
    /// `Kind namespace/name`.
    pub object: String,
    /// Its `apiVersion`.
    pub version: String,
    /// There is no such kind; this one may be meant: its name and its `apiVersion`.
    pub meant: Option<String>,
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, meant, .. } = self;
        match meant {
            Some(meant) => {
                write!(f, "there is no such kind ({version}), so it has no effect; is {meant} meant?")
            }
            None => write!(f, "objects of this kind ({version}) are not applied yet: it has no effect"),
        }
    }
}

/// Where an object is that does not say where.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Reads every object of a file of YAML documents (JSON is YAML). Empty documents are skipped, lists are unpacked
/// (`kind: List`, and those of one kind), kinds that the controller does not read are left out, and named if they are for a
/// mesh or look like one that is read.
///
/// # Errors
/// The first thing that is wrong, with its line in `text`. Hostile input (deep nesting, alias bombs) is an error.
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    for document in documents(text) {
        for piece in document.pieces()? {
            match piece?.read()? {
                Read::Object(object) => parsed.objects.push(*object),
                Read::Unread(unread) => parsed.unread.push(unread),
                Read::Nothing => {}
            }
        }
    }
    Ok(parsed)
}

/// What counts of a file that [`parse`] refuses and that never was good: its AuthorizationPolicies, for without them pods
/// would be more open than somebody meant. Those that can't be used are stood in for.
pub fn nevertheless(text: &str) -> Vec<Object> {
    documents(text).iter().flat_map(Document::policies).collect()
}

/// One YAML document and where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    /// Lines of the file before it.
    lines_before: u64,
}

/// Splits at lines that begin with `---`. That is exact: YAML ends a document there even inside a block
/// scalar or a quoted text (YAML 1.2, c-forbidden).
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            documents.push(Document { text: &text[start..at], lines_before: first_line });
            (start, first_line) = (at, number as u64);
        }
        at += line.len();
    }
    documents.push(Document { text: &text[start..], lines_before: first_line });
    documents.retain(|document| !document.is_empty());
    documents
}

impl<'a> Document<'a> {
    /// Nothing but markers, comments and directives.
    fn is_empty(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line == "---" || line == "..." || line.starts_with(['#', '%'])
        })
    }

    /// The objects that it holds: one, or those of a list.
    pub(super) fn pieces(self) -> Result<Vec<Result<Piece<'a>, ParseError>>, ParseError> {
        let Some(head) = self.decode::<Option<Head>>()? else {
            return Ok(Vec::new());
        };
        let kind = head.kind.ok_or_else(|| self.error(None, "kind is missing"))?;
        let version = head.api_version.ok_or_else(|| self.error(None, "apiVersion is missing"))?;
        let piece = |version, kind| Ok(vec![Ok(Piece { document: self, version, kind, item: None })]);
        let Some(of) = kind.strip_suffix("List") else { return piece(version, kind) };
        let is_general = (version.as_str(), of) == ("v1", "");
        let items = match self.decode::<List>()?.items {
            Some(items) => items,
            None if is_general => return Ok(Vec::new()),
            None => return piece(version, kind),
        };
        // The items of a list of one kind need not say it again.
        let of_list = (!is_general).then_some((&*version, of));
        let items = items.into_iter().enumerate();
        Ok(items.map(|(place, item)| self.item(of_list, place, item)).collect())
    }

    fn item(
        self,
        of_list: Option<(&str, &str)>,
        place: usize,
        item: Spanned<Value>,
    ) -> Result<Piece<'a>, ParseError> {
        let (line, mut value) = (item.referenced.line(), item.value);
        let field = |name: &'static str, of_list: Option<&str>| {
            let text = value.get(name).and_then(Value::as_str).or(of_list).map(str::to_owned);
            text.ok_or_else(|| self.error(Some(line), format!("{name} of a list's item is missing")))
        };
        let version = field("apiVersion", of_list.map(|(version, _)| version))?;
        let kind = field("kind", of_list.map(|(_, kind)| kind))?;
        if let (Some(_), Some(fields)) = (of_list, value.as_object_mut()) {
            fields.insert("apiVersion".to_owned(), version.as_str().into());
            fields.insert("kind".to_owned(), kind.as_str().into());
        }
        Ok(Piece { document: self, version, kind, item: Some(Item { place, line, value }) })
    }

    fn policies(&self) -> Vec<Object> {
        let Ok(value) = self.decode::<Value>() else { return Vec::new() };
        let of = value["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap_or_default();
        let list = (value["apiVersion"].as_str().unwrap_or_default(), of);
        let items = match value["items"].as_array() {
            Some(items) if value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
            _ => vec![value.clone()],
        };
        let policy = |item: Value| {
            let field = |name: &str, of_list| item[name].as_str().unwrap_or(of_list);
            let served = ServedKind::find(field("apiVersion", list.0), field("kind", list.1))?;
            match served.kind {
                Kind::AuthorizationPolicy => {
                    let object = served.object(item.clone());
                    object.map_or_else(|error| stand_in(&item, &error.to_string()), Some)
                }
                _ => None,
            }
        };
        items.into_iter().filter_map(policy).collect()
    }

    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, ParseError> {
        serde_saphyr::from_str_with_options(self.text, options()).map_err(|error| {
            let mut reason = error.without_snippet().to_string();
            let Some(location) = error.location() else { return self.error(None, reason) };
            // The parser counts lines from the document's start; ours is the file's, and stands before the reason.
            let suffix = format!(" at line {}, column {}", location.line(), location.column());
            if let Some(message) = reason.strip_suffix(&suffix) {
                reason = format!("{message} (column {})", location.column());
            }
            self.error(Some(location.line()), reason)
        })
    }

    /// `line` counts within the document; without one the document's first line is named.
    fn error(&self, line: Option<u64>, reason: impl Into<String>) -> ParseError {
        ParseError { line: self.line_of_file(line), reason: shorten(&reason.into()) }
    }

    /// The same line, counted as editors count those of the whole file.
    pub(super) fn line_of_file(&self, line: Option<u64>) -> u64 {
        let line = line.filter(|line| *line > 0).map(|line| editor_line(self.text, line));
        self.lines_before + line.unwrap_or_else(|| self.first_line())
    }

    fn first_line(&self) -> u64 {
        let skipped = self.text.lines().take_while(|line| {
            let line = line.trim();
            line.is_empty() || line == "---" || line.starts_with('#')
        });
        skipped.count() as u64 + 1
    }
}

/// The line that editors show for a line as YAML counts: YAML 1.2 also breaks lines at a lone CR, editors do not.
fn editor_line(text: &str, yaml_line: u64) -> u64 {
    let (mut yaml, mut editor) = (1, 1);
    let mut bytes = text.bytes().peekable();
    while yaml < yaml_line {
        match bytes.next() {
            Some(b'\n') => (yaml, editor) = (yaml + 1, editor + 1),
            Some(b'\r') if bytes.peek() != Some(&b'\n') => yaml += 1,
            Some(_) => {}
            None => break,
        }
    }
    editor
}

fn options() -> Options {
    // The default budget stays on: it bounds depth, nodes, aliases and their expansion.
    serde_saphyr::options! { with_snippet: false }
}

/// An object whose kind is known, not decoded yet.
pub(super) struct Piece<'a> {
    pub(super) document: Document<'a>,
    pub(super) version: String,
    pub(super) kind: String,
    /// Of a list; without it, the whole document.
    pub(super) item: Option<Item>,
}

/// One of a list.
pub(super) struct Item {
    pub(super) place: usize,
    line: u64,
    value: Value,
}

/// What a piece is.
pub(super) enum Read {
    Object(Box<Object>),
    Unread(Unread),
    Nothing,
}

impl Decode for Piece<'_> {
    type Error = ParseError;

    fn decode<T>(self) -> Result<Object, ParseError>
    where
        T: DeserializeOwned,
        Object: TryFrom<T, Error = ConvertError>,
    {
        let (document, line, place) =
            (self.document, self.start(), self.item.as_ref().map(|item| item.place));
        let value = match self.item {
            None => document.decode::<T>()?,
            Some(item) => {
                serde_json::from_value(item.value).map_err(|error| document.error(line, error.to_string()))?
            }
        };
        Object::try_from(value).map_err(|error| {
            let of_field = error.path().and_then(|path| {
                let whole = document.decode::<Node>().ok()?;
                place.map_or(Some(&whole), |place| whole.item(place))?.line(&path)
            });
            document.error(of_field.or(line), error.to_string())
        })
    }
}

impl Piece<'_> {
    /// The line of its document on which it begins; none: that of the document.
    pub(super) fn start(&self) -> Option<u64> {
        self.item.as_ref().map(|item| item.line)
    }

    /// All that it says; what is not read must still be YAML.
    pub(super) fn value(&self) -> Result<Value, ParseError> {
        match &self.item {
            Some(item) => Ok(item.value.clone()),
            None => self.document.decode(),
        }
    }

    pub(super) fn read(self) -> Result<Read, ParseError> {
        if let Some(served) = ServedKind::find(&self.version, &self.kind) {
            return Ok(Read::Object(Box::new(decode(served.kind, self)?)));
        }
        let value = self.value()?;
        let group = self.version.split_once('/').map_or("", |(group, _)| group);
        let meant = meant(&self.version, &self.kind);
        if meant.is_none() && !MESH_GROUPS.contains(&group) {
            return Ok(Read::Nothing);
        }
        let line = self.document.line_of_file(self.start());
        let (object, version) = (called(&self.kind, &value), shorten(&self.version));
        Ok(Read::Unread(Unread { line, object, version, meant: meant.map(ServedKind::full_name) }))
    }
}

/// `Kind namespace/name` of an object, whatever else it says.
pub(super) fn called(kind: &str, value: &Value) -> String {
    let field = |name: &str| value["metadata"][name].as_str().map(shorten);
    let name = field("name").unwrap_or_default();
    let namespace = field("namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    format!("{} {namespace}/{name}", shorten(kind))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
