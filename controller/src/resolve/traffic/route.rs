//! The Gateway API's routes that are attached to services (GAMMA): tables for clients in the mesh.

use super::object_name;
use crate::index::Index;
use crate::objects::{BackendRef, Filters, Kind, Name, ParentRef, RankedMatch, Route, RouteRule, Service};
use crate::resolve::service::{Carries, app_protocol, carries_requests};
use crate::resolve::{ResolveConfig, host};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_common::model::AppProtocol;
use warren_common::model::traffic::{
    Backend, Clients, Destination, Forward, HttpAction, HttpRule, Mirror, PortPolicy, Reply, RouteApi,
    RouteTable, Rules, TcpRule, TlsMatch, TlsMode, TlsRule,
};

/// Of routes on one port only those of one kind count: the most specific one's.
const KINDS: [Kind; 4] = [Kind::GRPCRoute, Kind::HTTPRoute, Kind::TLSRoute, Kind::TCPRoute];

/// Why a route does not count for a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resolve) enum Refusal {
    /// The service has no such port.
    NoSuchPort,
    /// The parent is a service that routes cannot be attached to.
    Unattachable,
    /// It has a value that is not known.
    Unsupported,
    /// On every port that it is for, routes of a more specific kind count.
    Conflicted,
}

/// The tables of a service: those of clients' own namespaces first, which replace the service's own for them.
pub(super) fn tables(index: &Index, config: &ResolveConfig, service: &Service) -> Vec<RouteTable> {
    let routes: Vec<&Route> = index.routes_of(&service.name).collect();
    let mut namespaces: Vec<&Arc<str>> = routes.iter().map(|route| &route.name.namespace).collect();
    namespaces.sort();
    namespaces.dedup();
    // Consumers before producers.
    namespaces.sort_by_key(|namespace| **namespace == service.name.namespace);
    let mut tables = Vec::new();
    for namespace in namespaces {
        let is_producer = *namespace == service.name.namespace;
        let mut by_routes: Vec<(Vec<&Route>, Vec<u16>)> = Vec::new();
        for (port, routes) in by_port(service, &routes, namespace) {
            match by_routes.iter_mut().find(|(same, _)| is_same(same, &routes)) {
                Some((_, ports)) => ports.push(port),
                None => by_routes.push((routes, vec![port])),
            }
        }
        for (routes, ports) in by_routes {
            let whole = ports.len() == service.ports.len();
            tables.push(RouteTable {
                clients: Clients {
                    namespaces: (!is_producer).then(|| vec![namespace.clone()]),
                    ..Clients::default()
                },
                ports: (!whole).then_some(ports),
                api: RouteApi::Gateway,
                objects: routes.iter().map(|route| object_name(route.kind.as_str(), &route.name)).collect(),
                rules: rules(index, config, &routes),
            });
        }
    }
    tables
}

fn is_same(these: &[&Route], those: &[&Route]) -> bool {
    these.len() == those.len() && these.iter().zip(those).all(|(this, that)| std::ptr::eq(*this, *that))
}

/// Routes of one namespace that count, by port of the service, in the order of their age.
fn by_port<'a>(service: &Service, routes: &[&'a Route], namespace: &str) -> BTreeMap<u16, Vec<&'a Route>> {
    let mut ports: BTreeMap<u16, Vec<&'a Route>> = BTreeMap::new();
    if !is_attachable(service) {
        return ports;
    }
    let of_namespace = routes.iter().filter(|route| *route.name.namespace == *namespace);
    let mut sorted: Vec<&Route> = of_namespace.filter(|route| route.unsupported.is_none()).copied().collect();
    sorted.sort_by_key(|route| (route.created, route.name.namespace.clone(), route.name.name.clone()));
    for port in service.ports.iter().map(|port| port.port) {
        let here: Vec<&Route> = sorted
            .iter()
            .filter(|route| {
                route.services().any(|(to, parent)| to == service.name && holds(parent, service, port))
            })
            .copied()
            .collect();
        let Some(kind) = KINDS.into_iter().find(|kind| here.iter().any(|route| route.kind == *kind)) else {
            continue;
        };
        ports.insert(port, here.into_iter().filter(|route| route.kind == kind).collect());
    }
    ports
}

