//! What is measured: which loads, over which routes, with and without the mesh.

use std::fmt;

use serde::Serialize;

/// A load and what its number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    /// One stream of iperf3, bits per second.
    Bulk1,
    /// Four streams of iperf3 at once, bits per second.
    Bulk4,
    /// wrk on one kept connection, requests per second.
    KeepAlive1,
    /// wrk on 32 kept connections, requests per second.
    KeepAlive32,
    /// wrk with a new connection for each request, requests per second.
    New1,
    /// The same, 32 at once.
    New32,
    /// 1000 requests per second over 4 connections: the median, microseconds.
    P50,
    /// As `KeepAlive32`, through one rule that sends all requests to the service.
    Routed,
    /// The same through a header match, a split and retries.
    Matched,
    /// The same through the last of 100 routes.
    Hundred,
    /// h2load with gRPC's headers, 32 calls at a time on one connection, through a rule: calls per second.
    Unary,
    /// The same with four calls whose answers are 1 MB each, bits per second.
    Streaming,
}

impl Measure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Bulk1,
        Self::Bulk4,
        Self::KeepAlive1,
        Self::KeepAlive32,
        Self::New1,
        Self::New32,
        Self::P50,
        Self::Routed,
        Self::Matched,
        Self::Hundred,
        Self::Unary,
        Self::Streaming,
    ];

    /// The service whose rules it goes by; measured from node to node only.
    pub(crate) fn l7(self) -> Option<&'static str> {
        match self {
            Self::Routed | Self::Unary | Self::Streaming => Some("routed"),
            Self::Matched => Some("matched"),
            Self::Hundred => Some("hundred"),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bulk1 => "bulk, 1 stream",
            Self::Bulk4 => "bulk, 4 streams",
            Self::KeepAlive1 => "keep-alive, 1 connection",
            Self::KeepAlive32 => "keep-alive, 32 connections",
            Self::New1 => "new connections, 1 at once",
            Self::New32 => "new connections, 32 at once",
            Self::P50 => "p50 at 1000 requests/s",
            Self::Routed => "L7, one rule, 32 connections",
            Self::Matched => "L7, match, split, retries, 32",
            Self::Hundred => "L7, last of 100 routes, 32",
            Self::Unary => "L7, gRPC unary, 32 calls",
            Self::Streaming => "L7, gRPC streams of 1 MB, 4",
        }
    }

    /// A value as people read it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Bulk1 | Self::Bulk4 | Self::Streaming => format!("{:.2} Gbit/s", value / 1e9),
            Self::P50 => format!("{value:.0} us"),
            _ => format!("{value:.0}/s"),
        }
    }
}

/// Between which pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Route {
    /// From node to node.
    CrossNode,
    /// Within a node.
    SameNode,
}

impl Route {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CrossNode => "cross-node",
            Self::SameNode => "same-node",
        }
    }
}

/// With or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Pods of a namespace without the label, on the same nodes.
    Direct,
    /// Pods of a namespace with the label.
    Mesh,
}

/// How much of it, how long, how often.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) only: Option<String>,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    pub(crate) fn wants_memory(&self) -> bool {
        self.wants("rss memory")
    }

    /// Whether anything goes by rules for requests.
    pub(crate) fn wants_rules(&self) -> bool {
        self.wants_memory() || self.loads().iter().any(|(measure, _)| measure.l7().is_some())
    }

    /// The loads, in the order of the table.
    pub(crate) fn loads(&self) -> Vec<(Measure, Route)> {
        let both = [Route::CrossNode, Route::SameNode];
        let all = both.into_iter().flat_map(|route| Measure::ALL.map(|measure| (measure, route)));
        let all = all.filter(|(measure, route)| measure.l7().is_none() || *route == Route::CrossNode);
        all.filter(|(measure, route)| self.wants(&format!("{} {}", route.name(), measure.name()))).collect()
    }
}

/// One load, once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) measure: Measure,
    pub(crate) route: Route,
    pub(crate) mode: Mode,
    pub(crate) round: u32,
    /// In the measure's unit; none when the load failed.
    pub(crate) value: Option<f64>,
    /// Bytes or requests that came through.
    pub(crate) amount: f64,
    /// Requests or connections that failed.
    pub(crate) errors: u64,
    /// CPU seconds of both agents while it ran.
    pub(crate) agents_cpu_seconds: f64,
    /// Why there is no value.
    pub(crate) failure: Option<String>,
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (route, measure) = (self.route.name(), self.measure.name());
        let mode = match self.mode {
            Mode::Direct => "direct",
            Mode::Mesh => "mesh",
        };
        write!(out, "round {}  {route:<10}  {measure:<29}  {mode:<6}  ", self.round)?;
        match (self.value, &self.failure) {
            (Some(value), _) => write!(out, "{}", self.measure.show(value))?,
            (None, why) => write!(out, "failed: {}", why.as_deref().unwrap_or("no result"))?,
        }
        if self.errors > 0 {
            write!(out, "  ({} errors)", self.errors)?;
        }
        Ok(())
    }
}
