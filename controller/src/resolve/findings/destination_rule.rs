//! DestinationRules.

use super::conflict::comes_first;
use super::virtual_service::full_name_of;
use super::{About, exported_to_nobody, unseen};
use crate::index::Index;
use crate::objects::{
    DestinationRule, EntryAddress, EntryEndpoint, HttpRoute, Kind, Name, Resolution, RouteAction, matches,
};
use crate::resolve::traffic::is_ruled;
use crate::resolve::{ResolveConfig, host};
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::traffic::{
    Balancer, ConnectionPool, HashKey, PortPolicy, SimpleBalancer, TlsMode, TrafficPolicy,
};
use warren_common::model::{AppProtocol, ServiceName};

/// Its code.
pub(super) const EMPTY_SUBSET: &str = "subset-empty";

pub(super) fn check(index: &Index, config: &ResolveConfig, rule: &DestinationRule, about: &mut About<'_>) {
    let host = index.full_name(&rule.host, &rule.name.namespace);
    let held = index.services_held_by(&host);
    if held.is_empty() {
        let text = format!("no service has the name {host}: nothing follows this rule");
        about.warning("host-not-found", "spec.host", text, full_name_of(index, &host));
    }
    exported_to_nobody(rule.exported_to.as_deref(), about);
    empty_subsets(index, rule, &held, about);
    unseen::destination_rule(index, &held, rule, about);
    let others = index.destination_rules_of(&host).filter(|(pattern, _)| **pattern == *host);
    for other in others.flat_map(|(_, others)| others) {
        let together = other.name != rule.name
            && other.name.namespace == rule.name.namespace
            && other.exported_to == rule.exported_to
            && other.clients == rule.clients;
        let older = (other.created, &other.name.name) < (rule.created, &rule.name.name);
        if !(together && older) {
            continue;
        }
        let why = comes_first(other.created, rule.created);
        for (place, subset) in rule.subsets.iter().enumerate() {
            if other.subsets.iter().any(|theirs| theirs.name == subset.name) {
                let text = format!(
                    "the subset {} is that of the DestinationRule {}, which {why}",
                    subset.name, other.name
                );
                about.warning("subset-conflict", format!("spec.subsets[{place}]"), text, None);
            }
        }
        if rule.policy.is_some() && other.policy.is_some() {
            let text = format!("the DestinationRule {} for this host decides: it {why}", other.name);
            about.warning("policy-conflict", "spec.trafficPolicy", text, None);
        }
    }
    let scene = Scene::new(index, config, &host, &held);
    for (path, ports, policy) in parts(rule) {
        if let Ports::One(port) = &ports
            && !scene.seen.is_empty()
            && !scene.seen.iter().any(|(known, _)| known == port)
        {
            let text = format!("no service of {host} has a port {port}: this has no effect");
            about.warning("port-not-found", &path, text, None);
        }
        if scene.in_mesh {
            between_pods(&path, policy, about);
        }
        if let Some((endpoint, outliers)) = scene.one_endpoint {
            without_choice(&path, policy, endpoint, outliers, about);
        }
        if !held.is_empty() && !scene.is_met(&ports) {
            without_requests(&path, policy, &scene, about);
        }
    }
    let budgets = policies(rule)
        .filter(|(_, policy)| policy.retry_budget_percent.is_some() || policy.retry_budget_min.is_some());
    if !held.is_empty() && !scene.is_met(&Ports::But(Vec::new())) {
        for (path, _) in budgets {
            no_http_rules(format!("{path}.retryBudget"), &scene, about);
        }
    }
}

/// What a rule is for.
struct Scene<'a> {
    host: &'a str,
    in_mesh: bool,
    /// Where there is nothing to choose among: why, and what outlier detection does there; for people.
    one_endpoint: Option<(&'static str, &'static str)>,
    /// Ports of the services, and whether requests are seen there.
    seen: Vec<(u16, bool)>,
}

/// The ports that a part of a rule is for.
enum Ports {
    One(u16),
    /// All but these.
    But(Vec<u16>),
}