/// A headless service has no address that clients could mean, an ExternalName no endpoints.
fn is_attachable(service: &Service) -> bool {
    !service.headless && service.external_name.is_none()
}

fn holds(parent: &ParentRef, service: &Service, port: u16) -> bool {
    let known = service.ports.iter().find(|known| known.port == port);
    let named =
        parent.section.as_ref().is_none_or(|section| known.is_some_and(|known| known.name == *section));
    named && parent.port.is_none_or(|number| number == port)
}

/// Whether a route counts for a service that it is attached to, and if not, why.
pub(in crate::resolve) fn refusal(
    index: &Index,
    service: &Service,
    route: &Route,
    parent: &ParentRef,
) -> Option<Refusal> {
    if route.unsupported.is_some() {
        return Some(Refusal::Unsupported);
    }
    if !is_attachable(service) {
        return Some(Refusal::Unattachable);
    }
    if meant(service, parent).next().is_none() {
        return Some(Refusal::NoSuchPort);
    }
    counting(index, service, route, parent).is_empty().then_some(Refusal::Conflicted)
}

fn meant<'a>(service: &'a Service, parent: &'a ParentRef) -> impl Iterator<Item = u16> + 'a {
    service.ports.iter().map(|port| port.port).filter(move |port| holds(parent, service, *port))
}

/// The ports that a parent means and on which the route counts, as [`by_port`] has it. Does not look at every route of the
/// service: there may be thousands, and each is asked about.
pub(in crate::resolve) fn counting(
    index: &Index,
    service: &Service,
    route: &Route,
    parent: &ParentRef,
) -> Vec<u16> {
    if route.unsupported.is_some() || !is_attachable(service) {
        return Vec::new();
    }
    let counts = |port: &u16| {
        let namespace = &route.name.namespace;
        let is_there = |kind: &Kind| index.first_route(service, *port, namespace, *kind, None).is_some();
        KINDS.into_iter().find(is_there) == Some(route.kind)
    };
    meant(service, parent).filter(counts).collect()
}

/// On which ports that a parent means another TCPRoute has all connections, being older, and which one.
pub(in crate::resolve) fn older<'a>(
    index: &'a Index,
    service: &Service,
    route: &Route,
    parent: &ParentRef,
) -> BTreeMap<u16, &'a Route> {
    if route.kind != Kind::TCPRoute {
        return BTreeMap::new();
    }
    let oldest = counting(index, service, route, parent).into_iter().filter_map(|port| {
        let first = index.first_route(service, port, &route.name.namespace, route.kind, None)?;
        Some((port, first))
    });
    oldest.filter(|(_, first)| first.name != route.name).collect()
}

/// Ports that a parent means, and that do not say that they are for requests.
pub(in crate::resolve) fn undeclared(service: &Service, parent: &ParentRef) -> Vec<u16> {
    let meant = service.ports.iter().filter(|port| holds(parent, service, port.port));
    let silent =
        meant.filter(|port| app_protocol(port.app_protocol.as_deref(), &port.name) == AppProtocol::Unknown);
    silent.map(|port| port.port).collect()
}

