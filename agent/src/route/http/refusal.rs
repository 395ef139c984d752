//! How a request is refused that routes lead nowhere.

use warren_common::model::traffic::RouteApi;

/// An answer of ours: what a client sees, and what logs say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of what is not gRPC.
    pub status: u16,
    /// `grpc-status` of gRPC, with HTTP status 200.
    pub grpc_status: u8,
    /// Response flag, as Envoy has them.
    pub flag: &'static str,
    /// `response_code_details`.
    pub details: &'static str,
}

const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;

impl Refusal {
    /// No rule holds the request.
    pub fn no_rule() -> Self {
        Self { status: 404, grpc_status: UNIMPLEMENTED, flag: "NR", details: "route_not_found" }
    }

    /// The backend that was picked does not exist, or nobody has a share: 500 in the Gateway API, 503 in Istio.
    pub fn no_backend(api: RouteApi) -> Self {
        let status = match api {
            RouteApi::Istio => 503,
            RouteApi::Gateway => 500,
        };
        Self { status, grpc_status: UNAVAILABLE, flag: "NC", details: "cluster_not_found" }
    }

    /// The backend exists, and none of its endpoints can be used.
    pub fn no_endpoint() -> Self {
        Self { status: 503, grpc_status: UNAVAILABLE, flag: "UH", details: "no_healthy_upstream" }
    }

    /// The endpoint that was picked may not be connected to: 503.
    pub fn no_connection() -> Self {
        Self {
            status: 503,
            grpc_status: UNAVAILABLE,
            flag: "UF",
            details: "upstream_reset_before_response_started{connection_failure}",
        }
    }

    /// A circuit breaker is open; goes with `x-envoy-overloaded: true`.
    pub fn overflow() -> Self {
        Self {
            status: 503,
            grpc_status: UNAVAILABLE,
            flag: "UO",
            details: "upstream_reset_before_response_started{overflow}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_has_its_own_answer_for_broken_references() {
        assert_eq!(Refusal::no_backend(RouteApi::Istio).status, 503);
        assert_eq!(Refusal::no_backend(RouteApi::Gateway).status, 500);
        assert_eq!((Refusal::no_rule().status, Refusal::no_rule().grpc_status), (404, 12));
    }
}
