//! What is to be said about the fields of an object that applies all the same.

use std::fmt;

/// A field that does not do what its author may think.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldNote {
    /// Where it stands, for example `spec.http[0].timeout`.
    pub path: String,
    /// What is to be said.
    pub about: NoteKind,
}

/// What is to be said about a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// No such field is known: it does nothing.
    Unknown,
    /// It is known and does nothing here; why.
    Unsupported(&'static str),
    /// A condition that does not count; why.
    Lost(&'static str),
    /// It is understood, and should be written in another way; how.
    Deprecated(String),
}

impl FieldNote {
    /// Whether it is a condition of a rule that does not count, so that the rule holds what it was not meant for.
    pub fn is_lost_condition(&self) -> bool {
        let is_of_match = self.path.contains(".match[") || self.path.contains(".matches[");
        matches!(self.about, NoteKind::Lost(_)) || (is_of_match && self.about == NoteKind::Unknown)
    }

    /// What is to be said.
    pub fn text(&self) -> String {
        match &self.about {
            NoteKind::Unknown if self.is_lost_condition() => {
                "no such field is known: the condition is lost, and the rule holds for what it was not meant for"
                    .to_owned()
            }
            NoteKind::Lost(why) => {
                format!("{why}: the condition is lost, and the rule holds for what it was not meant for")
            }
            about => about.to_string(),
        }
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such field is known: it does nothing"),
            Self::Unsupported(why) => write!(f, "it does nothing here: {why}"),
            Self::Lost(why) => f.write_str(why),
            Self::Deprecated(instead) => write!(f, "it is understood; write {instead} instead"),
        }
    }
}
