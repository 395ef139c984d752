//! A `spec` read field by field: every error and every remark names the path, and no field is skipped in silence.
//!
//! Such objects are large, and people's manifests hold fields that do nothing anywhere: what is not known is noted
//! and the rest applies, as with the API server. A value that is wrong makes the object an error.

use crate::objects::{FieldNote, NoteKind};
use crate::source::ConvertError;
use crate::source::convert::shorten;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt::Display;
use std::sync::Arc;

/// No list of the API is longer.
const MAX_NOTES: usize = 100;

/// What is to be said about the fields of one object.
#[derive(Debug, Default)]
pub(super) struct Notes {
    said: RefCell<Vec<FieldNote>>,
    /// The first value that is not known, of an API that takes such objects all the same.
    not_known: RefCell<Option<String>>,
}

impl Notes {
    pub(super) fn add(&self, path: String, about: NoteKind) {
        let mut notes = self.said.borrow_mut();
        if notes.len() < MAX_NOTES {
            notes.push(FieldNote { path, about });
        }
    }

    /// The first value that was not known.
    pub(super) fn unsupported(&self) -> Option<String> {
        self.not_known.borrow().clone()
    }

    pub(super) fn into_inner(self) -> Vec<FieldNote> {
        let mut notes = self.said.into_inner();
        notes.sort();
        notes
    }
}

/// A mapping of which every field is to be taken; those that are not are noted when it is dropped.
pub(super) struct Fields<'n> {
    notes: &'n Notes,
    path: String,
    map: Map<String, Value>,
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.map).into_iter().map(|(name, _)| name) {
            self.notes.add(self.at(&shorten(&name)), NoteKind::Unknown);
        }
    }
}

/// Something is wrong at a path.
pub(super) fn wrong(path: impl Into<String>, reason: impl Display) -> ConvertError {
    ConvertError::At { path: path.into(), reason: shorten(&reason.to_string()) }
}

