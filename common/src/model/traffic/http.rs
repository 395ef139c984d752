//! Rules for HTTP requests.

use super::{Backend, Clients, Destination};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// If any of the matches holds, this is what happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRule {
    /// Its name in logs and flows; may be empty.
    #[serde(default)]
    pub name: Arc<str>,
    /// Alternatives; none: every request.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// What happens.
    pub action: HttpAction,
    /// Changes of the request before it leaves.
    #[serde(default)]
    pub request_headers: HeaderChanges,
    /// Changes of the response.
    #[serde(default)]
    pub response_headers: HeaderChanges,
    /// Who may read the response in a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpAction {
    /// It is sent on.
    Forward(Box<Forward>),
    /// It is sent elsewhere by its client.
    Redirect(Redirect),
    /// It is answered here.
    Reply(Reply),
}

/// How a request is sent on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Forward {
    /// Where to; none, or weights of zero alone: the request fails.
    pub backends: Vec<Backend>,
    /// What the request asks for there.
    pub rewrite: Option<Rewrite>,
    /// Milliseconds for everything, retries included (504, `UT`); none: no limit.
    pub timeout_ms: Option<u64>,
    /// None: the mesh's default, two retries of what the application cannot have seen.
    pub retries: Option<Retries>,
    /// Copies; their answers are dropped.
    pub mirrors: Vec<Mirror>,
    /// Trouble made on purpose.
    pub fault: Option<Fault>,
}

/// Conditions that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpMatch {
    /// Appended to the rule's name; may be empty.
    pub name: Arc<str>,
    /// Only for these clients; settled before any request.
    pub clients: Clients,
    /// Only for connections to this port of the service; settled before any request.
    pub port: Option<u16>,
    /// The path, without its query.
    pub path: Option<PathMatch>,
    /// ASCII case does not count in an exact path or a prefix.
    pub ignore_path_case: bool,
    /// The method.
    pub method: Option<TextMatch>,
    /// `http` or `https`.
    pub scheme: Option<TextMatch>,
    /// `:authority` or `Host`, as the client sent it; case counts.
    pub authority: Option<TextMatch>,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
}

/// Of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// All of it.
    Exact(Arc<str>),
    /// How it begins, letter by letter (VirtualService): `/foo` holds `/foobar`.
    Prefix(Arc<str>),
    /// How it begins, segment by segment (Gateway API): `/foo` holds `/foo`, `/foo/` and `/foo/bar`. Without a slash at its end.
    Segments(Arc<str>),
    /// An RE2 expression of all of it.
    Regex(Arc<str>),
}

/// Of a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextMatch {
    /// It is there, whatever it is.
    Present,
    /// All of it.
    Exact(Arc<str>),
    /// How it begins.
    Prefix(Arc<str>),
    /// An RE2 expression of all of it.
    Regex(Arc<str>),
}

/// Of a header. Several of one name count as one, joined with commas.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// In lower case.
    pub name: Arc<str>,
    /// Its value.
    pub value: TextMatch,
    /// The condition is that it does not hold (`withoutHeaders`): an absent header counts as empty for its value.
    #[serde(default)]
    pub not: bool,
}

/// Of the first query parameter of that name, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryMatch {
    /// Case counts.
    pub name: Arc<str>,
    /// Its value.
    pub value: TextMatch,
}

/// Changes of headers, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderChanges {
    /// Replaced, or made.
    pub set: Vec<HeaderChange>,
    /// Added to what is there.
    pub add: Vec<HeaderChange>,
    /// Taken away; in lower case.
    pub remove: Vec<Arc<str>>,
}

/// A header and its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChange {
    /// In lower case; `:authority` for the host.
    pub name: Arc<str>,
    /// May hold `%REQ(name)%` and its kind (Istio only).
    pub value: Arc<str>,
}

/// Another host and path for what is sent on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rewrite {
    /// Instead of the host.
    pub authority: Option<Arc<str>>,
    /// Instead of the path.
    pub path: Option<PathChange>,
}

