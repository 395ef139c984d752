//! The table at the end.

use std::io::{self, Write as _};

use anyhow::Result;

use super::results::{Results, Row};
use crate::terminal::Terminal;

pub(crate) fn print(results: &Results) -> Result<()> {
    let terminal = Terminal::detect();
    let mut out = io::stdout().lock();
    let head = format!(
        "\n{:<35} {:>13} {:>13} {:>9} {:>9} {:>10}",
        "", "DIRECT", "MESH", "ZTUNNEL", "GOAL", "MEASURED"
    );
    writeln!(out, "{}", terminal.bold(&head))?;
    for group in results {
        writeln!(out, "{}", terminal.bold(&group.title))?;
        for row in &group.rows {
            writeln!(out, "{}", line(row, terminal).trim_end())?;
        }
    }
    Ok(())
}

fn line(row: &Row, terminal: Terminal) -> String {
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| with_unit(value, row.unit));
    let sign = if row.more_is_better { ">=" } else { "<=" };
    let goal =
        row.goal.map_or_else(|| "-".to_owned(), |goal| format!("{sign} {}", with_unit(goal, row.unit)));
    let verdict = match (row.met, row.goal, row.measured) {
        (Some(true), _, _) => terminal.tick(),
        (Some(false), _, _) | (None, Some(_), None) => terminal.cross(),
        (None, _, _) => String::new(),
    };
    let errors = match row.errors {
        0 => String::new(),
        count => format!("  {count} errors"),
    };
    format!(
        "  {:<33} {:>13} {:>13} {:>9} {:>9} {:>10} {verdict}{errors}",
        row.name,
        row.direct,
        row.mesh,
        number(row.ztunnel),
        goal,
        number(row.measured),
    )
}

fn with_unit(value: f64, unit: &str) -> String {
    let digits = match unit {
        "us" => 0,
        "MB" | "KB" => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}
