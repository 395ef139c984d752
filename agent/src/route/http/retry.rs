//! What is tried again, how often, and how soon.

use super::split::below;
use std::time::Duration;
use warren_common::model::traffic::{Retries, RetryOn, RouteApi};

/// Tries after the first, where no rule says anything.
const DEFAULT_ATTEMPTS: u32 = 2;
/// The first pause, where no rule says anything.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// Pauses grow to so many times the first one.
const MAX_BACKOFF: u32 = 10;
/// What is tried again where no rule says anything: nothing that the application can have worked on.
const DEFAULT_ON: [RetryOn; 4] =
    [RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Grpc(14), RetryOn::Grpc(1)];

/// What is tried again, how often, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub attempts: u32,
    /// For one try, as long as nothing of the response has come; none: the request's own timeout.
    pub per_try_timeout: Option<Duration>,
    /// Endpoints that have failed are not tried again while there are others.
    pub other_endpoints: bool,
    on: Vec<RetryOn>,
    backoff: Duration,
    /// No pause is shorter than this.
    least: Duration,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No connection was made, or not in time.
    NoConnection,
    /// A limit of ours stood in the way (circuit breaker): never tried again.
    Overflow,
    /// The connection ended before the request's head was sent.
    ResetBeforeRequest,
    /// The endpoint refused the stream (HTTP/2 REFUSED_STREAM): it has done nothing.
    Refused,
    /// The connection or stream ended without a response.
    Reset,
    /// No response in the time of a try.
    TimedOut,
    /// A response's head came; what it says is not passed on yet.
    Response {
        /// HTTP status.
        status: u16,
        /// `grpc-status`, where it came with the head.
        grpc: Option<u8>,
    },
}

/// What else decides about another try.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Tries so far, the first included.
    pub tries: u32,
    /// Whether all of the request's body is still there to be sent again.
    pub replayable: bool,
    /// What is left of the request's timeout; none: no limit.
    pub left: Option<Duration>,
    /// A random number.
    pub entropy: u64,
}

/// Whether there is another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// After this pause, if the retry budget has room ([`Circuit`](crate::balance::Circuit)).
    Again(Duration),
    /// It is not one of the things that are tried again, or all is well.
    Never,
    /// It would be, but there were as many as are allowed (`URX`).
    Exhausted,
    /// It would be, but the body is gone.
    BodyGone,
    /// It would be, but the request's own time ends before.
    OutOfTime,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: DEFAULT_ATTEMPTS,
            per_try_timeout: None,
            other_endpoints: true,
            on: DEFAULT_ON.to_vec(),
            backoff: DEFAULT_BACKOFF,
            least: Duration::ZERO,
        }
    }
}

impl RetryPolicy {
    /// What a rule says. The Gateway API's `backoff` is the least that is waited (GEP-1731), Istio's the most
    /// that is waited before the second try.
    pub(super) fn new(retries: &Retries, api: RouteApi) -> Self {
        let backoff = Duration::from_millis(retries.backoff_ms);
        Self {
            attempts: retries.attempts,
            per_try_timeout: retries.per_try_timeout_ms.map(Duration::from_millis),
            other_endpoints: retries.other_endpoints,
            on: retries.on.clone(),
            backoff,
            least: if api == RouteApi::Gateway { backoff } else { Duration::ZERO },
        }
    }

    /// Whether a body may be needed again: if not, nobody has to keep it.
    pub fn may_retry(&self) -> bool {
        self.attempts > 0 && !self.on.is_empty()
    }

    /// Whether there is another try after one that ended so.
    pub fn decide(&self, ended: Ended, situation: &Situation) -> Verdict {
        if ended == Ended::Overflow || !self.on.iter().any(|on| is_meant(*on, ended)) {
            return Verdict::Never;
        }
        if situation.tries > self.attempts {
            return if self.attempts == 0 { Verdict::Never } else { Verdict::Exhausted };
        }
        if !situation.replayable {
            return Verdict::BodyGone;
        }
        let pause = self.pause(situation.tries, situation.entropy);
        match situation.left {
            Some(left) if left <= pause => Verdict::OutOfTime,
            _ => Verdict::Again(pause),
        }
    }

