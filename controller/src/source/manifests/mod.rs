//! A directory of manifests as a source, followed live.
//!
//! [`parse`] is pure text to objects ([`survey`] for people who want to hear of everything in it), [`FileSet`] is pure files
//! to changes, [`watch`] is the thread that reads.

mod files;
mod meant;
mod parse;
mod places;
mod scan;
mod survey;
mod watch;

pub use files::FileSet;
pub use parse::{ParseError, Parsed, Unread, nevertheless, parse};
pub use survey::{Placed, Places, Refused, Survey, survey};
pub use watch::{ManifestsConfig, ManifestsError, ManifestsHandle, watch};
