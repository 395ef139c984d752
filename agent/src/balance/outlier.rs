//! Endpoints that fail are left out for a while (reference 4.7).
//!
//! ```text
//!            errors in a row reach a threshold,
//!            and fewer than max_ejection_percent are out
//!   in use ------------------------------------------------> out, until now + base * times (at most 300 s)
//!          <------------------------------------------------
//!            at the first sweep after that; the counts begin anew
//! ```
//! A sweep comes every `interval`; an endpoint that is in use then has been out one time less.

use crate::route::http::Ended;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use warren_common::model::WorkloadUid;
use warren_common::model::traffic::Outliers;

/// Nobody is out for longer at a time, unless the base is longer.
const MAX_EJECTION: Duration = Duration::from_secs(300);

/// What an endpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It answered with this status.
    Status(u16),
    /// TCP: a connection was made.
    Connected,
    /// No connection, or one that ended without a response, or no response in time.
    Failed,
}

impl Signal {
    /// How a try ended; none: it says nothing of the endpoint. A gRPC status counts as the HTTP status that stands for it.
    pub fn of(ended: Ended) -> Option<Self> {
        match ended {
            Ended::Overflow => None,
            Ended::Response { grpc: Some(grpc), status: 200 } => Some(Self::Status(of_grpc(grpc))),
            Ended::Response { status, .. } => Some(Self::Status(status)),
            Ended::NoConnection
            | Ended::ResetBeforeRequest
            | Ended::Refused
            | Ended::Reset
            | Ended::TimedOut => Some(Self::Failed),
        }
    }
}

/// As `google.rpc.Code` says it.
fn of_grpc(status: u8) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// What there were too many of in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Errors of any kind.
    ServerErrors,
    /// 502, 503, 504.
    GatewayErrors,
    /// Failed connections, counted for themselves.
    LocalFailures,
}

impl Cause {
    /// Its name in metrics (as Envoy's).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerErrors => "consecutive_5xx",
            Self::GatewayErrors => "consecutive_gateway_failure",
            Self::LocalFailures => "consecutive_local_origin_failure",
        }
    }
}

/// The endpoints of a service, port and subset, as one client sees them.
#[derive(Debug)]
pub struct Detector {
    config: Outliers,
    // Only endpoints that failed lately.
    hosts: HashMap<WorkloadUid, Host>,
    out: usize,
    next_sweep: Instant,
}

#[derive(Debug, Default)]
struct Host {
    server_errors: u32,
    gateway_errors: u32,
    failures: u32,
    times: u32,
    until: Option<(Instant, Cause)>,
}

impl Detector {
    /// A detector that has seen nothing.
    pub fn new(config: Outliers, now: Instant) -> Self {
        let next_sweep = now + interval(&config);
        Self { config, hosts: HashMap::new(), out: 0, next_sweep }
    }

    /// Other thresholds; who is out stays out for its time.
    pub fn configure(&mut self, config: Outliers, now: Instant) {
        self.next_sweep = self.next_sweep.min(now + interval(&config));
        self.config = config;
    }

    /// An endpoint, one of `total`, did something. Returned is why it is out from now on, if it is.
    pub fn report(
        &mut self,
        endpoint: &WorkloadUid,
        signal: Signal,
        total: usize,
        now: Instant,
    ) -> Option<Cause> {
        let is_good = match signal {
            Signal::Status(status) => status < 500,
            Signal::Connected => true,
            Signal::Failed => false,
        };
        if is_good && !self.hosts.contains_key(endpoint) {
            return None;
        }
        let host = self.hosts.entry(endpoint.clone()).or_default();
        if host.until.is_some() {
            // What was under way when it was put out says nothing new.
            return None;
        }
        let cause = host.count(signal, &self.config)?;
        let base = Duration::from_millis(self.config.base_ejection_ms);
        if self.out * 100 >= usize::from(self.config.max_ejection_percent) * total {
            return None;
        }
        host.times = host.times.saturating_add(1);
        host.until = Some((now + base.saturating_mul(host.times).min(MAX_EJECTION.max(base)), cause));
        self.out += 1;
        Some(cause)
    }

    /// Looks who may come back, if it is time to. Returned are those that do.
    pub fn sweep(&mut self, now: Instant) -> Vec<WorkloadUid> {
        if now < self.next_sweep {
            return vec![];
        }
        self.next_sweep = now + interval(&self.config);
        let mut back = Vec::new();
        self.hosts.retain(|uid, host| {
            match host.until {
                Some((until, _)) if until <= now => {
                    *host = Host { times: host.times, ..Host::default() };
                    back.push(uid.clone());
                }
                Some(_) => {}
                None => host.times = host.times.saturating_sub(1),
            }
            host.is_worth_keeping()
        });
        self.out -= back.len().min(self.out);
        back.sort();
        back
    }