    /// The pause after so many tries: the least one, and anything from nothing to a bound that doubles with each (full jitter).
    fn pause(&self, tries: u32, entropy: u64) -> Duration {
        let doubled = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        let bound = self.backoff.saturating_mul(doubled.min(MAX_BACKOFF)).as_nanos();
        // Within u64 for every bound below 584 years.
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        self.least.saturating_add(Duration::from_nanos(below(bound, entropy)))
    }
}

/// Whether what a policy names has happened.
fn is_meant(on: RetryOn, ended: Ended) -> bool {
    use Ended::{NoConnection, Refused, Reset, ResetBeforeRequest, Response, TimedOut};
    let no_response = matches!(ended, NoConnection | ResetBeforeRequest | Refused | Reset | TimedOut);
    let status = match ended {
        Response { status, .. } => Some(status),
        _ => None,
    };
    match on {
        RetryOn::ServerError => no_response || status.is_some_and(|status| (500..600).contains(&status)),
        RetryOn::GatewayError => no_response || matches!(status, Some(502..=504)),
        RetryOn::Reset => no_response,
        RetryOn::ResetBeforeRequest => matches!(ended, NoConnection | ResetBeforeRequest),
        RetryOn::ConnectFailure => ended == NoConnection,
        RetryOn::Retriable4xx => status == Some(409),
        RetryOn::RefusedStream => ended == Refused,
        RetryOn::Status(wanted) => status == Some(wanted),
        RetryOn::Grpc(wanted) => matches!(ended, Response { grpc: Some(found), .. } if found == wanted),
    }
}

