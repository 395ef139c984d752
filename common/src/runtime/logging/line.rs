//! Log lines as text where no terminal wants colours: what tracing-subscriber's own format prints, in a fifth of its time. The
//! access log has a line of thirty values for every request.
//!
//! One event is one line: a line break within a value is written as `\n`, so that no peer's error text can look like a line of ours.
//! What is rare is left to that format: events within spans, those of the `log` crate, errors with sources.

use std::cell::RefCell;
use std::error::Error;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime as Now};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

thread_local! {
    /// The line that is being written.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// A second since the epoch, in words: `2026-11-27T08:15:00`.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// One line for each event: time, level, target, message, `key=value`.
#[derive(Debug)]
pub(super) struct Lines {
    rare: Format<Full, Now>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { rare: Format::default().with_ansi(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let is_rare = event.metadata().target() == "log" || context.event_scope().is_some();
        let written = LINE.with(|line| {
            // It is taken while a value that logs something itself is written.
            let mut line = line.try_borrow_mut().ok().filter(|_| !is_rare)?;
            line.clear();
            write_line(&mut line, event).then(|| writer.write_str(&line))
        });
        written.unwrap_or_else(|| {
            let mut line = String::new();
            self.rare.format_event(context, Writer::new(&mut line), event)?;
            let mut clean = String::with_capacity(line.len());
            Clean(&mut clean).write_str(line.trim_end_matches('\n'))?;
            writeln!(writer, "{clean}")
        })
    }
}

/// False if it is left to others.
fn write_line(line: &mut String, event: &Event<'_>) -> bool {
    let metadata = event.metadata();
    if write_now(line).is_err() {
        return false;
    }
    line.push_str(match *metadata.level() {
        Level::TRACE => " TRACE ",
        Level::DEBUG => " DEBUG ",
        Level::INFO => "  INFO ",
        Level::WARN => "  WARN ",
        Level::ERROR => " ERROR ",
    });
    line.push_str(metadata.target());
    line.push(':');
    let mut values = Values { line, result: Ok(()) };
    event.record(&mut values);
    let result = values.result;
    line.push('\n');
    result.is_ok()
}

/// RFC 3339, UTC, microseconds.
fn write_now(line: &mut String) -> fmt::Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() || text.is_empty() {
            text.clear();
            // Its time may already be the next second's.
            Now.format_time(&mut Writer::new(text))?;
            let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            if after.as_secs() != now.as_secs() {
                line.push_str(text);
                text.clear();
                return Ok(());
            }
            *second = now.as_secs();
            text.truncate("2026-11-27T08:15:00".len());
        }
        line.push_str(text);
        write!(line, ".{:06}Z", now.subsec_micros())
    })
}

/// Writes ` key=value` for each value.
struct Values<'l> {
    line: &'l mut String,
    result: fmt::Result,
}

impl Values<'_> {
    fn key(&mut self, field: &Field) -> bool {
        let name = field.name();
        self.line.push(' ');
        let is_message = name == "message";
        if !is_message {
            self.line.push_str(name.strip_prefix("r#").unwrap_or(name));
            self.line.push('=');
        }
        is_message
    }

    fn write(&mut self, value: fmt::Arguments<'_>) {
        let written = Clean(self.line).write_fmt(value);
        self.result = self.result.and(written);
    }
}

impl Visit for Values<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.key(field) {
            self.write(format_args!("{value}"));
        } else if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.line.extend(["\"", value, "\""]);
        } else {
            self.write(format_args!("{value:?}"));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field);
        self.write(format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        if value.source().is_some() {
            self.result = Err(fmt::Error);
        }
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.key(field);
        self.write(format_args!("{value:?}"));
    }
}

/// What it writes stays in its line, and tells no terminal what to do.
struct Clean<'l>(&'l mut String);

impl Write for Clean<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.0.push_str(text);
            return Ok(());
        }
        for char in text.chars() {
            match char {
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\x1b' | '\x07' | '\x08' | '\x0c' | '\x7f' => write!(self.0, "\\x{:02x}", char as u32)?,
                '\u{80}'..='\u{9f}' => write!(self.0, "\\u{{{:x}}}", char as u32)?,
                _ => self.0.push(char),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What both formats print of the same.
    fn both(work: impl Fn()) -> [String; 2] {
        let (ours, theirs) = (Written::default(), Written::default());
        let writer = ours.clone();
        let builder = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        let subscriber = builder.with_writer(move || writer.clone()).event_format(Lines::default());
        tracing::subscriber::with_default(subscriber.finish(), &work);
        let writer = theirs.clone();
        let builder = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        tracing::subscriber::with_default(builder.with_writer(move || writer.clone()).finish(), &work);
        [ours, theirs].map(|written| String::from_utf8(written.0.lock().unwrap().clone()).unwrap())
    }

    /// Without the times, which are right.
    fn same(work: impl Fn()) {
        let [ours, theirs] = both(work).map(|text| {
            let lines = text.split_inclusive('\n').map(|line| {
                let (time, rest) = line.split_at_checked(27).unwrap_or((line, ""));
                let second: String =
                    time.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
                assert_eq!(second, "0000-00-00T00:00:00.000000Z", "{line}");
                rest.to_owned()
            });
            lines.collect::<String>()
        });
        assert_eq!(ours, theirs);
    }

    fn failure() -> io::Error {
        io::Error::other("it failed")
    }

    #[test]
    fn lines_read_as_they_always_did() {
        same(|| {
            tracing::error!("a message");
            tracing::warn!(target: "access", number = 7, negative = -7, float = 1.5, truth = true, "values {}", 1);
            tracing::info!(src.addr = "10.0.0.1:80", r#type = %"shown", debugged = ?Some("x"), none = None::<&str>);
            tracing::debug!(text = "quotes \" and \\ and \n and ü", shown = %"two words");
            tracing::trace!(error = &failure() as &dyn Error, "an error without sources");
        });
    }

    #[test]
    fn what_is_rare_is_there_too() {
        same(|| {
            let _span = tracing::info_span!("outer", id = 1).entered();
            tracing::info!(value = 1, "within a span");
        });
        let source = io::Error::other(fmt::Error);
        let error = Arc::new(io::Error::other(source));
        same(|| tracing::info!(error = &*error as &dyn Error, "with a source"));
    }

    #[test]
    fn nobody_elses_text_reaches_a_terminal_as_a_command() {
        let [line, _] = both(|| tracing::info!(shown = %"\x1b[31m\u{9b}2J", text = "\x1b]0;", "\x07beep"));
        assert!(line.ends_with("\\x07beep shown=\\x1b[31m\\u{9b}2J text=\"\\u{1b}]0;\"\n"), "{line}");
    }

    proptest! {
        #[test]
        fn any_text_reads_the_same(text in "\\PC*|[ -~]*", number: u64) {
            same(|| tracing::info!(text, number, "{text}"));
        }

        #[test]
        fn any_text_stays_in_its_line(text in "(?s).*") {
            let [line, _] = both(|| {
                tracing::info!(text, shown = %text, "{text}");
                let _span = tracing::info_span!("outer", shown = %text).entered();
                tracing::info!(text, shown = %text, "{text}");
            });
            prop_assert_eq!(line.split('\n').count(), 3, "{}", line);
        }
    }
}
