//! Source text without what isn't code: comments, strings and characters become spaces, lines stay lines.

/// Blanks comments and literals, so that a search can't find a word in prose.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The code up to the file's test module; tests may do what the code may not.
pub(crate) fn without_tests(code: &str) -> &str {
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let at = from + found;
        let after = code[at + "#[cfg(test)]".len()..].trim_start();
        let inline = after.split_once(['{', ';']).is_some_and(|(head, _)| {
            head.trim_start_matches("pub(crate) ").starts_with("mod ") && after[head.len()..].starts_with('{')
        });
        if inline {
            return &code[..at];
        }
        from = at + 1;
    }
    code
}

/// Where the comment or literal that starts at `at` ends; `at` itself when there is none.
fn literal_or_comment(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let fresh_word = at == 0 || !is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment(rest),
        [b'"', ..] => at + quoted(rest, b'"'),
        [b'b' | b'c', b'"', ..] if fresh_word => at + 1 + quoted(&rest[1..], b'"'),
        [b'r', b'"' | b'#', ..] if fresh_word => at + raw(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if fresh_word => at + raw(rest, 2),
        [b'\'', b'\\', ..] => at + quoted(rest, b'\''),
        // 'x' is a character, 'x without a closing quote a lifetime; characters may take up to four bytes.
        [b'\'', ..] => {
            let closing = (2..=5).find(|&end| rest.get(end) == Some(&b'\''));
            match closing {
                Some(end) if end == 2 || !rest[1].is_ascii() => at + end + 1,
                _ => at,
            }
        }
        _ => at,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string whose hashes start at `prefix`; 0 when it is a raw identifier.
fn raw(rest: &[u8], prefix: usize) -> usize {
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return 0;
    }
    let mut closing = vec![b'"'];
    closing.resize(hashes + 1, b'#');
    rest[open + 1..]
        .windows(closing.len())
        .position(|window| window == closing)
        .map_or(rest.len(), |found| open + 1 + found + closing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_blank_and_lines_stay() {
        let text = "a // aya::x\n/* b /* c */\n d */ e \"aya::\\\"y\" 'f' '\\'' r#\"g\"# <'h> r#type 'ü'\nz";
        let code = code_only(text);
        assert_eq!(code.lines().count(), text.lines().count());
        let words: Vec<_> = code.split_whitespace().collect();
        assert_eq!(words, ["a", "e", "<'h>", "r#type", "z"]);
    }

    #[test]
    fn an_inline_test_module_ends_the_code() {
        assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\n b }"), "a\n");
        let kept = "#[cfg(test)]\nmod tests;\nfn a() {}";
        assert_eq!(without_tests(kept), kept);
    }
}
