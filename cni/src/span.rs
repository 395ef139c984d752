//! Where values lie in a text of JSON, so that a file can be changed without rewriting what is not ours: order,
//! spacing and numbers of any size stay as they are.
//!
//! The text must be valid JSON (callers let `serde_json` check it first); in any other text nothing is found, or
//! something useless, but nothing panics.

use std::ops::Range;

/// The members of the outermost object: each key with the place of its value. Empty for anything else.
pub(crate) fn members(text: &str) -> Vec<(String, Range<usize>)> {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    let mut found = Vec::new();
    scan.blank();
    if !scan.eat(b'{') {
        return found;
    }
    loop {
        scan.blank();
        let Some(key) = scan.value() else { return found };
        scan.blank();
        if !scan.eat(b':') {
            return found;
        }
        scan.blank();
        let Some(value) = scan.value() else { return found };
        let key = text.get(key).and_then(|key| serde_json::from_str(key).ok());
        found.extend(key.map(|key| (key, value)));
        scan.blank();
        if !scan.eat(b',') {
            return found;
        }
    }
}

/// The places of an array's elements in `text`, where `array` is the array's own. Empty for anything else.
pub(crate) fn elements(text: &str, array: &Range<usize>) -> Vec<Range<usize>> {
    let mut scan = Scan { bytes: text.as_bytes(), at: array.start };
    let mut found = Vec::new();
    if !scan.eat(b'[') {
        return found;
    }
    loop {
        scan.blank();
        match scan.value() {
            Some(value) if value.end <= array.end => found.push(value),
            _ => return found,
        }
        scan.blank();
        if !scan.eat(b',') {
            return found;
        }
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Steps over one value.
    fn value(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    // Not ours to close: no value begins here.
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => self.at += 1,
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => return None,
                _ => self.word(),
            }
            if depth == 0 {
                return Some(start..self.at);
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                _ => self.at += 1,
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) {
        while !matches!(
            self.peek(),
            None | Some(b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"' | b' ' | b'\t' | b'\r' | b'\n')
        ) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn values_are_found_where_they_are() {
        let text = r#" { "a\"b" : [ 1e400 , {"x": "]"} ,"}" ], "c":null , "d" : {} } "#;
        let found = members(text);
        let shown: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), &text[value.clone()])).collect();
        assert_eq!(shown, [("a\"b", r#"[ 1e400 , {"x": "]"} ,"}" ]"#), ("c", "null"), ("d", "{}")]);
        let elements: Vec<_> = elements(text, &found[0].1).into_iter().map(|place| &text[place]).collect();
        assert_eq!(elements, ["1e400", r#"{"x": "]"}"#, r#""}""#]);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_parser(map in proptest::collection::btree_map(".{0,4}", json(), 0..5), pretty: bool) {
            let value = Value::from(map.into_iter().collect::<serde_json::Map<_, _>>());
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let found = members(&text);
            prop_assert_eq!(found.len(), value.as_object().unwrap().len());
            for (key, place) in found {
                let expected = &value[&key];
                prop_assert_eq!(&serde_json::from_str::<Value>(&text[place.clone()]).unwrap(), expected);
                if let Some(array) = expected.as_array() {
                    let parts = elements(&text, &place).into_iter();
                    let parts: Vec<Value> = parts.map(|part| serde_json::from_str(&text[part]).unwrap()).collect();
                    prop_assert_eq!(&parts, array);
                }
            }
        }

        #[test]
        fn nothing_panics(text in ".{0,60}", json in r#"[{}\[\]",:\\ a1]{0,40}"#) {
            for text in [text, json] {
                for (_, place) in members(&text) {
                    let _ = elements(&text, &place);
                }
            }
        }
    }
}