    /// When [`Self::sweep`] has something to do; none while nobody has failed.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.hosts.is_empty()).then_some(self.next_sweep)
    }

    /// Forgets endpoints that are no more.
    pub fn retain(&mut self, is_member: impl Fn(&WorkloadUid) -> bool) {
        self.hosts.retain(|uid, _| is_member(uid));
        self.out = self.hosts.values().filter(|host| host.until.is_some()).count();
    }

    /// Whether an endpoint is left out.
    pub fn is_out(&self, endpoint: &WorkloadUid) -> bool {
        self.out > 0 && self.hosts.get(endpoint).is_some_and(|host| host.until.is_some())
    }

    /// Who is left out, why, and until when at least.
    pub fn left_out(&self) -> impl Iterator<Item = (&WorkloadUid, Cause, Instant)> {
        self.hosts.iter().filter_map(|(uid, host)| host.until.map(|(until, cause)| (uid, cause, until)))
    }

    /// How many are left out.
    pub fn out(&self) -> usize {
        self.out
    }
}

impl Host {
    /// What there are too many of now; counting begins anew then, whether it is put out or not.
    fn count(&mut self, signal: Signal, config: &Outliers) -> Option<Cause> {
        match (signal, config.consecutive_local) {
            (Signal::Failed, Some(threshold)) => {
                return reached(&mut self.failures, threshold).then_some(Cause::LocalFailures);
            }
            // Whoever answers can be reached.
            (Signal::Status(_) | Signal::Connected, Some(_)) => self.failures = 0,
            (_, None) => {}
        }
        let (server_error, gateway_error) = match signal {
            Signal::Status(status) => (status >= 500, matches!(status, 502..=504)),
            Signal::Connected => (false, false),
            // As the 503 or 504 that the client gets.
            Signal::Failed => (true, true),
        };
        let gateway = count_in_a_row(&mut self.gateway_errors, gateway_error, config.consecutive_gateway);
        let server = count_in_a_row(&mut self.server_errors, server_error, config.consecutive_5xx);
        if gateway {
            return Some(Cause::GatewayErrors);
        }
        server.then_some(Cause::ServerErrors)
    }

    fn is_worth_keeping(&self) -> bool {
        let Self { server_errors, gateway_errors, failures, times, until } = self;
        until.is_some() || server_errors + gateway_errors + failures + times > 0
    }
}

fn count_in_a_row(count: &mut u32, is_error: bool, threshold: u32) -> bool {
    if !is_error {
        *count = 0;
        return false;
    }
    reached(count, threshold)
}

fn reached(count: &mut u32, threshold: u32) -> bool {
    *count = count.saturating_add(1).min(u32::MAX / 4);
    let reached = threshold > 0 && *count >= threshold;
    if reached {
        *count = 0;
    }
    reached
}

