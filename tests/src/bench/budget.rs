//! The budgets of DESIGN section 11: what ztunnel (August 2026) measured, and warren's goal.

use super::plan::{Measure, Route};

/// What a number should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

/// ztunnel's number and warren's goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget {
    /// None for what it does not do.
    pub(crate) ztunnel: Option<f64>,
    pub(crate) goal: Goal,
}

const fn at_least(ztunnel: f64, goal: f64) -> Budget {
    Budget { ztunnel: Some(ztunnel), goal: Goal::AtLeast(goal) }
}

const fn at_most(ztunnel: f64, goal: f64) -> Budget {
    Budget { ztunnel: Some(ztunnel), goal: Goal::AtMost(goal) }
}

const fn alone(goal: Goal) -> Budget {
    Budget { ztunnel: None, goal }
}

/// Mesh divided by direct.
pub(crate) fn of_ratio(measure: Measure, route: Route) -> Option<Budget> {
    Some(match (route, measure) {
        (Route::CrossNode, Measure::Bulk1 | Measure::Bulk4) => at_least(0.27, 0.50),
        (Route::CrossNode, Measure::KeepAlive1) => at_least(0.39, 0.55),
        (Route::CrossNode, Measure::KeepAlive32) => at_least(0.30, 0.55),
        (Route::CrossNode, Measure::New1) => at_least(0.22, 0.45),
        (Route::CrossNode, Measure::New32) => at_least(0.24, 0.45),
        (Route::CrossNode, Measure::P50) => at_most(3.0, 1.8),
        (Route::SameNode, Measure::Bulk1 | Measure::Bulk4) => at_least(0.24, 0.95),
        (Route::SameNode, Measure::KeepAlive32) => at_least(0.33, 0.95),
        (Route::SameNode, Measure::New1 | Measure::New32) => at_least(0.26, 0.95),
        _ => return None,
    })
}

/// CPU seconds of both agents per GB (10^9 bytes).
pub(crate) const CPU_PER_GB: Budget = at_most(1.58, 0.75);
/// CPU microseconds of both agents per request, 32 kept connections, no L7.
pub(crate) const CPU_PER_REQUEST: Budget = at_most(74.0, 30.0);
/// CPU microseconds of both agents per new connection, 32 at once.
pub(crate) const CPU_PER_CONNECTION: Budget = at_most(369.0, 150.0);
/// Resident MB of an idle agent.
pub(crate) const RSS_IDLE: Budget = at_most(17.0, 12.0);
/// Resident KB of an agent per quiet open connection.
pub(crate) const RSS_PER_CONNECTION: Budget = at_most(6.0, 3.0);
/// CPU microseconds of both agents per request, 32 kept connections, with rules for requests.
pub(crate) const CPU_PER_ROUTED: Budget = alone(Goal::AtMost(80.0));
/// Resident KB of an agent per quiet HTTP connection.
pub(crate) const RSS_PER_HTTP_CONNECTION: Budget = alone(Goal::AtMost(8.0));
/// Resident MB of an agent with 10,000 quiet HTTP connections.
pub(crate) const RSS_HTTP: Budget = alone(Goal::AtMost(100.0));