/// Where a route's reference leads to: a service, or why it does not.
pub(in crate::resolve) fn backend(
    index: &Index,
    config: &ResolveConfig,
    route: &Route,
    to: &BackendRef,
) -> Result<Destination, (Unresolved, String)> {
    let Some(name) = to.service(&route.name.namespace) else {
        let group = if to.group.is_empty() { "" } else { "/" };
        let why = format!("a {}{group}{} cannot be sent to; a Service can", to.group, to.kind);
        return Err((Unresolved::Kind, why));
    };
    let Some(service) = host::resolve(index, config, &index.kubernetes_name(&name)) else {
        return Err((Unresolved::Missing, format!("there is no Service {name}")));
    };
    let Some(port) = to.port else {
        return Err((Unresolved::Missing, format!("it names no port of the Service {name}")));
    };
    if !service.ports.iter().any(|known| known.service_port == port) {
        return Err((Unresolved::Missing, format!("the Service {name} has no TCP port {port}")));
    }
    if is_of_requests(route.kind)
        && let Some(protocol) = foreign_protocol(index, &name, port)
    {
        let why = format!("port {port} of the Service {name} speaks {protocol} (appProtocol), and no HTTP");
        return Err((Unresolved::Protocol, why));
    }
    Ok(Destination::Service { service: service.key, port, subset: None })
}

/// Why a reference leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resolve) enum Unresolved {
    /// Its kind is not known.
    Kind,
    /// There is no such service or port.
    Missing,
    /// Requests cannot be sent in what the port speaks.
    Protocol,
}

/// Whether a kind of route has rules for requests.
pub(in crate::resolve) fn is_of_requests(kind: Kind) -> bool {
    matches!(kind, Kind::HTTPRoute | Kind::GRPCRoute)
}

/// What a port declares to speak, if requests cannot be sent there. TLS is no hindrance where a DestinationRule has it spoken.
fn foreign_protocol<'a>(index: &'a Index, service: &Name, port: u16) -> Option<&'a str> {
    let known = index.service(service)?.ports.iter().find(|known| known.port == port)?;
    let declared = known.app_protocol.as_deref()?;
    match carries_requests(declared) {
        Carries::Yes => None,
        Carries::InTls if speaks_tls(index, service, port) => None,
        Carries::InTls | Carries::No => Some(declared),
    }
}

fn speaks_tls(index: &Index, service: &Name, port: u16) -> bool {
    let speaks = |policy: &PortPolicy| policy.tls.as_ref().is_some_and(|tls| tls.mode != TlsMode::Disable);
    let host = index.kubernetes_name(service).hostname;
    let mut rules = index.destination_rules_of(&host).flat_map(|(_, rules)| rules);
    rules.any(|rule| {
        let policy = rule.policy.as_ref();
        policy.is_some_and(|policy| speaks(policy.ports.get(&port).unwrap_or(&policy.all)))
    })
}

fn rules(index: &Index, config: &ResolveConfig, routes: &[&Route]) -> Rules {
    let mut rules = Rules::default();
    let backends = |route: &Route, rule: &RouteRule| -> Vec<Backend> {
        rule.backends.iter().map(|to| sent_to(index, config, route, to)).collect()
    };
    match routes.first().map(|route| route.kind) {
        Some(Kind::TLSRoute) => rules.tls = Some(tls(routes, backends)),
        // The oldest has the port.
        Some(Kind::TCPRoute) => {
            let of_oldest = routes.iter().take(1).flat_map(|route| {
                route.rules.iter().map(|rule| TcpRule {
                    name: rule_name(route, rule),
                    matches: vec![],
                    backends: backends(route, rule),
                })
            });
            rules.tcp = Some(of_oldest.collect());
        }
        Some(kind) => {
            rules.http = Some(requests(index, config, routes));
            rules.grpc = kind == Kind::GRPCRoute;
        }
        None => {}
    }
    rules
}

fn rule_name(route: &Route, rule: &RouteRule) -> Arc<str> {
    match &*rule.name {
        "" => route.name.name.clone(),
        name => format!("{}/{name}", route.name.name).into(),
    }
}

