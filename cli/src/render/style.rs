//! Colours and ticks, where the terminal shows them.

use std::env;
use std::io::IsTerminal;

/// What the reader's terminal can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    color: bool,
    unicode: bool,
}

impl Style {
    /// For standard output. Colours only on a terminal and without `NO_COLOR` (no-color.org); ticks and arrows
    /// beyond ASCII only where the locale says UTF-8.
    pub(crate) fn detect() -> Self {
        let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let dumb = said("TERM").is_some_and(|term| term == "dumb");
        let locale = said("LC_ALL").or_else(|| said("LC_CTYPE")).or_else(|| said("LANG")).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        Self {
            color: std::io::stdout().is_terminal() && said("NO_COLOR").is_none() && !dumb,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// For tests.
    #[cfg(test)]
    pub(crate) const fn plain(unicode: bool) -> Self {
        Self { color: false, unicode }
    }

    /// Good.
    pub(crate) fn tick(self) -> String {
        self.green(if self.unicode { "✓" } else { "ok" })
    }

    /// Bad.
    pub(crate) fn cross(self) -> String {
        self.red(if self.unicode { "✗" } else { "x" })
    }

    /// Neither: it might be.
    pub(crate) const fn maybe(self) -> &'static str {
        if self.unicode { "·" } else { "o" }
    }

    /// Worth a look.
    pub(crate) fn warning(self) -> String {
        self.yellow("!")
    }

    /// From the one to the other.
    pub(crate) const fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
