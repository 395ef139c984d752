//! Expressions: compiled once for all tables.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use warren_common::model::traffic::values::{Expression, ExpressionError, Extent};

/// So many expressions a check remembers.
const MOST_CHECKED: usize = 1 << 15;

/// Expressions in use, so that each is compiled once however many clients, services and versions name it.
#[derive(Debug, Default)]
pub struct Patterns {
    known: Mutex<Known>,
    /// What is handed out instead of any other, where nobody is to match anything.
    stand_in: Option<Arc<Expression>>,
}

/// Which expressions can be used: of a table that comes again with a change only what is new is compiled, and nothing of it is
/// kept but the text.
#[derive(Debug)]
pub struct Checks(Patterns);

#[derive(Debug, Default)]
struct Known {
    patterns: HashMap<(Extent, Arc<str>), Weak<Expression>>,
    /// With so many, those that nobody uses any more are forgotten.
    full: usize,
}

impl Patterns {
    pub(super) fn get(&self, text: &Arc<str>, extent: Extent) -> Result<Arc<Expression>, ExpressionError> {
        let mut known = self.known.lock();
        let key = (extent, Arc::clone(text));
        if let Some(pattern) = known.patterns.get(&key).and_then(Weak::upgrade) {
            return Ok(pattern);
        }
        let compiled = Expression::new(text, extent)?;
        let pattern = self.stand_in.clone().unwrap_or_else(|| Arc::new(compiled));
        if known.patterns.len() >= known.full {
            match self.stand_in {
                // All of them are in use, for ever.
                Some(_) => {
                    known.patterns.clear();
                    known.full = MOST_CHECKED;
                }
                None => {
                    known.patterns.retain(|_, pattern| pattern.strong_count() > 0);
                    known.full = 64 + 2 * known.patterns.len();
                }
            }
        }
        known.patterns.insert(key, Arc::downgrade(&pattern));
        Ok(pattern)
    }
}

impl Checks {
    /// Not for matching: what is compiled with these holds anything.
    pub(super) fn patterns(&self) -> &Patterns {
        &self.0
    }
}

impl Default for Checks {
    fn default() -> Self {
        let stand_in = Expression::new("", Extent::Part).ok().map(Arc::new);
        Self(Patterns { stand_in, ..Patterns::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_shared_and_forgotten_with_their_last_user() {
        let patterns = Patterns::default();
        let get = |text: &str| patterns.get(&text.into(), Extent::Whole).unwrap();
        let first = get("a+");
        assert!(Arc::ptr_eq(&first, &get("a+")));
        for n in 0..1000 {
            get(&format!("b{n}"));
        }
        assert!(patterns.known.lock().patterns.len() <= 66);
        assert!(Arc::ptr_eq(&first, &get("a+")));
    }

    #[test]
    fn checks_compile_once_and_keep_nothing() {
        let checks = Checks::default();
        let get = |text: &str, extent| checks.patterns().get(&text.into(), extent);
        let first = get("a+", Extent::Whole).unwrap();
        assert!(Arc::ptr_eq(&first, &get("b{1000}", Extent::Part).unwrap()), "one stands for all");
        assert!(get("(", Extent::Whole).is_err() && get("a)(b", Extent::Whole).is_err());
        assert_eq!(checks.0.known.lock().patterns.len(), 2);
        for n in 0..MOST_CHECKED {
            let key = (Extent::Whole, format!("c{n}").into());
            checks.0.known.lock().patterns.insert(key, Arc::downgrade(&first));
        }
        get("d", Extent::Whole).unwrap();
        assert_eq!(checks.0.known.lock().patterns.len(), 1, "they are forgotten when there are too many");
    }
}
