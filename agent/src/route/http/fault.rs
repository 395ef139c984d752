//! Trouble made on purpose.

use super::split::is_drawn;
use std::time::Duration;
use warren_common::model::traffic::{Fault, FaultAbort};

/// What hits one request: first the pause, then the error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultDraw {
    /// A pause before anything else; it is no part of the rule's timeout (`DI`).
    pub delay: Option<Duration>,
    /// The answer instead of the application's (`FI`); it is not tried again.
    pub abort: Option<FaultAbort>,
}

/// Draws for one request. Delay and error are drawn for themselves: give two random numbers.
pub fn draw_fault(fault: &Fault, entropy: [u64; 2]) -> FaultDraw {
    let [for_delay, for_abort] = entropy;
    let delay = fault.delay.filter(|delay| is_drawn(delay.per_million, for_delay));
    FaultDraw {
        delay: delay.map(|delay| Duration::from_millis(delay.delay_ms)),
        abort: fault.abort.filter(|abort| is_drawn(abort.per_million, for_abort)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::spread;
    use super::*;
    use warren_common::model::traffic::FaultDelay;

    #[test]
    fn both_are_drawn_for_themselves() {
        let abort = FaultAbort { http_status: 503, grpc_status: None, per_million: 200_000 };
        let fault =
            Fault { delay: Some(FaultDelay { delay_ms: 7000, per_million: 100_000 }), abort: Some(abort) };
        let draws: Vec<_> = (0..100_000)
            .map(|n| draw_fault(&fault, [spread(n), spread(n.wrapping_mul(0x5851_f42d))]))
            .collect();
        let delayed = draws.iter().filter(|draw| draw.delay == Some(Duration::from_secs(7))).count();
        let aborted = draws.iter().filter(|draw| draw.abort == Some(abort)).count();
        let both = draws.iter().filter(|draw| draw.delay.is_some() && draw.abort.is_some()).count();
        assert!(delayed.abs_diff(10_000) < 100 && aborted.abs_diff(20_000) < 300, "{delayed} {aborted}");
        assert!(both.abs_diff(2_000) < 400, "{both}");
        assert_eq!(draw_fault(&Fault::default(), [0, 0]), FaultDraw::default());
    }
}
