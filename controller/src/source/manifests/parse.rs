//! The text of a manifest file to objects. Pure; any text is safe to pass in.

use super::super::ConvertError;
use super::super::convert::shorten;
use super::super::custom::stand_in;
use super::super::kinds::{Decode, MESH_GROUPS, ServedKind, decode};
use super::meant::meant;
use crate::objects::{Kind, Object};
use serde::Deserialize;
use serde::de::DeserializeOwned;
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
    items: Option<Vec<Spanned<serde_json::Value>>>,
}

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// The objects, in the order of the file.
    pub objects: Vec<Object>,
    /// Of each object, the line on which it begins, counted from 1.
    pub lines: Vec<u64>,
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

/// Reads every object of a file of YAML documents (JSON is YAML). Empty documents are skipped, lists are unpacked
/// (`kind: List`, and those of one kind), kinds that the controller does not read are left out, and named if they are for a
/// mesh or look like one that is read.
///
/// # Errors
/// The first thing that is wrong, with its line in `text`. Hostile input (deep nesting, alias bombs) is an error.
pub fn parse(text: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    for document in documents(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        document.read(&mut parsed)?;
    }
    Ok(parsed)
}

/// What counts of a file that [`parse`] refuses and that never was good: its AuthorizationPolicies, for without them pods
/// would be more open than somebody meant. Those that can't be used are stood in for.
pub fn nevertheless(text: &str) -> Vec<Object> {
    let documents = documents(text.strip_prefix('\u{feff}').unwrap_or(text));
    documents.iter().flat_map(Document::policies).collect()
}

/// One YAML document and where it begins.
struct Document<'a> {
    text: &'a str,
    /// Lines of the file before it.
    lines_before: u64,
}

/// Splits at lines that begin with `---`. That is exact: YAML ends a document there even inside a block
/// scalar or a quoted text (YAML 1.2, c-forbidden).
fn documents(text: &str) -> Vec<Document<'_>> {
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

impl Document<'_> {
    /// Nothing but markers, comments and directives.
    fn is_empty(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line == "---" || line == "..." || line.starts_with(['#', '%'])
        })
    }

    fn read(&self, parsed: &mut Parsed) -> Result<(), ParseError> {
        let Some(head) = self.decode::<Option<Head>>()? else {
            return Ok(());
        };
        let kind = head.kind.ok_or_else(|| self.error(None, "kind is missing"))?;
        let version = head.api_version.ok_or_else(|| self.error(None, "apiVersion is missing"))?;
        let Some(of) = kind.strip_suffix("List") else {
            return typed(&version, &kind, Reader::Document(self), parsed);
        };
        let is_general = (version.as_str(), of) == ("v1", "");
        let items = match self.decode::<List>()?.items {
            Some(items) => items,
            None if is_general => return Ok(()),
            None => return typed(&version, &kind, Reader::Document(self), parsed),
        };
        for item in items {
            let line = item.referenced.line();
            let field =
                |name: &'static str, of_list: &str| match item.value.get(name).and_then(|it| it.as_str()) {
                    Some(text) => Ok(text.to_owned()),
                    // The items of a list of one kind need not say it again.
                    None if !is_general => Ok(of_list.to_owned()),
                    None => Err(self.error(Some(line), format!("{name} of a list's item is missing"))),
                };
            let (version, kind) = (field("apiVersion", &version)?, field("kind", of)?);
            typed(&version, &kind, Reader::Item(self, line, item.value), parsed)?;
        }
        Ok(())
    }

    fn policies(&self) -> Vec<Object> {
        let Ok(value) = self.decode::<serde_json::Value>() else { return Vec::new() };
        let of = value["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).unwrap_or_default();
        let list = (value["apiVersion"].as_str().unwrap_or_default(), of);
        let items = match value["items"].as_array() {
            Some(items) if value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
            _ => vec![value.clone()],
        };
        let policy = |item: serde_json::Value| {
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

    fn decode<T: DeserializeOwned>(&self) -> Result<T, ParseError> {
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
        let line = line.filter(|line| *line > 0).map(|line| editor_line(self.text, line));
        let line = line.unwrap_or_else(|| self.first_line());
        ParseError { line: self.lines_before + line, reason: shorten(&reason.into()) }
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

/// From where an object is decoded once its kind is known.
enum Reader<'a> {
    Document(&'a Document<'a>),
    Item(&'a Document<'a>, u64, serde_json::Value),
}

impl Decode for Reader<'_> {
    type Error = ParseError;

    fn decode<T>(self) -> Result<Object, ParseError>
    where
        T: DeserializeOwned,
        Object: TryFrom<T, Error = ConvertError>,
    {
        let (document, line, value) = match self {
            Self::Document(document) => (document, None, document.decode::<T>()?),
            Self::Item(document, line, value) => {
                let value = serde_json::from_value(value);
                (document, Some(line), value.map_err(|error| document.error(Some(line), error.to_string()))?)
            }
        };
        Object::try_from(value).map_err(|error| document.error(line, error.to_string()))
    }
}

impl Reader<'_> {
    /// Where it begins.
    fn line(&self) -> u64 {
        match self {
            Self::Document(document) => document.error(None, "").line,
            Self::Item(document, line, _) => document.error(Some(*line), "").line,
        }
    }

    /// What an object that is not read is called: it must still be YAML.
    fn skip(self, kind: &str) -> Result<String, ParseError> {
        let value = match self {
            Self::Document(document) => document.decode::<serde_json::Value>()?,
            Self::Item(_, _, value) => value,
        };
        let field = |name: &str| value["metadata"][name].as_str().map(shorten);
        let name = field("name").unwrap_or_default();
        let namespace = field("namespace").unwrap_or_else(|| "default".to_owned());
        Ok(format!("{} {namespace}/{name}", shorten(kind)))
    }
}

fn typed(version: &str, kind: &str, reader: Reader<'_>, parsed: &mut Parsed) -> Result<(), ParseError> {
    let line = reader.line();
    let Some(served) = ServedKind::find(version, kind) else {
        let object = reader.skip(kind)?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let meant = meant(version, kind);
        if meant.is_some() || MESH_GROUPS.contains(&group) {
            let meant = meant.map(ServedKind::full_name);
            parsed.unread.push(Unread { line, object, version: shorten(version), meant });
        }
        return Ok(());
    };
    parsed.objects.push(decode(served.kind, reader)?);
    parsed.lines.push(line);
    Ok(())
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
