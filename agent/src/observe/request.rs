//! What is known of a request, beside what every flow has.

use super::trace::TraceId;
use std::borrow::Cow;
use warren_common::model::admin::FlowRequest;

/// Why a request was not just answered by an application, in the short form of Envoy's access logs; in the order in which Envoy
/// prints them, ours last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResponseFlag {
    /// No endpoint may be used: 503.
    NoHealthyUpstream,
    /// The response took too long: 504.
    UpstreamTimeout,
    /// The endpoint reset the request: 503.
    UpstreamReset,
    /// No connection to the endpoint: 503.
    UpstreamFailure,
    /// The endpoint's connection ended before the response did: 503.
    UpstreamTermination,
    /// A limit was reached: 503.
    Overflow,
    /// No rule is for it: 404.
    NoRoute,
    /// It waited because a rule says so.
    DelayInjected,
    /// It failed because a rule says so.
    FaultInjected,
    /// Its client has gone.
    DownstreamGone,
    /// It was tried as often as it may be.
    RetriesExceeded,
    /// What the client said is no HTTP: 400.
    DownstreamProtocol,
    /// What the endpoint said is no HTTP: 502.
    UpstreamProtocol,
    /// The rule names a service or a subset that is not there: 503 (500 of the Gateway API).
    NoCluster,
    /// The endpoint's name cannot be looked up: 503.
    DnsFailure,
    /// A policy refused the connection.
    Deny,
}

impl ResponseFlag {
    /// What metrics and records print.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamReset => "UR",
            Self::UpstreamFailure => "UF",
            Self::UpstreamTermination => "UC",
            Self::Overflow => "UO",
            Self::NoRoute => "NR",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::DownstreamGone => "DC",
            Self::RetriesExceeded => "URX",
            Self::DownstreamProtocol => "DPE",
            Self::UpstreamProtocol => "UPE",
            Self::NoCluster => "NC",
            Self::DnsFailure => "DF",
            Self::Deny => "DENY",
        }
    }
}

/// A request and its response so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDetails {
    /// What people see.
    pub seen: FlowRequest,
    /// The trace that it belongs to.
    pub trace: Option<TraceId>,
    flags: Vec<ResponseFlag>,
}

impl RequestDetails {
    /// Says why it was not just answered by an application.
    pub fn flag(&mut self, flag: ResponseFlag) {
        if let Err(place) = self.flags.binary_search(&flag) {
            self.flags.insert(place, flag);
        }
    }

    /// The flags, joined by commas; `-` for none.
    pub fn flags_text(&self) -> Cow<'static, str> {
        match self.flags.as_slice() {
            [] => "-".into(),
            [only] => only.as_str().into(),
            several => several.iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(",").into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_joined_once_each_in_envoys_order() {
        let mut details = RequestDetails::default();
        assert_eq!(details.flags_text(), "-");
        details.flag(ResponseFlag::UpstreamFailure);
        details.flag(ResponseFlag::RetriesExceeded);
        details.flag(ResponseFlag::UpstreamFailure);
        assert_eq!(details.flags_text(), "UF,URX");
        // As they happen: it waits, is tried in vain, and the last try fails.
        for (happened, expected) in [
            (
                [ResponseFlag::RetriesExceeded, ResponseFlag::UpstreamFailure, ResponseFlag::DelayInjected],
                "UF,DI,URX",
            ),
            ([ResponseFlag::Deny, ResponseFlag::FaultInjected, ResponseFlag::DelayInjected], "DI,FI,DENY"),
            ([ResponseFlag::DnsFailure, ResponseFlag::NoCluster, ResponseFlag::Overflow], "UO,NC,DF"),
        ] {
            let mut details = RequestDetails::default();
            happened.into_iter().for_each(|flag| details.flag(flag));
            assert_eq!(details.flags_text(), expected);
        }
    }
}
