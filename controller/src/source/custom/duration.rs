//! Durations as people write them.

/// Longer is a mistake.
pub(super) const LONGEST_MS: u64 = 366 * 24 * 3_600_000;

/// Nanoseconds of a duration as Go reads it: numbers with units from `h` to `ns`, or `0`. Not negative.
pub(super) fn go(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: u128 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" | "μs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    Some(total)
}

/// A decimal number times a unit; what is below one is cut off.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.contains('.') || number.len() > 30 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let (mut below, mut place) = (0u128, unit);
    for digit in part.bytes() {
        place /= 10;
        below += u128::from(digit - b'0') * place;
    }
    whole.checked_mul(unit)?.checked_add(below)
}

/// Milliseconds of a duration of the Gateway API (GEP-2257): one to four whole numbers with `h`, `m`, `s` or `ms`.
pub(super) fn gateway_ms(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut parts) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        parts += 1;
        if number.is_empty() || number.len() > 5 || parts > 4 {
            return None;
        }
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = after;
    }
    (parts > 0 && total <= LONGEST_MS).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        for (text, expected) in [
            ("1h", Some(3_600_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("25ms", Some(25_000_000)),
            ("7us", Some(7_000)),
            ("3ns", Some(3)),
            ("0s", Some(0)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("1d", None),
            (".s", None),
            ("99999999999999999999999999999999999999s", None),
        ] {
            assert_eq!(go(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_of_the_gateway_api() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("1h30m", Some(5_400_000)),
            ("0s", Some(0)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("1.5s", None),
            ("123456s", None),
            ("1h1h1h1h1h", None),
            ("", None),
            ("s", None),
            ("10", None),
        ] {
            assert_eq!(gateway_ms(text), expected, "{text:?}");
        }
    }
}
