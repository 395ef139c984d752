//! A directory of manifests as a source, followed live.
//!
//! [`parse`] is pure text to objects, [`FileSet`] is pure files to changes, [`watch`] is the thread that reads.

mod files;
mod meant;
mod parse;
mod scan;
mod watch;

pub use files::FileSet;
pub use parse::{ParseError, Parsed, Unread, nevertheless, parse};
pub use watch::{ManifestsConfig, ManifestsError, ManifestsHandle, watch};
