//! Names of servers, as clients say them in TLS.

/// Whether a pattern holds a name, both in lower case: `*` every one, the empty one too; a leading `*` whatever ends so and is
/// longer; everything else itself.
pub(super) fn holds_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == name,
        Some("") => true,
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("a.example", "", false),
            ("*.example", "a.example", true),
            ("*.example", "b.a.example", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "a.example.org", false),
            ("*", "a.example", true),
            ("*", "", true),
        ] {
            assert_eq!(holds_name(pattern, name), expected, "{pattern} {name}");
        }
    }
}
