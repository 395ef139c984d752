//! What the reader's terminal can show.

use std::env;
use std::io::{self, IsTerminal as _};

/// Colours only on a terminal and without `NO_COLOR`; ticks only where the locale says UTF-8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    color: bool,
    unicode: bool,
}

impl Terminal {
    /// For standard output.
    pub(crate) fn detect() -> Self {
        let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(said);
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        let dumb = said("TERM").is_some_and(|term| term == "dumb");
        Self {
            color: io::stdout().is_terminal() && said("NO_COLOR").is_none() && !dumb,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    pub(crate) fn tick(self) -> String {
        self.paint("32", if self.unicode { "✓" } else { "ok" })
    }

    pub(crate) fn cross(self) -> String {
        self.paint("31", if self.unicode { "✗" } else { "x" })
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