/// By server name, the most specific first: of a match, what has the longer name.
fn tls(routes: &[&Route], backends: impl Fn(&Route, &RouteRule) -> Vec<Backend>) -> Vec<TlsRule> {
    let mut all: Vec<(&Arc<str>, &Route, &RouteRule)> = Vec::new();
    for route in routes {
        let Some(rule) = route.rules.first() else { continue };
        all.extend(route.hostnames.iter().map(|name| (name, *route, rule)));
    }
    // Stable: the routes are in the order of their age.
    all.sort_by_key(|(name, ..)| (name.starts_with('*'), Reverse(name.len())));
    let rule = |(name, route, rule): (&Arc<str>, &Route, &RouteRule)| TlsRule {
        name: rule_name(route, rule),
        matches: vec![TlsMatch { server_names: vec![name.clone()], ..TlsMatch::default() }],
        backends: backends(route, rule),
    };
    all.into_iter().map(rule).collect()
}

/// Every match of every rule stands where its rank puts it; then age, name, and the order in the route decide.
fn requests(index: &Index, config: &ResolveConfig, routes: &[&Route]) -> Vec<HttpRule> {
    let mut all: Vec<(&RankedMatch, &Route, &RouteRule)> = Vec::new();
    for route in routes {
        let placed = route.matches();
        all.extend(placed.filter_map(|one| Some((one.ranked, *route, route.rules.get(one.rule)?))));
    }
    // Stable, see above.
    all.sort_by_key(|(one, ..)| Reverse(one.rank));
    let mut rules: Vec<(&RouteRule, HttpRule)> = Vec::new();
    for (one, route, rule) in all {
        // Neighbours of one rule are one again.
        if let Some((last, made)) = rules.last_mut()
            && std::ptr::eq(*last, rule)
        {
            made.matches.push(one.when.clone());
            continue;
        }
        rules.push((
            rule,
            HttpRule {
                name: rule_name(route, rule),
                matches: vec![one.when.clone()],
                action: action(index, config, route, rule),
                request_headers: rule.filters.request_headers.clone(),
                response_headers: rule.filters.response_headers.clone(),
                cors: rule.filters.cors.clone(),
            },
        ));
    }
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn action(index: &Index, config: &ResolveConfig, route: &Route, rule: &RouteRule) -> HttpAction {
    if rule.filters.broken.is_some() {
        return HttpAction::Reply(Reply { status: 500, body: Arc::default() });
    }
    if let Some(redirect) = &rule.filters.redirect {
        return HttpAction::Redirect(redirect.clone());
    }
    HttpAction::Forward(Box::new(Forward {
        backends: rule.backends.iter().map(|to| sent_to(index, config, route, to)).collect(),
        rewrite: rule.filters.rewrite.clone(),
        timeout_ms: rule.timeout_ms,
        retries: rule.retries.clone(),
        mirrors: mirrors(index, config, route, &rule.filters),
        fault: None,
    }))
}

fn sent_to(index: &Index, config: &ResolveConfig, route: &Route, to: &BackendRef) -> Backend {
    let broken = |why: String| Destination::Broken {
        wanted: format!("{} {}", to.kind, name_of(to, route)).into(),
        why: why.into(),
    };
    let destination = match (&to.filters.broken, backend(index, config, route, to)) {
        (Some(filter), _) => broken(filter.clone()),
        (None, Ok(destination)) => destination,
        (None, Err((_, why))) => broken(why),
    };
    Backend {
        to: destination,
        weight: to.weight,
        request_headers: to.filters.request_headers.clone(),
        response_headers: to.filters.response_headers.clone(),
        rewrite: to.filters.rewrite.clone(),
        redirect: to.filters.redirect.clone(),
        mirrors: mirrors(index, config, route, &to.filters),
    }
}

fn name_of(to: &BackendRef, route: &Route) -> Name {
    Name::new(to.namespace.as_ref().unwrap_or(&route.name.namespace).clone(), to.name.clone())
}

/// A copy that cannot be sent is not sent.
fn mirrors(index: &Index, config: &ResolveConfig, route: &Route, filters: &Filters) -> Vec<Mirror> {
    let resolved = filters.mirrors.iter().filter_map(|(to, per_million)| {
        let to = backend(index, config, route, to).ok()?;
        Some(Mirror { to, per_million: *per_million, shadow_host: false })
    });
    resolved.collect()
}
