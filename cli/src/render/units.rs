//! Numbers as people read them.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// `0 B`, `1.5 KiB`, `12 MiB`: three digits at most.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" || value >= 9.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// `0.3 ms`, `12 ms`, `4.2 s`, `3m 7s`, `2h 5m`.
pub(crate) fn milliseconds(value: f64) -> String {
    match value {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        ms => ago((ms / 1000.0) as u64),
    }
}

/// `42s`, `3m 7s`, `2h 5m`, `3d 4h`.
pub(crate) fn ago(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86_400 => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// How long until `at` (RFC 3339), nothing when that is not a time. Negative when it is past.
pub(crate) fn until(at: &str, now: OffsetDateTime) -> Option<Duration> {
    OffsetDateTime::parse(at, &Rfc3339).ok().map(|at| at - now)
}

/// `in 11h 58m`, or `3m 7s ago`.
pub(crate) fn remaining(at: Option<&str>, now: OffsetDateTime) -> String {
    match at.and_then(|at| until(at, now)) {
        Some(left) if left.is_negative() => format!("{} ago", ago(left.whole_seconds().unsigned_abs())),
        Some(left) => format!("in {}", ago(left.whole_seconds().unsigned_abs())),
        None => String::new(),
    }
}

/// `1 pod`, `2 pods`.
pub(crate) fn plural(count: impl Into<u64>, noun: &str) -> String {
    let count = count.into();
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Text from elsewhere, safe to show: control characters could steer the reader's terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let sizes = [0, 999, 1000, 1536, 10_240, 1_048_576, 5_368_709_120];
        let expected = ["0 B", "999 B", "1.0 KiB", "1.5 KiB", "10 KiB", "1.0 MiB", "5.0 GiB"];
        assert_eq!(sizes.map(bytes), expected);
        let times = [0.34, 12.4, 999.0, 4200.0, 187_000.0, 7_500_000.0, 273_600_000.0];
        let expected = ["0.3 ms", "12 ms", "999 ms", "4.2 s", "3m 7s", "2h 5m", "3d 4h"];
        assert_eq!(times.map(milliseconds), expected);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }

    #[test]
    fn time_is_told_from_now() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(remaining(Some("1970-01-01T12:00:00Z"), now), "in 12h 0m");
        assert_eq!(remaining(Some("1969-12-31T23:59:00Z"), now), "1m 0s ago");
        assert_eq!(remaining(None, now), "");
    }
}