/// The limit of a gRPC call (`grpc-timeout`, for example `100m`), within the rule's own.
///
/// Units: `H` hours, `M` minutes, `S` seconds, `m` milli-, `u` micro-, `n` nanoseconds, after 1 to 8 digits
/// (gRPC over HTTP/2, "Timeout"). What is no such value is ignored.
pub fn timeout_of(rule: Option<Duration>, grpc_timeout: Option<&[u8]>) -> Option<Duration> {
    let asked = grpc_timeout.and_then(|text| {
        let (unit, digits) = text.split_last()?;
        let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
        let number: u64 = std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()?;
        Some(match unit {
            b'H' => Duration::from_secs(number * 3600),
            b'M' => Duration::from_secs(number * 60),
            b'S' => Duration::from_secs(number),
            b'm' => Duration::from_millis(number),
            b'u' => Duration::from_micros(number),
            b'n' => Duration::from_nanos(number),
            _ => return None,
        })
    });
    match (rule, asked) {
        (Some(rule), Some(asked)) => Some(rule.min(asked)),
        (rule, asked) => rule.or(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[RetryOn]) -> RetryPolicy {
        RetryPolicy { on: on.to_vec(), ..RetryPolicy::default() }
    }

    fn first(entropy: u64) -> Situation {
        Situation { tries: 1, replayable: true, left: None, entropy }
    }

    /// Every word of `retryOn` against every way a try can end.
    #[test]
    fn what_is_tried_again() {
        use Ended::*;
        let status = |status| Response { status, grpc: None };
        let grpc = |code| Response { status: 200, grpc: Some(code) };
        let all = [
            NoConnection,
            Overflow,
            ResetBeforeRequest,
            Refused,
            Reset,
            TimedOut,
            status(200),
            status(409),
            status(429),
            status(500),
            status(503),
            status(504),
            grpc(0),
            grpc(1),
            grpc(14),
        ];
        for (on, expected) in [
            (RetryOn::ServerError, "c-pfrt---123---"),
            (RetryOn::GatewayError, "c-pfrt----23---"),
            (RetryOn::Reset, "c-pfrt---------"),
            (RetryOn::ResetBeforeRequest, "c-p------------"),
            (RetryOn::ConnectFailure, "c--------------"),
            (RetryOn::Retriable4xx, "-------9-------"),
            (RetryOn::RefusedStream, "---f-----------"),
            (RetryOn::Status(429), "--------4------"),
            (RetryOn::Status(503), "----------2----"),
            (RetryOn::Grpc(1), "-------------C-"),
            (RetryOn::Grpc(14), "--------------U"),
        ] {
            let policy = policy(&[on]);
            for (ended, expected) in all.iter().zip(expected.chars()) {
                let again = policy.decide(*ended, &first(0)) != Verdict::Never;
                assert_eq!(again, expected != '-', "{on:?} {ended:?}");
            }
        }
        let default = RetryPolicy::default();
        let again: Vec<_> =
            all.iter().filter(|ended| default.decide(**ended, &first(0)) != Verdict::Never).collect();
        assert_eq!(again, [&NoConnection, &Refused, &grpc(1), &grpc(14)]);
        assert_eq!(policy(&[]).decide(NoConnection, &first(0)), Verdict::Never);
    }

    #[test]
    fn limits() {
        let decide = |situation| RetryPolicy::default().decide(Ended::NoConnection, &situation);
        let tries = |tries| Situation { tries, ..first(u64::MAX) };
        assert!(
            matches!(decide(tries(1)), Verdict::Again(_)) && matches!(decide(tries(2)), Verdict::Again(_))
        );
        assert_eq!(decide(tries(3)), Verdict::Exhausted, "two retries are three requests");
        assert_eq!(decide(Situation { replayable: false, ..first(0) }), Verdict::BodyGone);
        let left = |ms| Situation { left: Some(Duration::from_millis(ms)), ..first(u64::MAX) };
        assert_eq!(decide(left(24)), Verdict::OutOfTime);
        assert!(matches!(decide(left(26)), Verdict::Again(_)));
        let none = RetryPolicy { attempts: 0, ..RetryPolicy::default() };
        assert_eq!(none.decide(Ended::NoConnection, &first(0)), Verdict::Never);
        assert!(!none.may_retry() && RetryPolicy::default().may_retry());
    }

    #[test]
    fn pauses_double_with_full_jitter() {
        let policy = RetryPolicy { attempts: 40, ..RetryPolicy::default() };
        let pause = |tries, entropy| policy.pause(tries, entropy).as_micros();
        for (tries, bound) in
            [(1, 25_000), (2, 50_000), (3, 100_000), (4, 200_000), (5, 250_000), (40, 250_000)]
        {
            assert_eq!(pause(tries, 0), 0);
            assert_eq!(pause(tries, u64::MAX), bound - 1, "after {tries}");
            assert_eq!(pause(tries, u64::MAX / 2), bound / 2 - 1);
        }
        let said = Retries {
            attempts: 40,
            per_try_timeout_ms: None,
            on: vec![],
            backoff_ms: 100,
            other_endpoints: true,
        };
        for (api, least, most) in [(RouteApi::Istio, 0, 99_999), (RouteApi::Gateway, 100_000, 199_999)] {
            let policy = RetryPolicy::new(&said, api);
            let pause = |tries, entropy| policy.pause(tries, entropy).as_micros();
            assert_eq!((pause(1, 0), pause(1, u64::MAX), pause(9, 0)), (least, most, least), "{api:?}");
        }
        let forever = RetryPolicy { backoff: Duration::MAX, ..policy };
        assert!(forever.pause(9, u64::MAX) > Duration::from_secs(1 << 33));
    }

    #[test]
    fn grpc_timeouts_stay_within_the_rule() {
        let ms = Duration::from_millis;
        for (rule, header, expected) in [
            (None, None, None),
            (Some(ms(500)), None, Some(ms(500))),
            (None, Some("100m"), Some(ms(100))),
            (Some(ms(500)), Some("100m"), Some(ms(100))),
            (Some(ms(500)), Some("2S"), Some(ms(500))),
            (None, Some("1H"), Some(ms(3_600_000))),
            (None, Some("99999999H"), Some(Duration::from_secs(99_999_999 * 3600))),
            (None, Some("2M"), Some(ms(120_000))),
            (None, Some("7000u"), Some(ms(7))),
            (None, Some("7000000n"), Some(ms(7))),
            (Some(ms(5)), Some("1s"), Some(ms(5))),
            (None, Some("123456789m"), None),
            (None, Some("m"), None),
            (None, Some(""), None),
            (None, Some("-1m"), None),
        ] {
            assert_eq!(timeout_of(rule, header.map(str::as_bytes)), expected, "{header:?}");
        }
    }
}
