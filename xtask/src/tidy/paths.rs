//! The paths a source names: `use` trees flattened, and paths in expressions and types.

/// A path, segment by segment, and the line (from 1) where it starts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl Named {
    /// Whether the path names `pattern`: a crate by its first segment, a longer path anywhere.
    pub(crate) fn names(&self, pattern: &str) -> bool {
        let wanted: Vec<_> = pattern.split("::").collect();
        if wanted.len() == 1 {
            return self.segments.first().is_some_and(|first| first == pattern);
        }
        self.segments.windows(wanted.len()).any(|window| window == wanted)
    }
}

/// Every path in `code` (comments and literals already blank).
pub(crate) fn named(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].1 == "use" {
            at += 1;
            use_tree(&tokens, &mut at, &[], &mut found);
        } else {
            inline_path(&tokens, &mut at, &mut found);
        }
    }
    found
}

type Token<'a> = (usize, &'a str);

/// Words, `::` and single punctuation marks, each with its line.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut out = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            if !first.is_whitespace() {
                out.push((number + 1, &rest[..length]));
            }
            rest = &rest[length..];
        }
    }
    out
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Reads one use tree from `at`; stops at the `;`, `,` or `}` that ends it.
fn use_tree(tokens: &[Token<'_>], at: &mut usize, prefix: &[String], found: &mut Vec<Named>) {
    let mut path = prefix.to_vec();
    let line = tokens.get(*at).map_or(0, |token| token.0);
    let mut grouped = false;
    while let Some(&(_, token)) = tokens.get(*at) {
        match token {
            "::" => *at += 1,
            "{" => {
                grouped = true;
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.1 != "}") {
                    use_tree(tokens, at, &path, found);
                    if tokens.get(*at).is_some_and(|token| token.1 == ",") {
                        *at += 1;
                    } else if tokens.get(*at).is_some_and(|token| token.1 != "}") {
                        return; // not a use tree after all
                    }
                }
                *at += 1;
            }
            "as" => *at += 2,
            word if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                *at += 1;
            }
            _ => break,
        }
    }
    if !grouped && path.len() > prefix.len() {
        found.push(Named { line, segments: path });
    }
}

/// Reads `a::b::c` from `at`, or steps over one token. A lone word is no path.
fn inline_path(tokens: &[Token<'_>], at: &mut usize, found: &mut Vec<Named>) {
    let (line, first) = tokens[*at];
    *at += 1;
    if !is_word(first) {
        return;
    }
    let mut segments = vec![first.to_owned()];
    while let [(_, "::"), (_, next), ..] = &tokens[*at..]
        && is_word(next)
    {
        segments.push((*next).to_owned());
        *at += 2;
    }
    if segments.len() > 1 {
        found.push(Named { line, segments });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(code: &str) -> Vec<String> {
        named(code).into_iter().map(|path| format!("{}:{}", path.line, path.segments.join("::"))).collect()
    }

    #[test]
    fn use_trees_are_flattened() {
        let code = "use a::{b, c::{self, d as e}, f::*};\npub(crate) use ::g;\n";
        assert_eq!(shown(code), ["1:a::b", "1:a::c::self", "1:a::c::d", "1:a::f::*", "2:g"]);
    }

    #[test]
    fn inline_paths_are_found_and_lone_words_are_not() {
        assert_eq!(
            shown("let aya = 1;\nlet x = std::time::Instant::now() + aya;"),
            ["2:std::time::Instant::now"]
        );
        assert_eq!(shown("fn f(a: a::B<c::D>) {}"), ["1:a::B", "1:c::D"]);
    }

    #[test]
    fn crates_match_by_the_first_segment_paths_anywhere() {
        let path =
            Named { line: 1, segments: ["tokio", "time", "Instant", "now"].map(str::to_owned).to_vec() };
        assert!(path.names("tokio") && path.names("Instant::now") && path.names("tokio::time"));
        assert!(!path.names("time") && !path.names("now"));
    }
}
