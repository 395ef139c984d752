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
    /// It is understood, and should be written in another way; how.
    Deprecated(String),
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such field is known: it does nothing"),
            Self::Unsupported(why) => write!(f, "it does nothing here: {why}"),
            Self::Deprecated(instead) => write!(f, "it is understood; write {instead} instead"),
        }
    }
}