impl<'a> Scene<'a> {
    fn new(index: &Index, config: &ResolveConfig, host: &'a str, held: &[ServiceName]) -> Self {
        let in_mesh = held.iter().any(|service| index.kubernetes_service_name(service).is_some());
        let sent_to = destinations(index);
        let mut seen = Vec::new();
        for service in held {
            let ruled = sent_to.contains(&service.hostname) || is_ruled(index, config, service);
            let ports = host::resolve(index, config, service).map(|service| service.ports);
            let ports = ports.unwrap_or_default().into_iter();
            seen.extend(
                ports.map(|port| (port.service_port, ruled || port.app_protocol != AppProtocol::Unknown)),
            );
        }
        let one_endpoint = held.iter().filter(|_| !in_mesh).find_map(|service| one_endpoint(index, service));
        Self { host, in_mesh, one_endpoint, seen }
    }

    /// Whether requests are seen at one of these ports: HTTP is declared, or HTTP rules are there for the service, or send requests
    /// of others to it.
    fn is_met(&self, ports: &Ports) -> bool {
        let holds = |port: u16| match ports {
            Ports::One(one) => *one == port,
            Ports::But(others) => !others.contains(&port),
        };
        // A port that is not there is another matter.
        let mut of_part = self.seen.iter().filter(|(port, _)| holds(*port)).peekable();
        of_part.peek().is_none() && !self.seen.is_empty() || of_part.any(|(_, seen)| *seen)
    }
}

fn one_endpoint(index: &Index, service: &ServiceName) -> Option<(&'static str, &'static str)> {
    let ServiceName { namespace, hostname } = service;
    let entry = index.service_entry_of_host(&Name::new(namespace.clone(), hostname.clone()))?;
    let listed = entry.listed();
    let own: Vec<_> = listed.iter().filter(|(_, hosts)| hosts.contains(hostname)).collect();
    match (entry.resolution, &*own) {
        (Resolution::None, _) => Some((
            "with resolution NONE connections go to what was dialled",
            "no address is left out for its failures",
        )),
        (Resolution::Dns, [(EntryEndpoint { address: EntryAddress::Name(_), .. }, _)]) => Some((
            "a DNS name is one endpoint, whose addresses are used at random",
            "its failures leave out the whole name, and not one of its addresses",
        )),
        _ => None,
    }
}

fn no_http_rules(path: String, scene: &Scene<'_>, about: &mut About<'_>) {
    let text = format!(
        "it is about requests; no port of {} that it is for says that it is HTTP, and no HTTP rules lead there: it has no effect",
        scene.host
    );
    let fix = "Say `appProtocol: http` (or http2, grpc) at the Service's port";
    about.info("no-http-rules", path, text, Some(fix.to_owned()));
}

/// What means nothing, or less, where no requests are seen.
fn without_requests(path: &str, policy: &PortPolicy, scene: &Scene<'_>, about: &mut About<'_>) {
    let PortPolicy { balancer, pool, outliers, tls: _ } = policy;
    let hash = balancer.as_ref().and_then(|balancer| balancer.hash.as_ref());
    if hash.is_some_and(|(key, _)| *key != HashKey::SourceIp) {
        no_http_rules(format!("{path}.loadBalancer.consistentHash"), scene, about);
    }
    if pool.as_ref().is_some_and(is_of_requests) {
        no_http_rules(format!("{path}.connectionPool.http"), scene, about);
    }
    if outliers.is_some() {
        let text = format!(
            "no port of {} that it is for says that it is HTTP, and no HTTP rules lead there: no answers are seen, and only \
             connections that fail count",
            scene.host
        );
        about.info("only-connections-count", format!("{path}.outlierDetection"), text, None);
    }
}

/// Subsets without an endpoint, where all endpoints are pods that are known.
fn empty_subsets(index: &Index, rule: &DestinationRule, held: &[ServiceName], about: &mut About<'_>) {
    let services = held.iter().map(|service| index.kubernetes_service_name(service));
    let Some(services) = services.collect::<Option<Vec<_>>>() else { return };
    let slices = services.iter().flat_map(|service| index.slices_of_service(service));
    let pods = slices.flat_map(|slice| &slice.endpoints).map(|endpoint| index.pod(endpoint.pod.as_ref()?));
    let Some(pods) = pods.collect::<Option<Vec<_>>>().filter(|pods| !pods.is_empty()) else { return };
    for (place, subset) in rule.subsets.iter().enumerate() {
        if !pods.iter().any(|pod| matches(&subset.labels, &pod.labels)) {
            let labels: Vec<_> = subset.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let text =
                format!("no endpoint has its labels ({}): what is sent there fails", labels.join(", "));
            about.warning(EMPTY_SUBSET, format!("spec.subsets[{place}].labels"), text, None);
        }
    }
}

