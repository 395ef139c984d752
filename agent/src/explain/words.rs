//! Routes and policies in words.

use crate::balance::Effective;
use crate::route::http::{Split, describe};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use warren_common::model::admin::{BackendView, RuleView};
use warren_common::model::traffic::{
    Backend, Balancer, Clients, ConnectionPool, Cors, Destination, Fault, Forward, HashKey, HashRing,
    HeaderChange, HeaderChanges, HttpAction, HttpMatch, HttpRule, LocalityBalancing, LocalityShare, Mirror,
    ObjectName, Outliers, PathChange, PortPolicy, Redirect, RedirectPort, RegionFailover, Reply, Retries,
    RetryOn, Rewrite, Selector, SimpleBalancer, TcpMatch, TcpRule, TextMatch, TlsMatch, TlsMode,
    TlsOrigination, TlsRule, Warmup,
};
use warren_common::model::{AppProtocol, Service};

pub(super) fn join(all: impl IntoIterator<Item = impl Display>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

pub(super) fn objects(all: &[ObjectName]) -> String {
    join(all)
}

pub(super) fn labels(labels: &Selector) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// A number of milliseconds as people write it.
pub(super) fn milliseconds(ms: u64) -> String {
    if ms == 0 || !ms.is_multiple_of(1000) { format!("{ms}ms") } else { format!("{}s", ms / 1000) }
}

pub(super) fn lasting(time: Duration) -> String {
    milliseconds(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// `12.5%` of parts of a million.
pub(super) fn percent_of_million(parts: u32) -> String {
    percent(f64::from(parts) / 10_000.0)
}

pub(super) fn percent(percent: f64) -> String {
    let text = format!("{percent:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Who it is for.
pub(super) fn clients(clients: &Clients) -> String {
    let namespaces = match &clients.namespaces {
        None => None,
        Some(all) if all.is_empty() => Some("nobody".to_owned()),
        Some(all) => Some(format!("clients of {}", join(all))),
    };
    let with = (!clients.labels.is_empty()).then(|| format!("with {}", labels(&clients.labels)));
    match (namespaces, with) {
        (None, None) => "all clients".to_owned(),
        (Some(text), None) => text,
        (None, Some(with)) => format!("clients {with}"),
        (Some(text), Some(with)) => format!("{text} {with}"),
    }
}

/// What a port says is spoken; none where it says nothing.
pub(super) fn protocol(service: &Service, port: u16) -> Option<&'static str> {
    let declared = service.ports.iter().find(|known| known.service_port == port)?;
    match declared.app_protocol {
        AppProtocol::Unknown => None,
        AppProtocol::Http11 => Some("HTTP/1.1"),
        AppProtocol::Http2 => Some("HTTP/2"),
        AppProtocol::Grpc => Some("gRPC"),
    }
}

/// `web.shop.svc.cluster.local:80 subset v1`, or what was named.
pub(super) fn destination(to: &Destination) -> String {
    match to {
        Destination::Service { service, port, subset } => {
            let subset = subset.as_ref().map_or(String::new(), |subset| format!(" subset {subset}"));
            format!("{}:{port}{subset}", service.hostname)
        }
        Destination::Broken { wanted, .. } => wanted.to_string(),
    }
}

fn why_broken(to: &Destination) -> Option<String> {
    match to {
        Destination::Service { .. } => None,
        Destination::Broken { why, .. } => Some(why.to_string()),
    }
}

/// Backends with their shares, as the split has them.
pub(super) fn backends<'a>(all: impl Iterator<Item = &'a Destination>, split: &Split) -> Vec<BackendView> {
    let view = |(index, to): (usize, &Destination)| BackendView {
        to: destination(to),
        percent: split.share(index) * 100.0,
        broken: why_broken(to),
    };
    all.enumerate().map(view).collect()
}

/// A rule for requests.
pub(super) fn http_rule(rule: &HttpRule, split: Option<&Split>) -> RuleView {
    let (then, ways) = match &rule.action {
        HttpAction::Forward(forward) => {
            let all = forward.backends.iter().map(|backend| &backend.to);
            (None, split.map_or_else(Vec::new, |split| backends(all, split)))
        }
        HttpAction::Redirect(to) => (Some(redirect(to)), Vec::new()),
        HttpAction::Reply(answer) => (Some(reply(answer)), Vec::new()),
    };
    let when = rule.matches.iter().map(wanted).collect();
    RuleView { name: rule.name.to_string(), when, then, backends: ways, extras: extras(rule) }
}

/// A match of requests.
pub(super) fn wanted(wanted: &HttpMatch) -> String {
    let for_whom = (wanted.clients != Clients::default()).then(|| clients(&wanted.clients));
    let port = wanted.port.map(|port| format!("port {port}"));
    let name = if wanted.name.is_empty() { String::new() } else { format!("{}: ", wanted.name) };
    format!("{name}{}", join(std::iter::once(describe(wanted)).chain(for_whom).chain(port)))
}

/// What a rule does beside sending requests somewhere.
fn extras(rule: &HttpRule) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(rule.cors.as_ref().map(cors));
    if let HttpAction::Forward(forward) = &rule.action {
        all.extend(forward.fault.as_ref().and_then(fault).map(|text| format!("fault: {text}")));
        all.extend(forward.rewrite.as_ref().map(rewrite));
        let filters = forward.backends.iter().filter_map(|backend| {
            let text = filters(backend);
            (!text.is_empty()).then(|| format!("to {}: {}", destination(&backend.to), join(text)))
        });
        all.extend(filters);
    }
    all.extend(headers(&rule.request_headers).map(|text| format!("request headers: {text}")));
    all.extend(headers(&rule.response_headers).map(|text| format!("response headers: {text}")));
    if let HttpAction::Forward(forward) = &rule.action {
        all.extend(forward.timeout_ms.map(|ms| format!("timeout {}", milliseconds(ms))));
        all.extend(forward.retries.as_ref().map(retries));
        all.extend(forward.mirrors.iter().map(mirror));
    }
    all
}

fn filters(backend: &Backend) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(backend.redirect.as_ref().map(redirect));
    all.extend(backend.rewrite.as_ref().map(rewrite));
    all.extend(headers(&backend.request_headers).map(|text| format!("request headers: {text}")));
    all.extend(headers(&backend.response_headers).map(|text| format!("response headers: {text}")));
    all.extend(backend.mirrors.iter().map(mirror));
    all
}

pub(super) fn mirror(mirror: &Mirror) -> String {
    let host = if mirror.shadow_host { " with -shadow at its host" } else { "" };
    format!("{} copied to {}{host}", percent_of_million(mirror.per_million), destination(&mirror.to))
}

pub(super) fn fault(fault: &Fault) -> Option<String> {
    let delay = fault.delay.map(|delay| {
        format!("{} wait {}", percent_of_million(delay.per_million), milliseconds(delay.delay_ms))
    });
    let abort = fault.abort.map(|abort| {
        let grpc = abort.grpc_status.map_or(String::new(), |status| format!(" grpc-status {status}"));
        format!("{} are answered {}{grpc}", percent_of_million(abort.per_million), abort.http_status)
    });
    let all: Vec<_> = delay.into_iter().chain(abort).collect();
    (!all.is_empty()).then(|| join(all))
}

fn path_change(change: &PathChange) -> String {
    match change {
        PathChange::Full(text) => format!("path {text}"),
        PathChange::Prefix(text) => format!("prefix {text}"),
        PathChange::Segments(text) => {
            format!("prefix {} (segments)", if text.is_empty() { "/" } else { text })
        }
        PathChange::Regex { pattern, substitution } => format!("path {pattern} by {substitution}"),
    }
}

fn rewrite(rewrite: &Rewrite) -> String {
    let host = rewrite.authority.as_ref().map(|host| format!("host {host}"));
    format!("rewrite {}", join(rewrite.path.as_ref().map(path_change).into_iter().chain(host)))
}

fn redirect(to: &Redirect) -> String {
    let port = match to.port {
        RedirectPort::Number(port) => Some(format!("port {port}")),
        RedirectPort::OfScheme => Some("the scheme's port".to_owned()),
        RedirectPort::OfConnection => Some("the port of the connection".to_owned()),
        RedirectPort::OfRequest => None,
    };
    let scheme = to.scheme.as_ref().map(|scheme| format!("scheme {scheme}"));
    let host = to.authority.as_ref().map(|host| format!("host {host}"));
    let path = to.path.as_ref().map(path_change);
    let all: Vec<_> = scheme.into_iter().chain(host).chain(port).chain(path).collect();
    format!("redirect {} to {}", to.status, if all.is_empty() { "the same".to_owned() } else { join(all) })
}

fn reply(reply: &Reply) -> String {
    match reply.body.len() {
        0 => format!("answer {}", reply.status),
        bytes => format!("answer {} with {bytes} bytes", reply.status),
    }
}

pub(super) fn headers(changes: &HeaderChanges) -> Option<String> {
    let value = |change: &HeaderChange| format!("{}={:?}", change.name, &*change.value);
    let set = changes.set.iter().map(|change| format!("set {}", value(change)));
    let add = changes.add.iter().map(|change| format!("add {}", value(change)));
    let remove = changes.remove.iter().map(|name| format!("remove {name}"));
    let all: Vec<_> = set.chain(add).chain(remove).collect();
    (!all.is_empty()).then(|| join(all))
}

fn cors(cors: &Cors) -> String {
    let origin = |origin: &TextMatch| match origin {
        TextMatch::Present => "*".to_owned(),
        TextMatch::Exact(text) => text.to_string(),
        TextMatch::Prefix(text) => format!("{text}*"),
        TextMatch::Regex(text) => format!("~{text}"),
    };
    let names =
        |what: &str, names: &[Arc<str>]| (!names.is_empty()).then(|| format!("{what} {}", names.join(" ")));
    let yes = |what: &str, is: bool| is.then(|| what.to_owned());
    let others = [
        names("methods", &cors.methods),
        names("headers", &cors.headers),
        names("exposed", &cors.expose),
        yes("with credentials", cors.credentials),
        cors.max_age_s.map(|seconds| format!("remembered for {seconds}s")),
        yes("other preflights go on", cors.forward_unmatched),
    ];
    let origins = format!("CORS for {}", join(cors.origins.iter().map(origin)));
    join(std::iter::once(origins).chain(others.into_iter().flatten()))
}

pub(super) fn retries(retries: &Retries) -> String {
    if retries.attempts == 0 {
        return "no retries".to_owned();
    }
    let on = |on: &RetryOn| match on {
        RetryOn::ServerError => "5xx".to_owned(),
        RetryOn::GatewayError => "gateway-error".to_owned(),
        RetryOn::Reset => "reset".to_owned(),
        RetryOn::ResetBeforeRequest => "reset-before-request".to_owned(),
        RetryOn::ConnectFailure => "connect-failure".to_owned(),
        RetryOn::Retriable4xx => "409".to_owned(),
        RetryOn::RefusedStream => "refused-stream".to_owned(),
        RetryOn::Status(status) => status.to_string(),
        RetryOn::Grpc(status) => format!("grpc-status {status}"),
    };
    let per_try = retries.per_try_timeout_ms;
    let per_try = per_try.map_or(String::new(), |ms| format!(", each within {}", milliseconds(ms)));
    let others = if retries.other_endpoints { ", at other endpoints first" } else { "" };
    format!(
        "up to {} after {}{per_try}, the first pause {}{others}",
        counted(retries.attempts, "retry", "retries"),
        join(retries.on.iter().map(on)),
        milliseconds(retries.backoff_ms)
    )
}

/// `1 retry`, `2 retries`.
fn counted(count: u32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A rule for TLS.
pub(super) fn tls_rule(rule: &TlsRule) -> RuleView {
    let wanted = |wanted: &TlsMatch| {
        let names = match &*wanted.server_names {
            [] => None,
            names => Some(format!("server name {}", join(names))),
        };
        join(names.into_iter().chain(connection(&wanted.connection)))
    };
    let when: Vec<_> = rule.matches.iter().map(wanted).collect();
    of_connections(&rule.name, when, &rule.backends)
}

/// A rule for any connection.
pub(super) fn tcp_rule(rule: &TcpRule) -> RuleView {
    let when: Vec<_> = rule.matches.iter().map(|wanted| join(connection(wanted))).collect();
    of_connections(&rule.name, when, &rule.backends)
}

fn of_connections(name: &str, mut when: Vec<String>, all: &[Backend]) -> RuleView {
    if when.iter().any(String::is_empty) {
        when.clear();
    }
    let split = Split::new(all.iter().map(|backend| backend.weight));
    let ways = backends(all.iter().map(|backend| &backend.to), &split);
    RuleView { name: name.to_owned(), when, then: None, backends: ways, extras: Vec::new() }
}

fn connection(wanted: &TcpMatch) -> Vec<String> {
    let for_whom = (wanted.clients != Clients::default()).then(|| clients(&wanted.clients));
    let port = wanted.port.map(|port| format!("port {port}"));
    let to = (!wanted.destinations.is_empty()).then(|| format!("address in {}", join(&wanted.destinations)));
    for_whom.into_iter().chain(port).chain(to).collect()
}

/// What a DestinationRule says; nothing where it says nothing.
pub(super) fn effective(effective: &Effective) -> Vec<String> {
    let mut all = policy(&effective.policy);
    all.extend(
        effective
            .retry_budget
            .map(|budget| format!("retries at most {}% of requests, {} always", budget.percent, budget.min)),
    );
    all
}

/// What a part of a DestinationRule says.
pub(super) fn policy(policy: &PortPolicy) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(policy.balancer.as_ref().map(balancer));
    all.extend(policy.pool.as_ref().and_then(pool));
    all.extend(policy.outliers.as_ref().map(outliers));
    all.extend(policy.tls.as_ref().map(tls));
    all
}

pub(super) fn balancer(balancer: &Balancer) -> String {
    let way = match (&balancer.hash, balancer.simple) {
        (Some((key, ring)), _) => {
            let of = match key {
                HashKey::Header(name) => format!("header {name}"),
                HashKey::Cookie { name, path, ttl_s, attributes } => {
                    cookie(name, path.as_deref(), *ttl_s, attributes)
                }
                HashKey::SourceIp => "the client's address".to_owned(),
                HashKey::Query(name) => format!("query parameter {name}"),
            };
            let ring = match ring {
                HashRing::Ring { minimum } => format!("ring of {minimum}"),
                HashRing::Maglev { size } => format!("Maglev table of {size}"),
            };
            format!("hash of {of} ({ring})")
        }
        (None, SimpleBalancer::LeastRequest) => "LEAST_REQUEST".to_owned(),
        (None, SimpleBalancer::RoundRobin) => "ROUND_ROBIN".to_owned(),
        (None, SimpleBalancer::Random) => "RANDOM".to_owned(),
        (None, SimpleBalancer::Passthrough) => "PASSTHROUGH".to_owned(),
    };
    let warmup = balancer.warmup.map(|warmup| {
        let Warmup { duration_ms, minimum_percent, aggression } = warmup;
        let (time, least) = (milliseconds(duration_ms), percent(minimum_percent));
        format!("warm-up {time} from {least} with aggression {aggression}")
    });
    let locality = balancer.locality.as_ref().map(locality);
    join(std::iter::once(way).chain(warmup).chain(locality))
}

fn cookie(name: &str, path: Option<&str>, ttl_s: Option<u64>, attributes: &[(Arc<str>, Arc<str>)]) -> String {
    let made = ttl_s.map(|seconds| match seconds {
        0 => "made here until the browser ends".to_owned(),
        seconds => format!("made here for {seconds}s"),
    });
    let path = path.map(|path| format!("Path={path}"));
    let others = attributes.iter().map(|(name, value)| match &**value {
        "" => name.to_string(),
        value => format!("{name}={value}"),
    });
    let says: Vec<_> = made.into_iter().chain(path).chain(others).collect();
    let says = if says.is_empty() { String::new() } else { format!(" ({})", says.join("; ")) };
    format!("cookie {name}{says}")
}

fn locality(locality: &LocalityBalancing) -> String {
    let LocalityBalancing { enabled, distribute, failover, failover_priority } = locality;
    if !enabled {
        return "localities don't count".to_owned();
    }
    if !distribute.is_empty() {
        let shares = distribute.iter().map(|LocalityShare { from, to }| {
            let shares = to.iter().map(|(to, percent)| format!("{percent}% {to}")).collect::<Vec<_>>();
            format!("{from} to {}", shares.join(" + "))
        });
        return format!("shares by locality: {}", join(shares));
    }
    let near = match failover_priority.is_empty() {
        true => "the nearest locality first".to_owned(),
        false => format!("near by {}", join(failover_priority)),
    };
    let failover = failover.iter().map(|RegionFailover { from, to }| format!("{to} when {from} fails"));
    join(std::iter::once(near).chain(failover))
}

fn pool(pool: &ConnectionPool) -> Option<String> {
    let limit = |one: &str, many: &str, limit: Option<u32>| limit.map(|limit| counted(limit, one, many));
    let within = |what: &str, ms: Option<u64>| ms.map(|ms| format!("{what} {}", milliseconds(ms)));
    let yes = |what: &str, is: bool| is.then(|| what.to_owned());
    let all: Vec<String> = [
        limit("connection", "connections", pool.max_connections),
        limit("request", "requests", pool.max_requests),
        limit("waiting request", "waiting requests", pool.max_pending_requests),
        limit("request per connection", "requests per connection", pool.max_requests_per_connection),
        limit("retry", "retries", pool.max_retries),
        limit("stream per connection", "streams per connection", pool.max_concurrent_streams),
    ]
    .into_iter()
    .flatten()
    .collect();
    let most = (!all.is_empty()).then(|| format!("at most {}", join(all)));
    let others = [
        within("connects within", pool.connect_timeout_ms),
        within("connections live for", pool.max_connection_duration_ms),
        within("idle for", pool.idle_timeout_ms),
        within("idle without requests for", pool.http_idle_timeout_ms),
        yes("HTTP/2 to endpoints", pool.upgrade_to_h2),
        yes("the client's own protocol to endpoints", pool.use_client_protocol),
        pool.keepalive.map(|(probes, first, between)| {
            let probes = counted(probes, "probe", "probes");
            format!("TCP keep-alive (after {first}s, {probes} every {between}s)")
        }),
    ];
    let all: Vec<_> = most.into_iter().chain(others.into_iter().flatten()).collect();
    (!all.is_empty()).then(|| join(all))
}

fn outliers(outliers: &Outliers) -> String {
    let count = |one: &str, many: &str, count: u32| (count > 0).then(|| counted(count, one, many));
    let local = outliers.consecutive_local.unwrap_or(0);
    let causes: Vec<_> = [
        count("error", "errors", outliers.consecutive_5xx),
        count("gateway error", "gateway errors", outliers.consecutive_gateway),
        count("failed connection", "failed connections", local),
    ]
    .into_iter()
    .flatten()
    .collect();
    if causes.is_empty() {
        return "no outliers: nothing is counted".to_owned();
    }
    let least = match outliers.min_health_percent {
        0 => String::new(),
        percent => format!(", none while less than {percent}% are left"),
    };
    format!(
        "outliers out after {} in a row for {}, at most {}%{least}, looked at every {}",
        join(causes),
        milliseconds(outliers.base_ejection_ms),
        outliers.max_ejection_percent,
        milliseconds(outliers.interval_ms)
    )
}

/// All that is said of TLS to endpoints.
fn tls(tls: &TlsOrigination) -> String {
    let names = (!tls.subject_alt_names.is_empty())
        .then(|| format!("its certificate is of {}", tls.subject_alt_names.join(" or ")));
    let others = [
        tls.sni.as_ref().map(|name| format!("server name {name}")),
        names,
        tls.insecure_skip_verify.then(|| "its certificate is not verified".to_owned()),
        tls.ca_file.as_ref().map(|file| format!("roots in {file}")),
        tls.certificate_file.as_ref().map(|file| format!("certificate in {file}")),
        tls.key_file.as_ref().map(|file| format!("key in {file}")),
    ];
    join(std::iter::once(tls_mode(tls)).chain(others.into_iter().flatten()))
}

/// Whether TLS is spoken to endpoints.
pub(super) fn tls_mode(tls: &TlsOrigination) -> String {
    let mode = match tls.mode {
        TlsMode::Disable => "no TLS of its own",
        TlsMode::Simple => "TLS to endpoints",
        TlsMode::Mutual => "TLS to endpoints with a certificate",
        TlsMode::IstioMutual => "the mesh's mTLS",
    };
    mode.to_owned()
}

/// Timeout and retries of what is sent on.
pub(super) fn patience(forward: &Forward) -> String {
    let timeout = forward.timeout_ms.map_or_else(|| "no timeout".to_owned(), milliseconds);
    let retries = match &forward.retries {
        Some(retries) => self::retries(retries),
        None => "up to 2 retries of what no endpoint has worked on (the default)".to_owned(),
    };
    format!("{timeout}, {retries}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_of_a_destination_rule_is_left_out() {
        let all: PortPolicy = serde_json::from_value(json!({
            "balancer": {
                "simple": "round_robin",
                "hash": [{"cookie": {"name": "c", "path": "/p", "ttl_s": 60, "attributes": [["SameSite", "Lax"]]}},
                    {"ring": {"minimum": 1024}}],
                "warmup": {"duration_ms": 60000, "minimum_percent": 10.0, "aggression": 1.5},
                "locality": {"enabled": true, "distribute": [{"from": "a/*", "to": {"a/*": 80, "b/*": 20}}],
                    "failover": [], "failover_priority": []},
            },
            "pool": {"max_connections": 1, "max_requests": 2, "keepalive": [9, 7200, 75],
                "upgrade_to_h2": false, "use_client_protocol": false},
            "outliers": {"consecutive_5xx": 1, "consecutive_gateway": 0, "interval_ms": 5000,
                "base_ejection_ms": 30000, "max_ejection_percent": 50, "min_health_percent": 30},
            "tls": {"mode": "mutual", "sni": "example.com", "subject_alt_names": ["a.example.com", "b"],
                "insecure_skip_verify": true, "ca_file": "/ca", "certificate_file": "/cert", "key_file": "/key"},
        }))
        .unwrap();
        assert_eq!(
            policy(&all),
            [
                "hash of cookie c (made here for 60s; Path=/p; SameSite=Lax) (ring of 1024), \
                 warm-up 60s from 10% with aggression 1.5, shares by locality: a/* to 80% a/* + 20% b/*",
                "at most 1 connection, 2 requests, TCP keep-alive (after 7200s, 9 probes every 75s)",
                "outliers out after 1 error in a row for 30s, at most 50%, none while less than 30% are left, \
                 looked at every 5s",
                "TLS to endpoints with a certificate, server name example.com, its certificate is of a.example.com or b, \
                 its certificate is not verified, roots in /ca, certificate in /cert, key in /key",
            ]
        );
        let failover = LocalityBalancing {
            enabled: true,
            distribute: vec![],
            failover: vec![RegionFailover { from: "a".into(), to: "b".into() }],
            failover_priority: vec![],
        };
        assert_eq!(locality(&failover), "the nearest locality first, b when a fails");
    }

    #[test]
    fn nothing_of_a_rule_is_left_out() {
        let shared: Cors = serde_json::from_value(json!({
            "origins": [{"exact": "https://a"}], "methods": ["GET", "PUT"], "headers": ["x"], "expose": ["y"],
            "max_age_s": 60, "credentials": true, "forward_unmatched": true,
        }))
        .unwrap();
        assert_eq!(
            cors(&shared),
            "CORS for https://a, methods GET PUT, headers x, exposed y, with credentials, remembered for 60s, \
             other preflights go on"
        );
        let again = Retries {
            attempts: 1,
            per_try_timeout_ms: Some(1000),
            on: vec![RetryOn::Reset],
            backoff_ms: 25,
            other_endpoints: true,
        };
        assert_eq!(
            retries(&again),
            "up to 1 retry after reset, each within 1s, the first pause 25ms, at other endpoints first"
        );
    }
}