fn interval(config: &Outliers) -> Duration {
    Duration::from_millis(config.interval_ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> Outliers {
        Outliers {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            consecutive_local: None,
            interval_ms: 10_000,
            base_ejection_ms: 30_000,
            max_ejection_percent: 10,
            min_health_percent: 0,
        }
    }

    fn uid(n: usize) -> WorkloadUid {
        WorkloadUid(format!("w{n}").into())
    }

    /// The cause, if the signals put an endpoint of ten out.
    fn after(config: Outliers, signals: &[Signal]) -> Option<Cause> {
        let now = Instant::now();
        let mut detector = Detector::new(config, now);
        signals.iter().filter_map(|signal| detector.report(&uid(0), *signal, 10, now)).last()
    }

    #[test]
    fn errors_in_a_row() {
        use Signal::{Connected, Failed, Status};
        let gateway = Outliers { consecutive_gateway: 3, ..config() };
        let split = Outliers { consecutive_local: Some(2), ..config() };
        let never = Outliers { consecutive_5xx: 0, ..config() };
        let five = |signal| [signal; 5];
        for (config, signals, expected) in [
            (config(), &five(Status(500))[..], Some(Cause::ServerErrors)),
            (config(), &five(Failed), Some(Cause::ServerErrors)),
            (config(), &[Status(500), Failed, Status(503), Status(599), Failed], Some(Cause::ServerErrors)),
            (config(), &five(Status(500))[..4], None),
            (config(), &five(Status(404)), None),
            (config(), &[Status(500), Status(500), Status(200), Status(500), Status(500), Status(500)], None),
            (config(), &[Failed, Failed, Failed, Failed, Connected, Failed], None),
            (gateway.clone(), &[Status(502), Status(503), Status(504)], Some(Cause::GatewayErrors)),
            (gateway.clone(), &[Failed, Failed, Failed], Some(Cause::GatewayErrors)),
            (gateway.clone(), &[Status(502), Status(503), Status(500), Status(504)], None),
            (
                gateway,
                &[Status(502), Status(500), Status(503), Status(500), Status(500)],
                Some(Cause::ServerErrors),
            ),
            (split.clone(), &[Failed, Failed], Some(Cause::LocalFailures)),
            (split.clone(), &[Failed, Status(500), Failed], None),
            (
                split.clone(),
                &[Status(500), Status(500), Failed, Status(500), Status(500), Status(500)],
                Some(Cause::ServerErrors),
            ),
            (split, &[Failed, Connected, Failed], None),
            (never, &five(Status(500)), None),
        ] {
            assert_eq!(after(config.clone(), signals), expected, "{config:?} {signals:?}");
        }
    }

    #[test]
    fn what_a_try_says() {
        let answered = |status, grpc| Ended::Response { status, grpc };
        for (ended, expected) in [
            (answered(503, None), Some(Signal::Status(503))),
            (answered(200, None), Some(Signal::Status(200))),
            (answered(200, Some(0)), Some(Signal::Status(200))),
            (answered(200, Some(14)), Some(Signal::Status(503))),
            (answered(200, Some(4)), Some(Signal::Status(504))),
            (answered(200, Some(13)), Some(Signal::Status(500))),
            (answered(200, Some(5)), Some(Signal::Status(404))),
            (answered(502, Some(0)), Some(Signal::Status(502))),
            (Ended::NoConnection, Some(Signal::Failed)),
            (Ended::Reset, Some(Signal::Failed)),
            (Ended::TimedOut, Some(Signal::Failed)),
            (Ended::Overflow, None),
        ] {
            assert_eq!(Signal::of(ended), expected, "{ended:?}");
        }
    }

    fn put_out(detector: &mut Detector, n: usize, total: usize, now: Instant) -> bool {
        (0..5).any(|_| detector.report(&uid(n), Signal::Status(503), total, now).is_some())
    }

    #[test]
    fn the_share_is_compared_before_one_goes_out() {
        let now = Instant::now();
        for (percent, total, expected) in
            [(10, 2, 1), (10, 10, 1), (10, 11, 2), (10, 20, 2), (50, 4, 2), (100, 3, 3), (0, 10, 0)]
        {
            let mut detector = Detector::new(Outliers { max_ejection_percent: percent, ..config() }, now);
            let out = (0..total).filter(|n| put_out(&mut detector, *n, total, now)).count();
            assert_eq!((out, detector.out()), (expected, expected), "{percent} % of {total}");
        }
    }

    #[test]
    fn they_come_back_at_a_sweep_and_stay_out_longer_each_time() {
        let start = Instant::now();
        let mut detector = Detector::new(config(), start);
        let mut now = start;
        assert_eq!(detector.deadline(), None, "nothing to do while nobody fails");
        for (round, seconds) in [(1, 30), (2, 60), (3, 90)] {
            assert!(put_out(&mut detector, 0, 10, now), "round {round}");
            let out_at = now;
            assert!(detector.is_out(&uid(0)) && !detector.is_out(&uid(1)));
            assert_eq!(detector.report(&uid(0), Signal::Status(503), 10, now), None);
            while detector.is_out(&uid(0)) {
                now = detector.deadline().unwrap();
                let back = detector.sweep(now);
                assert_eq!(back.is_empty(), now < out_at + SECOND * seconds);
            }
            assert!(now < out_at + SECOND * (seconds + 10), "within one sweep of its time");
        }
        // Each sweep in good health takes one off.
        for left in [2, 1, 0] {
            now += SECOND * 10;
            detector.sweep(now);
            let times = detector.hosts.get(&uid(0)).map_or(0, |host| host.times);
            assert_eq!(times, left);
        }
        assert_eq!(detector.deadline(), None, "forgotten");
    }

    #[test]
    fn no_longer_than_five_minutes_at_a_time() {
        let mut now = Instant::now();
        let mut detector = Detector::new(Outliers { interval_ms: 1, ..config() }, now);
        let mut longest = Duration::ZERO;
        for _ in 0..15 {
            assert!(put_out(&mut detector, 0, 10, now));
            let since = now;
            while detector.is_out(&uid(0)) {
                now += SECOND;
                detector.sweep(now);
            }
            longest = longest.max(now - since);
        }
        assert_eq!(longest, SECOND * 300);
    }

    #[test]
    fn who_is_gone_is_forgotten_and_makes_room() {
        let now = Instant::now();
        let mut detector = Detector::new(config(), now);
        assert!(put_out(&mut detector, 0, 10, now) && !put_out(&mut detector, 1, 10, now));
        detector.retain(|endpoint| *endpoint != uid(0));
        assert_eq!(detector.out(), 0);
        assert!(put_out(&mut detector, 1, 9, now));
    }
}
