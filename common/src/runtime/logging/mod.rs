//! Logs: text for people, JSON for collectors, on standard error.

mod line;

use line::Lines;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each; colours only on a terminal.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// Installs the process's logger. `filter` is a `tracing` directive list such as `info,warren_agent=debug`;
/// a malformed one is reported and replaced by `info`.
pub fn init_logging(filter: &str, format: LogFormat) {
    let (parsed, problem) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    match format {
        LogFormat::Text if std::io::stderr().is_terminal() => builder.init(),
        LogFormat::Text => builder.with_ansi(false).event_format(Lines::default()).init(),
        LogFormat::Json => builder.json().init(),
    }
    if let Some(error) = problem {
        tracing::warn!(filter, %error, "log filter not understood; using \"info\"");
    }
}