/// Whether a part of it means nothing where no requests are seen.
fn is_of_requests(pool: &ConnectionPool) -> bool {
    pool.max_pending_requests.is_some()
        || pool.max_requests.is_some()
        || pool.max_requests_per_connection.is_some()
        || pool.max_retries.is_some()
        || pool.http_idle_timeout_ms.is_some()
        || pool.max_concurrent_streams.is_some()
        || pool.upgrade_to_h2
        || pool.use_client_protocol
}

/// What means nothing, or less, where there is one endpoint whatever is said.
fn without_choice(path: &str, policy: &PortPolicy, endpoint: &str, outliers: &str, about: &mut About<'_>) {
    use SimpleBalancer::{Passthrough, Random};
    let is_so =
        |balancer: &Balancer| balancer.hash.is_none() && matches!(balancer.simple, Random | Passthrough);
    if policy.balancer.as_ref().is_some_and(|balancer| !is_so(balancer)) {
        let text = format!("{endpoint}: there is nothing to balance");
        about.info("one-endpoint", format!("{path}.loadBalancer"), text, None);
    }
    if policy.outliers.is_some() {
        about.info(
            "one-endpoint",
            format!("{path}.outlierDetection"),
            format!("{endpoint}: {outliers}"),
            None,
        );
    }
}

/// What the rule says of the whole host and of each subset, with its path.
fn policies(rule: &DestinationRule) -> impl Iterator<Item = (String, &TrafficPolicy)> {
    let whole = rule.policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = rule.subsets.iter().enumerate();
    whole.chain(
        subsets.map(|(place, subset)| (format!("spec.subsets[{place}].trafficPolicy"), &subset.policy)),
    )
}

/// The same by the ports that it is for.
fn parts(rule: &DestinationRule) -> impl Iterator<Item = (String, Ports, &PortPolicy)> {
    policies(rule).flat_map(|(path, policy)| {
        let others = Ports::But(policy.ports.keys().copied().collect());
        let ports = policy.ports.iter().map({
            let path = path.clone();
            // The place in the list is not kept.
            move |(port, own)| (format!("{path}.portLevelSettings[port {port}]"), Ports::One(*port), own)
        });
        std::iter::once((path, others, &policy.all)).chain(ports)
    })
}

/// Says what a rule does not change where pods of the mesh talk to each other.
fn between_pods(path: &str, policy: &PortPolicy, about: &mut About<'_>) {
    let PortPolicy { tls, pool, .. } = policy;
    if tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Disable) {
        let text = "pods of the mesh go on proving to each other who they are, in TLS: it holds for endpoints outside of the \
                    mesh alone";
        about.info("mesh-tls-stays", format!("{path}.tls"), text, None);
    }
    if tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::IstioMutual && tls.sni.is_some()) {
        let text = "the mesh's own TLS asks pods for no server name: it holds for endpoints outside of the mesh alone";
        about.info("mesh-tls-stays", format!("{path}.tls.sni"), text, None);
    }
    if pool.as_ref().is_some_and(|pool| pool.keepalive.is_some()) {
        let text = "connections to pods of other nodes go through tunnels, which look for themselves whether the other end is \
                    there: it holds for pods of the client's node and for endpoints outside of the mesh";
        about.info("tunnels-stay", format!("{path}.connectionPool.tcp.tcpKeepalive"), text, None);
    }
}

/// Full names of whatever HTTP rules of the mesh send requests to.
fn destinations(index: &Index) -> BTreeSet<Arc<str>> {
    let mut all = BTreeSet::new();
    let routes = index.routes().filter(|route| matches!(route.kind, Kind::HTTPRoute | Kind::GRPCRoute));
    for route in routes.filter(|route| route.services().next().is_some()) {
        let names = route.targets().filter_map(|to| to.service(&route.name.namespace));
        all.extend(names.map(|name| index.kubernetes_name(&name).hostname));
    }
    // Those without hosts are delegates.
    for service in index.virtual_services().filter(|one| one.is_of_mesh() || one.hosts.is_empty()) {
        for HttpRoute { action, mirrors, .. } in &service.http {
            let backends = match action {
                RouteAction::Forward(backends) => backends.as_slice(),
                _ => &[],
            };
            let targets = backends.iter().map(|to| &to.to).chain(mirrors.targets());
            all.extend(targets.map(|to| index.full_name(&to.host, &service.name.namespace)));
        }
    }
    all
}
