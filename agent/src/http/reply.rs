//! Answers that no application gave.

use super::headers::OVERLOADED;
use crate::limits::Exceeded;
use crate::observe::ResponseFlag;
use crate::route::http::Refusal;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, SERVER};
use http::{Response, StatusCode};
use std::borrow::Cow;

/// gRPC's status codes that are used here (gRPC, "Status codes").
mod grpc {
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
}

/// An answer of ours: what the client sees, and what records say of it.
#[derive(Debug)]
pub(super) struct Local {
    status: StatusCode,
    grpc_status: u8,
    body: Bytes,
    /// Boxed: most have none.
    headers: Option<Box<HeaderMap>>,
    /// The short form.
    pub(super) flag: Option<ResponseFlag>,
    /// `response_code_details`.
    pub(super) details: Cow<'static, str>,
    /// For people.
    pub(super) why: Option<String>,
}

impl Local {
    fn new(status: StatusCode, grpc_status: u8, flag: Option<ResponseFlag>, details: &'static str) -> Self {
        let (body, headers) = (Bytes::new(), None);
        Self { status, grpc_status, body, headers, flag, details: details.into(), why: None }
    }

    fn body(mut self, body: &'static str) -> Self {
        self.body = Bytes::from_static(body.as_bytes());
        self
    }

    /// With words for people.
    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// What the client said cannot be understood in one way only: 400.
    pub(super) fn bad_request(details: &'static str, why: impl Into<String>) -> Self {
        let flag = Some(ResponseFlag::DownstreamProtocol);
        Self::new(StatusCode::BAD_REQUEST, grpc::INTERNAL, flag, details).because(why)
    }

    /// Its head is larger than anybody's may be: 414 or 431.
    pub(super) fn too_large(status: StatusCode, exceeded: Exceeded) -> Self {
        let flag = Some(ResponseFlag::Overflow);
        Self::new(status, grpc::INTERNAL, flag, "request_head_too_large").because(exceeded.to_string())
    }

    /// Its pod, or the node, has too many under way: 503.
    pub(super) fn too_many(exceeded: Exceeded) -> Self {
        Self::from(Refusal::overflow()).because(exceeded.to_string())
    }

    /// The rules for the service cannot be applied: 500.
    pub(super) fn broken_rules(why: String) -> Self {
        let flag = Some(ResponseFlag::NoCluster);
        let local = Self::new(StatusCode::INTERNAL_SERVER_ERROR, grpc::UNAVAILABLE, flag, "route_not_usable");
        local.because(why)
    }

    /// The endpoint was not reached: 503.
    pub(super) fn not_connected(why: String) -> Self {
        let details = "upstream_reset_before_response_started{connection_failure}";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            grpc::UNAVAILABLE,
            Some(ResponseFlag::UpstreamFailure),
            details,
        )
        .body("upstream connect error or disconnect/reset before headers. reset reason: connection failure")
        .because(why)
    }

    /// The endpoint's name was not found: 503.
    pub(super) fn not_found(why: String) -> Self {
        let flag = Some(ResponseFlag::DnsFailure);
        Self { flag, details: "dns_resolution_failure".into(), ..Self::not_connected(why) }
    }

    /// The endpoint's connection ended without a response: 503.
    pub(super) fn terminated(why: String) -> Self {
        let details = "upstream_reset_before_response_started{connection_termination}";
        let flag = Some(ResponseFlag::UpstreamTermination);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, grpc::UNAVAILABLE, flag, details)
            .body("upstream connect error or disconnect/reset before headers. reset reason: connection termination")
            .because(why)
    }

    /// The endpoint reset the stream: 503.
    pub(super) fn reset(why: String) -> Self {
        let details = "upstream_reset_before_response_started{remote_reset}";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            grpc::UNAVAILABLE,
            Some(ResponseFlag::UpstreamReset),
            details,
        )
        .body("upstream connect error or disconnect/reset before headers. reset reason: remote reset")
        .because(why)
    }

    /// What the endpoint said is no HTTP: 502.
    pub(super) fn not_http(why: String) -> Self {
        let details = "upstream_reset_before_response_started{protocol_error}";
        Self::new(StatusCode::BAD_GATEWAY, grpc::UNAVAILABLE, Some(ResponseFlag::UpstreamProtocol), details)
            .body("upstream connect error or disconnect/reset before headers. reset reason: protocol error")
            .because(why)
    }

    /// The client ended within its own request: nobody will read this.
    pub(super) fn client_gone(why: String) -> Self {
        let flag = Some(ResponseFlag::DownstreamGone);
        Self::new(StatusCode::BAD_REQUEST, grpc::INTERNAL, flag, "downstream_remote_disconnect").because(why)
    }

    /// It took too long: 504.
    pub(super) fn timed_out(per_try: bool, why: String) -> Self {
        let details = if per_try { "upstream_per_try_timeout" } else { "response_timeout" };
        let flag = Some(ResponseFlag::UpstreamTimeout);
        Self::new(StatusCode::GATEWAY_TIMEOUT, grpc::DEADLINE_EXCEEDED, flag, details)
            .body("upstream request timeout")
            .because(why)
    }

    /// A rule says so.
    pub(super) fn fault(status: u16, grpc_status: Option<u8>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let flag = Some(ResponseFlag::FaultInjected);
        let local =
            Self::new(status, grpc_status.unwrap_or_else(|| to_grpc(status)), flag, "fault_filter_abort");
        local.body("fault filter abort")
    }

    /// A rule's own answer.
    pub(super) fn direct(status: u16, body: &[u8]) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut local = Self::new(status, to_grpc(status), None, "direct_response");
        local.body = Bytes::copy_from_slice(body);
        local
    }

    /// The client is sent elsewhere.
    pub(super) fn redirect(status: u16, location: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
        let local = Self::new(status, to_grpc(status), None, "direct_response");
        match HeaderValue::try_from(location) {
            Ok(location) => local.header(LOCATION, location),
            Err(_) => local,
        }
    }

    /// The answer to a preflight.
    pub(super) fn preflight(headers: HeaderMap) -> Self {
        Self { headers: Some(Box::new(headers)), ..Self::new(StatusCode::OK, 0, None, "cors.response") }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }

    /// The response: in gRPC's form for a client that speaks it, and only the head of it where there can be no more.
    pub(super) fn into_response(self, is_grpc: bool, is_head: bool) -> (Response<Bytes>, Option<u8>) {
        let (mut response, grpc_status) = self.whole(is_grpc);
        let length = response.body().len();
        let is_empty = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_head && !is_empty {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if is_head || is_empty {
            response.body_mut().clear();
        }
        (response, grpc_status)
    }

    fn whole(self, is_grpc: bool) -> (Response<Bytes>, Option<u8>) {
        let Self { status, grpc_status, body, headers, .. } = self;
        let mut response = Response::new(Bytes::new());
        *response.headers_mut() = headers.map(|headers| *headers).unwrap_or_default();
        response.headers_mut().insert(SERVER, HeaderValue::from_static("warren"));
        if !is_grpc {
            *response.status_mut() = status;
            if !body.is_empty() {
                response.headers_mut().entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
            }
            *response.body_mut() = body;
            return (response, None);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(grpc_status)));
        if let Ok(message) = HeaderValue::try_from(percent_encoded(&body))
            && !body.is_empty()
        {
            headers.insert("grpc-message", message);
        }
        (response, Some(grpc_status))
    }
}

