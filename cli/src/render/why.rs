//! `warren why`: every decision on its way, a line each.

use super::{Style, clean};
use std::fmt::Write as _;
use warren_common::model::admin::{Transport, Verdict, Why, WhyMark, WhyOutcome, WhyRow};

/// Where the text of steps begins.
const INDENT: usize = 13;

/// All of it. `wide`: without leaving out what could not be.
pub(crate) fn why(why: &Why, wide: bool, style: Style) -> String {
    let mut text = format!("{}\n", style.bold(&format!("{}: {}", clean(&why.client), clean(&why.asked))));
    for step in &why.steps {
        let about = style.dim(&format!("{:<width$}", step.about, width = INDENT - 2));
        let _ = writeln!(text, "  {about}{}", clean(&step.text));
        text += &rows(&step.rows, wide, style);
    }
    text + &outcome(&why.outcome, style)
}

/// In columns. Rules that did not hold are many: beside the chosen one only the last few are shown, unless `wide`.
fn rows(rows: &[WhyRow], wide: bool, style: Style) -> String {
    const FEW: usize = 12;
    let hidden = if wide { 0 } else { rows.len().saturating_sub(FEW) };
    let chosen = rows.iter().position(|row| row.mark == WhyMark::Chosen);
    // The chosen one stays, wherever it stands.
    let begins_with_it = chosen.is_some_and(|chosen| chosen < hidden);
    let shown: Vec<&WhyRow> =
        if begins_with_it { rows.iter().take(FEW).collect() } else { rows.iter().skip(hidden).collect() };
    let columns = shown.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells =
                shown.iter().filter(|row| row.cells.len() > 1).filter_map(|row| row.cells.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let more = format!("{:INDENT$}{}\n", "", style.dim(&format!("... {hidden} more; -o wide shows them")));
    if hidden > 0 && !begins_with_it {
        text += &more;
    }
    for row in shown {
        let mark = match row.mark {
            WhyMark::Chosen => style.tick(),
            WhyMark::Possible => style.maybe().to_owned(),
            WhyMark::Excluded => style.cross(),
        };
        let mut line = String::new();
        for (cell, width) in row.cells.iter().zip(&widths) {
            let _ = write!(line, "{:<width$}  ", clean(cell));
        }
        let line = line.trim_end();
        let line = if row.mark == WhyMark::Excluded { style.dim(line) } else { line.to_owned() };
        let _ = writeln!(text, "{:INDENT$}{mark} {line}", "");
    }
    if hidden > 0 && begins_with_it {
        text += &more;
    }
    text
}

fn outcome(outcome: &WhyOutcome, style: Style) -> String {
    let bad = outcome.flag.is_some()
        || outcome.verdict == Verdict::Denied
        || outcome.status.is_some_and(|status| status >= 500)
        || (outcome.status.is_none() && outcome.transport == Transport::None);
    let mark = if bad { style.cross() } else { style.tick() };
    let by = match (outcome.verdict, &outcome.policy) {
        (Verdict::Allowed, Some(rule)) if rule.starts_with("allow") => format!(", {rule}"),
        (Verdict::Allowed, Some(rule)) => format!(", allowed by {rule}"),
        _ => String::new(),
    };
    let chance = if outcome.certain { "" } else { " (chance decides: others like it may take another way)" };
    let text = format!("{}{by}{chance}", outcome.text);
    format!("{mark} {}\n", clean(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, chosen: usize) -> Why {
        let row = |n: usize| {
            let (mark, why) = if n == chosen { ("chosen", "") } else { ("excluded", "the path is /x") };
            serde_json::json!({"mark": mark, "cells": [format!("r{n}"), "path /y", why]})
        };
        serde_json::from_value(serde_json::json!({
            "client": "shop/client", "asked": "GET http://web/x",
            "steps": [
                {"about": "service", "text": "web.shop.svc.cluster.local port 80, at 10.96.0.7:80"},
                {"about": "rules", "text": "r1 holds, number 2 of 2", "rows": (0..rows).map(row).collect::<Vec<_>>()},
            ],
            "outcome": {"text": "goes to shop/far at 10.0.2.3:8080", "certain": true, "transport": "hbone",
                "verdict": "allowed", "policy": "allow (no ALLOW policy)"},
        }))
        .unwrap()
    }

    #[test]
    fn decisions_line_up_and_the_outcome_is_last() {
        assert_eq!(
            why(&sample(2, 1), false, Style::plain(true)),
            "shop/client: GET http://web/x
  service    web.shop.svc.cluster.local port 80, at 10.96.0.7:80
  rules      r1 holds, number 2 of 2
             ✗ r0  path /y  the path is /x
             ✓ r1  path /y
✓ goes to shop/far at 10.0.2.3:8080, allow (no ALLOW policy)
"
        );
        let mut refused = sample(0, 0);
        refused.outcome.flag = Some("DENY".into());
        refused.outcome.verdict = Verdict::Denied;
        refused.outcome.certain = false;
        let text = why(&refused, false, Style::plain(false));
        assert!(
            text.ends_with(
                "x goes to shop/far at 10.0.2.3:8080 (chance decides: others like it may take another way)\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn of_many_rows_few_are_shown_and_always_the_chosen_one() {
        let last = why(&sample(40, 39), false, Style::plain(true));
        assert!(last.contains("... 28 more") && last.contains("✓ r39") && !last.contains("r0 "), "{last}");
        let first = why(&sample(40, 0), false, Style::plain(true));
        assert!(first.contains("... 28 more") && first.contains("✓ r0"), "{first}");
        assert!(why(&sample(40, 39), true, Style::plain(true)).contains("r0 "));
    }
}