impl<'n> Fields<'n> {
    pub(super) fn of(value: Value, path: impl Into<String>, notes: &'n Notes) -> Result<Self, ConvertError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { notes, path, map }),
            other => Err(wrong(path, format_args!("{} is not a mapping", shown(&other)))),
        }
    }

    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    pub(super) fn notes(&self) -> &'n Notes {
        self.notes
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.map.values().all(Value::is_null)
    }

    /// The first of its fields that was not taken, for people.
    pub(super) fn first(&self) -> Option<String> {
        self.map.keys().next().map(|name| shorten(name))
    }

    /// An error about one of its fields.
    pub(super) fn wrong(&self, name: &str, reason: impl Display) -> ConvertError {
        wrong(self.at(name), reason)
    }

    /// Whether a field is there that nobody has taken yet.
    pub(super) fn has(&self, name: &str) -> bool {
        let there = |name: &str| self.map.get(name).is_some_and(|value| !value.is_null());
        there(name) || there(&snake_case(name))
    }

    /// A field; null is absent. Names are lowerCamelCase; Istio takes snake_case too.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let value = self.map.remove(name);
        let snake = snake_case(name);
        let other = if snake == name { None } else { self.map.remove(&snake) };
        if other.is_some() {
            self.notes.add(self.at(&snake), NoteKind::Deprecated(name.to_owned()));
        }
        value.or(other).filter(|value| !value.is_null())
    }

    /// Notes a field that is known and does nothing, if it is there.
    pub(super) fn unsupported(&mut self, name: &str, why: &'static str) -> bool {
        let there = self.take(name).is_some();
        if there {
            self.notes.add(self.at(name), NoteKind::Unsupported(why));
        }
        there
    }

    /// Notes something about a path.
    pub(super) fn note(&self, path: String, about: NoteKind) {
        self.notes.add(path, about);
    }

    /// Notes that another field should be written.
    pub(super) fn deprecated(&self, name: &str, instead: &str) {
        self.notes.add(self.at(name), NoteKind::Deprecated(instead.to_owned()));
    }

    /// Remembers that a value is not known.
    pub(super) fn not_known(&self, name: &str, value: &str) {
        let mut first = self.notes.not_known.borrow_mut();
        first.get_or_insert_with(|| format!("{}: {:?} is not supported", self.at(name), shorten(value)));
    }

    /// One of these words; another is remembered, and none.
    pub(super) fn lenient<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConvertError> {
        let Some(text) = self.text(name, super::MAX_TEXT)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == &*text);
        if found.is_none() {
            self.not_known(name, &text);
        }
        Ok(found.map(|(_, meaning)| *meaning))
    }

    /// The same; without a word the first one is meant.
    pub(super) fn lenient_or_first<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConvertError> {
        let is_said = self.map.get(name).is_some_and(|value| !value.is_null() && value != "");
        let found = self.lenient(name, words)?;
        Ok(if is_said { found } else { words.first().map(|(_, meaning)| *meaning) })
    }

    /// Takes everything that is in it, of which nothing is to be said.
    pub(super) fn forget(mut self) {
        self.map.clear();
    }

    /// A list of whole numbers from `least` to `most`.
    pub(super) fn numbers(
        &mut self,
        name: &str,
        max: usize,
        least: u64,
        most: u64,
    ) -> Result<Vec<u64>, ConvertError> {
        self.values(name, max, |path, value| {
            let number = value.as_u64().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| {
                wrong(path, format_args!("{} is not a whole number from {least} to {most}", shown(&value)))
            })
        })
    }

    pub(super) fn fields(&mut self, name: &str) -> Result<Option<Fields<'n>>, ConvertError> {
        let value = self.take(name);
        value.map(|value| Fields::of(value, self.at(name), self.notes)).transpose()
    }

    /// A list of mappings, of at most `max`. Empty is none.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        max: usize,
        mut read: impl FnMut(Fields<'n>) -> Result<T, ConvertError>,
    ) -> Result<Vec<T>, ConvertError> {
        let notes = self.notes;
        self.values(name, max, |path, value| read(Fields::of(value, path, notes)?))
    }

    fn values<T>(
        &mut self,
        name: &str,
        max: usize,
        mut read: impl FnMut(String, Value) -> Result<T, ConvertError>,
    ) -> Result<Vec<T>, ConvertError> {
        let list = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(self.wrong(name, format_args!("{} is not a list", shown(&other)))),
        };
        if list.len() > max {
            return Err(self.wrong(name, format_args!("{} entries; at most {max} are allowed", list.len())));
        }
        let path = self.at(name);
        list.into_iter()
            .enumerate()
            .map(|(index, value)| {
                let path = format!("{path}[{index}]");
                if value.is_null() { Err(wrong(path, "an entry may not be null")) } else { read(path, value) }
            })
            .collect()
    }

    /// A list of texts of at most `longest` bytes each.
    pub(super) fn texts(
        &mut self,
        name: &str,
        max: usize,
        longest: usize,
    ) -> Result<Vec<Arc<str>>, ConvertError> {
        self.values(name, max, |path, value| text(value, longest).map_err(|reason| wrong(path, reason)))
    }

    /// A mapping with names of its author's choice, of at most `max`; the paths of the values are told.
    pub(super) fn entries<T>(
        &mut self,
        name: &str,
        max: usize,
        mut read: impl FnMut(String, &str, Value) -> Result<T, ConvertError>,
    ) -> Result<Vec<T>, ConvertError> {
        let map = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Object(map)) => map,
            Some(other) => return Err(self.wrong(name, format_args!("{} is not a mapping", shown(&other)))),
        };
        if map.len() > max {
            return Err(self.wrong(name, format_args!("{} entries; at most {max} are allowed", map.len())));
        }
        let path = self.at(name);
        map.into_iter().map(|(key, value)| read(format!("{path}[{}]", shorten(&key)), &key, value)).collect()
    }

    /// Labels, as Kubernetes has them.
    pub(super) fn labels(
        &mut self,
        name: &str,
    ) -> Result<std::collections::BTreeMap<Arc<str>, Arc<str>>, ConvertError> {
        let pairs = self.entries(name, 256, |path, key, value| {
            if key.is_empty() || key.len() > super::MAX_TEXT || key.contains('*') {
                return Err(wrong(path, "not the key of a label"));
            }
            let value = text(value, 63).map_err(|reason| wrong(path, reason))?;
            Ok((Arc::from(key), value))
        })?;
        Ok(pairs.into_iter().collect())
    }

    /// A text of at most `longest` bytes; empty is absent.
    pub(super) fn text(&mut self, name: &str, longest: usize) -> Result<Option<Arc<str>>, ConvertError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = text(value, longest).map_err(|reason| self.wrong(name, reason))?;
        Ok((!text.is_empty()).then_some(text))
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, name: &str, longest: usize) -> Result<Arc<str>, ConvertError> {
        self.text(name, longest)?.ok_or_else(|| self.wrong(name, "it is missing"))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ConvertError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(name, format_args!("{} is not true or false", shown(&other)))),
        }
    }

    /// A whole number from `least` to `most`; JSON has large ones in quotes.
    pub(super) fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ConvertError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        whole(&value, least, most).map(Some).map_err(|reason| self.wrong(name, reason))
    }

    pub(super) fn number32(&mut self, name: &str, most: u32) -> Result<Option<u32>, ConvertError> {
        let number = self.number(name, 0, u64::from(most))?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    pub(super) fn port(&mut self, name: &str) -> Result<Option<u16>, ConvertError> {
        let number = self.number(name, 1, u64::from(u16::MAX))?;
        Ok(number.and_then(|number| u16::try_from(number).ok()))
    }

    /// A number that need not be whole, from `least` to `most`.
    pub(super) fn decimal(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ConvertError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let reason = format!("{} is not a number from {least} to {most}", shown(&value));
                Err(self.wrong(name, reason))
            }
        }
    }

    /// One of these words, or its place among them (protobuf's number of it).
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConvertError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let found = match &value {
            Value::String(text) => words.iter().find(|(word, _)| word == text),
            Value::Number(number) => number
                .as_u64()
                .and_then(|index| usize::try_from(index).ok())
                .and_then(|index| words.get(index)),
            _ => None,
        };
        match found {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
                Err(self.wrong(name, format_args!("{} is none of {known}", shown(&value))))
            }
        }
    }

    /// Milliseconds of a duration as Go writes it (`1m30s`, `1.5s`), at least `least`.
    pub(super) fn duration_ms(&mut self, name: &str, least: u64) -> Result<Option<u64>, ConvertError> {
        let Some(text) = self.text(name, 64)? else { return Ok(None) };
        let Some(ns) = super::duration::go(&text) else {
            return Err(self.wrong(name, format_args!("{text:?} is not a duration such as 1m30s or 250ms")));
        };
        let ms = u64::try_from(ns / 1_000_000).unwrap_or(u64::MAX);
        if ms < least || ms > super::duration::LONGEST_MS {
            return Err(self.wrong(name, format_args!("{text} is not a time from {least} ms to a year")));
        }
        Ok(Some(ms))
    }

    /// Of a million, from `{value: PERCENT}`; none when the field is absent.
    pub(super) fn percentage(&mut self, name: &str) -> Result<Option<u32>, ConvertError> {
        let Some(mut fields) = self.fields(name)? else { return Ok(None) };
        let percent = fields.decimal("value", 0.0, 100.0)?.unwrap_or_default();
        if percent > 0.0 && percent < 0.0001 {
            return Err(fields.wrong("value", "less than one of a million (0.0001)"));
        }
        Ok(Some(per_million(percent)))
    }
}

