//! `warren check`: what was looked at, how it is, and what to do.

use super::{Style, clean};
use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What, as a person says it.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) result: Outcome,
    /// What was seen.
    pub(crate) detail: String,
    /// What to do about it; only where something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) todo: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Good,
    /// Works, and is worth a look.
    Warning,
    /// Wrong.
    Bad,
    /// Not looked at.
    Skipped,
}

impl Finding {
    pub(crate) fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, result: Outcome::Good, detail: detail.into(), todo: None }
    }

    pub(crate) fn warning(name: &'static str, detail: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { name, result: Outcome::Warning, detail: detail.into(), todo: Some(todo.into()) }
    }

    pub(crate) fn bad(name: &'static str, detail: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { name, result: Outcome::Bad, detail: detail.into(), todo: Some(todo.into()) }
    }

    pub(crate) fn skipped(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, result: Outcome::Skipped, detail: detail.into(), todo: None }
    }
}

/// A line per finding, and what to do below the ones that need it.
pub(crate) fn findings(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        let sign = match finding.result {
            Outcome::Good => style.tick(),
            Outcome::Warning => style.warning(),
            Outcome::Bad => style.cross(),
            Outcome::Skipped => style.dim("-"),
        };
        text += &format!("{sign} {}: {}\n", finding.name, clean(&finding.detail));
        if let Some(todo) = &finding.todo {
            text += &format!("    {} {}\n", style.arrow(), clean(todo));
        }
    }
    let bad = findings.iter().filter(|finding| finding.result == Outcome::Bad).count();
    text + &match bad {
        0 => format!("\n{}\n", style.green("nothing is wrong")),
        1 => format!("\n{}\n", style.red("1 thing is wrong")),
        n => format!("\n{}\n", style.red(&format!("{n} things are wrong"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_say_what_to_do() {
        let seen = [
            Finding::good("kernel", "6.1.0 (6.1 or later is needed)"),
            Finding::bad("bpffs", "not mounted at /sys/fs/bpf", "mount -t bpf bpf /sys/fs/bpf"),
            Finding::skipped("agent", "no agent runs here"),
        ];
        assert_eq!(
            findings(&seen, Style::plain(true)),
            "✓ kernel: 6.1.0 (6.1 or later is needed)
✗ bpffs: not mounted at /sys/fs/bpf
    → mount -t bpf bpf /sys/fs/bpf
- agent: no agent runs here

1 thing is wrong
"
        );
    }
}