/// What becomes of a path; its query stays.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathChange {
    /// All of it is replaced.
    Full(Arc<str>),
    /// What the match's prefix was is replaced, letter by letter; all of it where the match was not a prefix (Istio).
    Prefix(Arc<str>),
    /// What the match's prefix was is replaced, segment by segment (Gateway API): never an empty path, never two slashes.
    Segments(Arc<str>),
    /// RE2 substitution; groups are `\1`.
    Regex {
        /// What is looked for.
        pattern: Arc<str>,
        /// What replaces every occurrence.
        substitution: Arc<str>,
    },
}

/// An answer that sends the client elsewhere. The query stays unless the path has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`; none: as it was.
    #[serde(default)]
    pub scheme: Option<Arc<str>>,
    /// None: as it was.
    #[serde(default)]
    pub authority: Option<Arc<str>>,
    /// Which port `Location` names.
    pub port: RedirectPort,
    /// None: as it was.
    #[serde(default)]
    pub path: Option<PathChange>,
}

/// The port in `Location`; 80 with `http` and 443 with `https` are not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The scheme's own.
    OfScheme,
    /// The one that the client connected to.
    OfConnection,
    /// As in the request's own authority (Istio's default).
    OfRequest,
}

/// An answer from the rule itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// At most 1 MiB.
    #[serde(default)]
    pub body: Arc<[u8]>,
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where copies go.
    pub to: Destination,
    /// How many of a million requests are copied.
    pub per_million: u32,
    /// `-shadow` is appended to the host (Istio).
    #[serde(default)]
    pub shadow_host: bool,
}

/// Trouble made on purpose. Both are drawn for themselves, the delay first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// A pause before the request is sent on (`DI`).
    pub delay: Option<FaultDelay>,
    /// An error instead of an answer (`FI`).
    pub abort: Option<FaultAbort>,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultDelay {
    /// How long.
    pub delay_ms: u64,
    /// For how many of a million requests.
    pub per_million: u32,
}

/// An error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultAbort {
    /// HTTP status, 200 to 599; with `grpc_status` it is 200.
    pub http_status: u16,
    /// gRPC status.
    #[serde(default)]
    pub grpc_status: Option<u8>,
    /// For how many of a million requests.
    pub per_million: u32,
}

/// Which requests are tried again, how often, and how soon.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retries {
    /// Tries after the first; 0: none.
    pub attempts: u32,
    /// Milliseconds for one try; none: the rule's timeout.
    #[serde(default)]
    pub per_try_timeout_ms: Option<u64>,
    /// After what.
    pub on: Vec<RetryOn>,
    /// Milliseconds of the first pause; it doubles, with full jitter, up to ten times this. In rules of the Gateway API so much
    /// is waited at least, and the jitter comes on top.
    pub backoff_ms: u64,
    /// Endpoints that have failed are not tried again while there are others.
    pub other_endpoints: bool,
}

/// What a request is tried again after (Envoy's words, `retryOn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// Any 5xx, or no response.
    #[serde(rename = "5xx")]
    ServerError,
    /// 502, 503, 504, or no response.
    GatewayError,
    /// The connection ended without a response.
    Reset,
    /// As `reset`, before the request's head was sent.
    ResetBeforeRequest,
    /// The connection was not made.
    ConnectFailure,
    /// 409.
    #[serde(rename = "retriable-4xx")]
    Retriable4xx,
    /// HTTP/2 REFUSED_STREAM.
    RefusedStream,
    /// This status.
    Status(u16),
    /// This gRPC status: cancelled 1, deadline-exceeded 4, resource-exhausted 8, internal 13, unavailable 14.
    Grpc(u8),
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Origins that are let in.
    pub origins: Vec<TextMatch>,
    /// `*`, or names.
    pub methods: Vec<Arc<str>>,
    /// `*`, or names.
    pub headers: Vec<Arc<str>>,
    /// `*`, or names.
    pub expose: Vec<Arc<str>>,
    /// Seconds that a browser may remember a preflight's answer.
    pub max_age_s: Option<u64>,
    /// Cookies and the like are let through.
    pub credentials: bool,
    /// A preflight from another origin goes on to the application (Istio's default) instead of being answered here.
    pub forward_unmatched: bool,
    /// As the Gateway API wants it: lists are told only when asked for, `*` never together with credentials.
    pub gateway_api: bool,
}