fn whole(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let number = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{} is not a whole number from {least} to {most}", shown(value)))
}

/// The number of a port, at a path.
pub(super) fn port_of(path: String, value: &Value) -> Result<u16, ConvertError> {
    let number = whole(value, 1, u64::from(u16::MAX)).map_err(|reason| wrong(path, reason))?;
    // It fits.
    Ok(number as u16)
}

/// A text, and nothing that YAML takes for a number.
pub(super) fn text(value: Value, longest: usize) -> Result<Arc<str>, String> {
    match value {
        Value::String(text) if text.len() <= longest => Ok(text.into()),
        Value::String(text) => Err(format!("{:?} is longer than {longest} bytes", shorten(&text))),
        other => Err(format!("{} is not a text (numbers stand in quotes)", shown(&other))),
    }
}

/// Of a million; a percentage has four digits after the point, the rest is cut off.
pub(super) fn per_million(percent: f64) -> u32 {
    // From 0 to 1,000,000: it fits. The small addend undoes 0.3 * 10000 = 2999.99...
    (percent * 10_000.0 + 1e-6) as u32
}

fn shown(value: &Value) -> String {
    shorten(&value.to_string())
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_taken_is_noted() {
        let notes = Notes::default();
        {
            let value = json!({"perTry": "1s", "retry_on": "5xx", "none": null, "colour": 1, "in": {"x": 1}});
            let mut fields = Fields::of(value, "spec", &notes).unwrap();
            assert_eq!(fields.duration_ms("perTry", 1).unwrap(), Some(1000));
            assert_eq!(fields.text("retryOn", 10).unwrap().as_deref(), Some("5xx"));
            assert!(fields.take("none").is_none());
            assert!(fields.unsupported("in", "for a test") && !fields.unsupported("out", "for a test"));
        }
        let notes: Vec<_> =
            notes.into_inner().into_iter().map(|n| format!("{}: {}", n.path, n.about)).collect();
        assert_eq!(
            notes,
            [
                "spec.colour: no such field is known: it does nothing",
                "spec.in: it does nothing here: for a test",
                "spec.retry_on: it is understood; write retryOn instead",
            ]
        );
    }

    #[test]
    fn values_are_checked() {
        let notes = Notes::default();
        let field = |value: Value| Fields::of(json!({ "f": value }), "spec", &notes).unwrap();
        assert_eq!(field(json!("8080")).port("f").unwrap(), Some(8080));
        assert_eq!(field(json!(2)).choice("f", &[("A", 'a'), ("B", 'b'), ("C", 'c')]).unwrap(), Some('c'));
        assert_eq!(field(json!({"value": 0.3})).percentage("f").unwrap(), Some(3000));
        assert_eq!(field(json!({"value": 100})).percentage("f").unwrap(), Some(1_000_000));
        let errors = [
            field(json!(0)).port("f").err(),
            field(json!("D")).choice("f", &[("A", 1)]).err(),
            field(json!(1)).text("f", 9).err(),
            field(json!("0s")).duration_ms("f", 1).err(),
            field(json!("soon")).duration_ms("f", 0).err(),
            field(json!({"value": 0.00001})).percentage("f").err(),
            field(json!([{}, null])).list("f", 2, |_| Ok(())).err(),
            field(json!([{}, {}])).list("f", 1, |_| Ok(())).err(),
            field(json!([])).fields("f").err(),
        ];
        for error in errors {
            assert!(error.unwrap().to_string().starts_with("spec.f"));
        }
    }
}
