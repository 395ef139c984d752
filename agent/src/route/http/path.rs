//! One way to write a path, before anybody decides by it (MeshConfig `pathNormalization`).

use super::request::hex;
use std::borrow::Cow;

/// How much of a path is made uniform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// RFC 3986, section 6.2.2: `.` and `..` are resolved (never above the root), and characters that need no escape have none
    /// (`%41` is `A`). A backslash is a slash, as browsers have it.
    #[default]
    Base,
    /// As [`Self::Base`], and several slashes are one.
    MergeSlashes,
    /// As [`Self::MergeSlashes`], and escaped slashes and backslashes are slashes.
    DecodeAndMergeSlashes,
}

/// The path as rules and application see it. What is no path (`*`, an empty one) stays as it is; doing it again changes nothing.
pub fn normalize(path: &str, how: Normalization) -> Cow<'_, str> {
    let merges = matches!(how, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    let has = |part: &str| path.contains(part);
    let is_done = !(has("%") || has("\\") || has("/.") || merges && has("//"));
    if how == Normalization::None || is_done || !path.starts_with(['/', '\\']) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path.as_bytes(), how == Normalization::DecodeAndMergeSlashes);
    let resolved = resolve(&decoded, merges);
    // Only ASCII was put in the place of ASCII.
    String::from_utf8(resolved).map_or(Cow::Borrowed(path), Cow::Owned)
}

/// Without escapes that nobody needs, and without backslashes.
fn decode(path: &[u8], slashes: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    // Where a percent sign stands that begins no escape: nothing may become one with it.
    let mut stray = None;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'\\', _) => out.push(b'/'),
            (b'%', [high, low, after @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                rest = after;
                let byte = hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default();
                let completes = hex(byte).is_some() && awaits_digit(&out, stray);
                match byte {
                    b'/' | b'\\' if slashes => out.push(b'/'),
                    b'-' | b'.' | b'_' | b'~' => out.push(byte),
                    _ if byte.is_ascii_alphanumeric() && !completes => out.push(byte),
                    _ => out.extend_from_slice(&[b'%', *high, *low]),
                }
            }
            (b'%', _) => {
                stray = Some(out.len());
                out.push(b'%');
            }
            _ => out.push(first),
        }
    }
    out
}

/// Whether a stray percent sign ends `path`, or one with a digit: with another digit it would be an escape.
fn awaits_digit(path: &[u8], stray: Option<usize>) -> bool {
    let after = stray.and_then(|at| path.get(at + 1..));
    match after {
        Some([]) => true,
        Some([digit]) => hex(*digit).is_some(),
        _ => false,
    }
}

/// Without `.` and `..`, and perhaps without empty segments.
fn resolve(path: &[u8], merges: bool) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" if merges && !is_last => {}
            b"." if !is_last => {}
            b".." => {
                out.truncate(out.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                if is_last {
                    out.push(b'/');
                }
            }
            b"." => out.push(b'/'),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_way() {
        use Normalization::{Base, DecodeAndMergeSlashes, MergeSlashes, None};
        for (path, none, base, merged, decoded) in [
            ("/", "/", "/", "/", "/"),
            ("/a/b", "/a/b", "/a/b", "/a/b", "/a/b"),
            ("/a/../b", "/a/../b", "/b", "/b", "/b"),
            ("/a/./b/.", "/a/./b/.", "/a/b/", "/a/b/", "/a/b/"),
            ("/a/b/..", "/a/b/..", "/a/", "/a/", "/a/"),
            ("/../../a", "/../../a", "/a", "/a", "/a"),
            ("/..", "/..", "/", "/", "/"),
            ("/.a/..b/...", "/.a/..b/...", "/.a/..b/...", "/.a/..b/...", "/.a/..b/..."),
            ("/%2e%2E/%61dmin", "/%2e%2E/%61dmin", "/admin", "/admin", "/admin"),
            ("/a\\..\\b", "/a\\..\\b", "/b", "/b", "/b"),
            ("\\da", "\\da", "/da", "/da", "/da"),
            ("/a//b", "/a//b", "/a//b", "/a/b", "/a/b"),
            ("/a//../b", "/a//../b", "/a/b", "/b", "/b"),
            ("//", "//", "//", "/", "/"),
            ("/a//", "/a//", "/a//", "/a/", "/a/"),
            ("/a%2fb%5Cc", "/a%2fb%5Cc", "/a%2fb%5Cc", "/a%2fb%5Cc", "/a/b/c"),
            ("/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/a%2f..%2fb", "/b"),
            ("/%20%25%7E", "/%20%25%7E", "/%20%25~", "/%20%25~", "/%20%25~"),
            // What is no escape makes none.
            ("/%%34%31", "/%%34%31", "/%%341", "/%%341", "/%%341"),
            ("/%4%31", "/%4%31", "/%4%31", "/%4%31", "/%4%31"),
            ("/%/%2e%2e/x", "/%/%2e%2e/x", "/x", "/x", "/x"),
            ("/%%2e%2e/x", "/%%2e%2e/x", "/%../x", "/%../x", "/%../x"),
            ("/100%", "/100%", "/100%", "/100%", "/100%"),
            ("/é/../ü", "/é/../ü", "/ü", "/ü", "/ü"),
            ("*", "*", "*", "*", "*"),
            ("", "", "", "", ""),
        ] {
            for (how, expected) in
                [(None, none), (Base, base), (MergeSlashes, merged), (DecodeAndMergeSlashes, decoded)]
            {
                assert_eq!(normalize(path, how), expected, "{path} {how:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn once_is_enough_and_nothing_is_left(path in "/([a4./\\\\]|%(2[eEfF]|5[cC]|4|%|61|34)?){0,12}") {
            for how in [Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes] {
                let once = normalize(&path, how).into_owned();
                prop_assert_eq!(&*normalize(&once, how), &*once);
                prop_assert!(once.starts_with('/') && !once.contains('\\'));
                let read = once.replace("%2e", ".").replace("%2E", ".");
                prop_assert!(!read.split('/').any(|segment| segment == "." || segment == ".."), "{}", once);
                prop_assert!(how == Normalization::Base || !once.contains("//"), "{}", once);
            }
        }
    }
}