impl From<Refusal> for Local {
    fn from(refusal: Refusal) -> Self {
        let flag = match refusal.flag {
            "NR" => Some(ResponseFlag::NoRoute),
            "NC" => Some(ResponseFlag::NoCluster),
            "UH" => Some(ResponseFlag::NoHealthyUpstream),
            "UO" => Some(ResponseFlag::Overflow),
            "UF" => return Self::not_connected(String::new()),
            _ => None,
        };
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let local = Self::new(status, refusal.grpc_status, flag, refusal.details);
        match flag {
            Some(ResponseFlag::NoHealthyUpstream) => local.body("no healthy upstream"),
            Some(ResponseFlag::Overflow) => local
                .body("upstream connect error or disconnect/reset before headers. reset reason: overflow")
                .header(OVERLOADED, HeaderValue::from_static("true")),
            _ => local,
        }
    }
}

/// How gRPC reads an HTTP status ("HTTP to gRPC status code mapping").
fn to_grpc(status: StatusCode) -> u8 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `grpc-message`: everything but printable ASCII is escaped, and so is `%`.
fn percent_encoded(text: &[u8]) -> String {
    let escaped = |byte: &u8| match byte {
        b' '..=b'~' if *byte != b'%' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.iter().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_clients_get_grpc_answers() {
        let (response, status) = Local::from(Refusal::no_rule()).into_response(true, false);
        assert_eq!((response.status(), status), (StatusCode::OK, Some(12)));
        assert_eq!(response.headers()["grpc-status"], "12");
        let (response, _) = Local::from(Refusal::no_endpoint()).into_response(true, false);
        assert_eq!(response.headers()["grpc-message"], "no healthy upstream");
        let (response, status) = Local::timed_out(false, "slow".to_owned()).into_response(false, false);
        assert_eq!((response.status().as_u16(), status), (504, None));
        assert_eq!(response.body(), "upstream request timeout");
        let (response, _) = Local::from(Refusal::overflow()).into_response(false, false);
        assert_eq!(response.headers()[OVERLOADED], "true");
    }

    #[test]
    fn what_can_have_no_body_has_none() {
        for (status, is_head, length, body) in [
            (200, false, None, "text"),
            (200, true, Some("4"), ""),
            (204, false, None, ""),
            (204, true, None, ""),
            (304, false, None, ""),
        ] {
            let (response, _) = Local::direct(status, b"text").into_response(false, is_head);
            let told = response.headers().get(CONTENT_LENGTH).map(|length| length.to_str().unwrap());
            assert_eq!(
                (response.status().as_u16(), told, &response.body()[..]),
                (status, length, body.as_bytes())
            );
        }
    }

    #[test]
    fn messages_are_escaped() {
        assert_eq!(percent_encoded("50% gr\u{fc}n\n".as_bytes()), "50%25 gr%C3%BCn%0A");
    }
}
