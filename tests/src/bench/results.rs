//! From samples to the rows of the table: medians, ratios, CPU per unit of work.

use serde::Serialize;

use super::budget::{self, Budget, Goal};
use super::memory::Memory;
use super::plan::{Measure, Mode, Route, Sample};

/// Rows under their headings.
pub(crate) type Results = Vec<Group>;

/// Rows that belong together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// As people read it; empty where there is no such thing.
    pub(crate) direct: String,
    pub(crate) mesh: String,
    /// What is compared with the goal; none when the load failed.
    pub(crate) measured: Option<f64>,
    pub(crate) ztunnel: Option<f64>,
    pub(crate) goal: Option<f64>,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
    pub(crate) met: Option<bool>,
    pub(crate) errors: u64,
    pub(crate) unit: &'static str,
}

impl Row {
    fn new(name: &str, measured: Option<f64>, budget: Option<Budget>, unit: &'static str) -> Self {
        let limit = |goal| match goal {
            Goal::AtLeast(limit) | Goal::AtMost(limit) => limit,
        };
        Self {
            name: name.to_owned(),
            direct: String::new(),
            mesh: String::new(),
            measured,
            ztunnel: budget.and_then(|budget| budget.ztunnel),
            goal: budget.map(|budget| limit(budget.goal)),
            more_is_better: budget.is_none_or(|budget| matches!(budget.goal, Goal::AtLeast(_))),
            met: budget.and_then(|budget| measured.map(|value| budget.goal.is_met(value))),
            errors: 0,
            unit,
        }
    }
}

/// Everything that the samples tell.
pub(crate) fn of(samples: &[Sample], memory: Option<&Memory>) -> Results {
    let mut groups: Results = Vec::new();
    for route in [Route::CrossNode, Route::SameNode] {
        let rows: Vec<_> =
            Measure::ALL.into_iter().filter_map(|measure| ratio(samples, measure, route)).collect();
        groups.push(Group { title: format!("{}, mesh / direct", route.name()), rows });
    }
    let cpu = [
        ("CPU per GB", &[Measure::Bulk1, Measure::Bulk4][..], 1e9, budget::CPU_PER_GB, "s"),
        ("CPU per request, 32 connections", &[Measure::KeepAlive32], 1e6, budget::CPU_PER_REQUEST, "us"),
        ("CPU per new connection, 32 at once", &[Measure::New32], 1e6, budget::CPU_PER_CONNECTION, "us"),
        ("CPU per request, L7, one rule", &[Measure::Routed], 1e6, budget::CPU_PER_ROUTED, "us"),
        ("CPU per request, L7, match, split", &[Measure::Matched], 1e6, budget::CPU_PER_ROUTED, "us"),
        ("CPU per request, L7, 100 routes", &[Measure::Hundred], 1e6, budget::CPU_PER_ROUTED, "us"),
        ("CPU per call, L7, gRPC unary", &[Measure::Unary], 1e6, budget::CPU_PER_ROUTED, "us"),
    ];
    let rows = cpu.into_iter().filter_map(|(name, measures, factor, budget, unit)| {
        let spent = cpu_per_unit(samples, measures)? * factor;
        Some(Row::new(name, Some(spent), Some(budget), unit))
    });
    groups.push(Group { title: "both agents' CPU, cross-node".to_owned(), rows: rows.collect() });
    let rows = memory.into_iter().flat_map(|memory| {
        let (idle, each) = (memory.idle_mb(), memory.per_connection_kb());
        [
            Row::new("RSS idle", Some(idle), Some(budget::RSS_IDLE), "MB"),
            Row::new("RSS per quiet connection", Some(each), Some(budget::RSS_PER_CONNECTION), "KB"),
            Row::new(
                "RSS per quiet HTTP connection",
                Some(memory.per_http_connection_kb()),
                Some(budget::RSS_PER_HTTP_CONNECTION),
                "KB",
            ),
            Row::new(
                &format!("RSS with {} of them", memory.http_connections),
                Some(memory.http_mb()),
                Some(budget::RSS_HTTP),
                "MB",
            ),
        ]
    });
    groups.push(Group { title: "memory, the larger agent".to_owned(), rows: rows.collect() });
    groups.retain(|group| !group.rows.is_empty());
    groups
}

fn of_kind(samples: &[Sample], measure: Measure, route: Route, mode: Mode) -> impl Iterator<Item = &Sample> {
    samples
        .iter()
        .filter(move |sample| sample.measure == measure && sample.route == route && sample.mode == mode)
}

fn ratio(samples: &[Sample], measure: Measure, route: Route) -> Option<Row> {
    let all = |mode| of_kind(samples, measure, route, mode);
    all(Mode::Mesh).next()?;
    let middle = |mode| median(all(mode).filter_map(|sample| sample.value).collect());
    let (direct, mesh) = (middle(Mode::Direct), middle(Mode::Mesh));
    let measured = direct.zip(mesh).map(|(direct, mesh)| mesh / direct);
    let mut row = Row::new(measure.name(), measured, budget::of_ratio(measure, route), "");
    let show = |value: Option<f64>| value.map_or_else(|| "failed".to_owned(), |value| measure.show(value));
    (row.direct, row.mesh) = (show(direct), show(mesh));
    row.more_is_better = measure != Measure::P50;
    row.errors = all(Mode::Mesh).map(|sample| sample.errors).sum();
    Some(row)
}

/// Agents' CPU seconds per byte or request, over all rounds of the mesh.
fn cpu_per_unit(samples: &[Sample], measures: &[Measure]) -> Option<f64> {
    let (mut cpu, mut amount) = (0.0, 0.0);
    for &measure in measures {
        for sample in of_kind(samples, measure, Route::CrossNode, Mode::Mesh) {
            cpu += sample.agents_cpu_seconds;
            amount += sample.amount;
        }
    }
    (amount > 0.0).then(|| cpu / amount)
}

/// The middle value, or the mean of the two middle ones.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(mode: Mode, round: u32, value: Option<f64>) -> Sample {
        Sample {
            measure: Measure::KeepAlive32,
            route: Route::CrossNode,
            mode,
            round,
            value,
            amount: 1000.0,
            errors: 1,
            agents_cpu_seconds: 0.05,
            failure: None,
        }
    }

    #[test]
    fn medians_make_the_ratio_and_failed_rounds_do_not_count() {
        let mut samples = vec![sample(Mode::Direct, 1, Some(100.0)), sample(Mode::Direct, 2, Some(300.0))];
        samples.extend([Some(90.0), None, Some(110.0)].map(|value| sample(Mode::Mesh, 1, value)));
        let groups = of(&samples, None);
        let row = &groups[0].rows[0];
        assert_eq!((row.measured, row.met, row.errors), (Some(0.5), Some(false), 3));
        let cpu = &groups[1].rows[0];
        assert!((cpu.measured.expect("measured") - 50.0).abs() < 1e-9);
        assert_eq!(cpu.met, Some(false));
    }

    #[test]
    fn a_mesh_that_always_failed_meets_nothing() {
        let samples = [sample(Mode::Direct, 1, Some(1.0)), sample(Mode::Mesh, 1, None)];
        let groups = of(&samples, None);
        assert_eq!((groups[0].rows[0].measured, groups[0].rows[0].met), (None, None));
        assert_eq!(groups[0].rows[0].mesh, "failed");
    }
}
