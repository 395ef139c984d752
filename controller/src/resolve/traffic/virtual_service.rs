//! VirtualServices to tables. Of several for one host the rules are not merged: one of them decides for a client.

use super::delegate::flattened;
use super::destination::target;
use super::{age, object_name};
use crate::index::Index;
use crate::objects::{
    HttpRoute, L4Route, MESH, Matching, Name, RouteAction, Target, VirtualService, Weighted,
};
use crate::resolve::service::Family;
use crate::resolve::{ResolveConfig, host};
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_common::model::Service;
use warren_common::model::traffic::{
    Backend, Clients, Destination, Forward, HttpAction, HttpRule, Mirror, RouteApi, RouteTable, Rules,
    TcpRule, TlsRule,
};

/// VirtualServices for a host in the order in which they are asked: exact hosts before patterns, the longer before the
/// shorter; of one host those for their own namespace alone, then those for some, then those for all; then by age.
pub(in crate::resolve) fn candidates<'a>(index: &'a Index, host: &'a str) -> Vec<&'a VirtualService> {
    let mut all: Vec<&VirtualService> = Vec::new();
    for (_, mut group) in index.virtual_services_of(host) {
        let visibility = |service: &VirtualService| match service.exported_to.as_deref() {
            Some([only]) if *only == service.name.namespace => 0,
            Some(_) => 1,
            None => 2,
        };
        group.sort_by_key(|service| (visibility(service), age(service.created, &service.name)));
        for service in group {
            if !all.iter().any(|earlier| earlier.name == service.name) {
                all.push(service);
            }
        }
    }
    all
}

pub(super) fn tables(index: &Index, config: &ResolveConfig, service: &Service) -> Vec<RouteTable> {
    let mut tables = Vec::new();
    for virtual_service in candidates(index, &service.key.hostname) {
        let Some(found) = of_one(index, config, service, virtual_service) else { continue };
        tables.extend(found);
        if virtual_service.exported_to.is_none() {
            // It is for everybody: nobody is left for the others.
            break;
        }
    }
    tables
}

/// The tables of one VirtualService; None when it says nothing to clients in the mesh. It is one, unless ports take other
/// lists of it than others do, or destinations take the port that was addressed.
fn of_one(
    index: &Index,
    config: &ResolveConfig,
    service: &Service,
    of: &VirtualService,
) -> Option<Vec<RouteTable>> {
    let (http, others) = flattened(index, of);
    let objects: Vec<_> =
        std::iter::once(&of.name).chain(&others).map(|name| object_name("VirtualService", name)).collect();
    let table = |ports: Option<Vec<u16>>, rules| RouteTable {
        clients: Clients { namespaces: of.exported_to.clone(), ..Clients::default() },
        ports,
        api: RouteApi::Istio,
        objects: objects.clone(),
        rules,
    };
    let compiler = |addressed| Compiler { index, config, own: &of.name, addressed, in_mesh: of.is_of_mesh() };
    let mut tables = Vec::new();
    for (lists, ports) in by_lists(index, config, service, of) {
        if let Some(rules) = compiler(None).rules(&http, of, lists) {
            if says_something(&rules) {
                let all = ports.len() == service.ports.len();
                tables.push(table((!all).then_some(ports), rules));
            }
            continue;
        }
        tables.extend(ports.into_iter().filter_map(|port| {
            let rules = compiler(Some(port)).rules(&http, of, lists)?;
            says_something(&rules).then(|| table(Some(vec![port]), rules))
        }));
    }
    (!tables.is_empty()).then_some(tables)
}

/// Which lists of a VirtualService count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lists {
    http: bool,
    others: bool,
}

/// The ports of a service by the lists that count for them.
fn by_lists(
    index: &Index,
    config: &ResolveConfig,
    service: &Service,
    of: &VirtualService,
) -> BTreeMap<Lists, Vec<u16>> {
    let there = Lists { http: !of.http.is_empty(), others: !(of.tls.is_empty() && of.tcp.is_empty()) };
    let mut by_lists: BTreeMap<Lists, Vec<u16>> = BTreeMap::new();
    for (port, family) in host::families(index, config, &service.key) {
        let lists = Lists {
            http: there.http && family != Family::Other,
            others: there.others && family != Family::Http,
        };
        by_lists.entry(lists).or_default().push(port);
    }
    by_lists
}

fn says_something(rules: &Rules) -> bool {
    rules.http.is_some() || rules.tls.is_some() || rules.tcp.is_some()
}

/// Matches that hold for clients in the mesh; None when there were some and none does.
fn for_mesh<M>(matches: &[Matching<M>], in_mesh: bool) -> Option<Vec<&M>> {
    let holds = |one: &&Matching<M>| match one.gateways.as_slice() {
        _ if one.never => false,
        [] => in_mesh,
        gateways => gateways.iter().any(|gateway| **gateway == *MESH),
    };
    let left: Vec<&M> = matches.iter().filter(holds).map(|one| &one.when).collect();
    (matches.is_empty() || !left.is_empty()).then_some(left)
}

struct Compiler<'a> {
    index: &'a Index,
    config: &'a ResolveConfig,
    own: &'a Name,
    addressed: Option<u16>,
    in_mesh: bool,
}

impl Compiler<'_> {
    /// None: the port that is addressed would have to be known.
    fn rules(&self, http: &[(usize, HttpRoute)], of: &VirtualService, lists: Lists) -> Option<Rules> {
        let mut rules = Rules::default();
        let (mut requests, mut tls, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
        let (http, of_tls, of_tcp): (&[_], &[_], &[_]) = (
            if lists.http { http } else { &[] },
            if lists.others { &of.tls } else { &[] },
            if lists.others { &of.tcp } else { &[] },
        );
        for (_, route) in http {
            let Some(matches) = for_mesh(&route.matches, self.in_mesh) else { continue };
            let matches = matches.into_iter().cloned().collect();
            let headers = route.headers.clone().unwrap_or_default();
            requests.push(HttpRule {
                name: route.name.clone(),
                matches,
                action: self.action(route)?,
                request_headers: headers.request,
                response_headers: headers.response,
                cors: route.cors.clone(),
            });
        }
        for L4Route { matches, backends } in of_tls {
            let Some(matches) = for_mesh(matches, self.in_mesh) else { continue };
            let matches = matches.into_iter().cloned().collect();
            tls.push(TlsRule { name: Arc::default(), matches, backends: self.backends(backends)? });
        }
        for L4Route { matches, backends } in of_tcp {
            let Some(matches) = for_mesh(matches, self.in_mesh) else { continue };
            let matches = matches.into_iter().map(|when| when.connection.clone()).collect();
            tcp.push(TcpRule { name: Arc::default(), matches, backends: self.backends(backends)? });
        }
        // Without a rule that can hold it says nothing, and the service is as it would be without it.
        rules.http = (!requests.is_empty()).then_some(requests);
        rules.tls = (!tls.is_empty()).then_some(tls);
        rules.tcp = (!tcp.is_empty()).then_some(tcp);
        Some(rules)
    }

    fn action(&self, route: &HttpRoute) -> Option<HttpAction> {
        let backends = match &route.action {
            RouteAction::Redirect(redirect) => return Some(HttpAction::Redirect(redirect.clone())),
            RouteAction::Reply(reply) => return Some(HttpAction::Reply(reply.clone())),
            RouteAction::Forward(backends) => self.backends(backends)?,
            // Flattening leaves none.
            RouteAction::Delegate(_) => Vec::new(),
        };
        let mirror =
            |(to, per_million)| Some(Mirror { to: self.target(to)?, per_million, shadow_host: true });
        let mirrors = route.mirrors.sent().map(mirror).collect::<Option<Vec<_>>>()?;
        Some(HttpAction::Forward(Box::new(Forward {
            backends,
            rewrite: route.rewrite.clone(),
            timeout_ms: route.timeout_ms,
            retries: route.retries.clone(),
            mirrors,
            fault: route.fault.clone(),
        })))
    }

    fn backends(&self, backends: &[Weighted]) -> Option<Vec<Backend>> {
        let backend = |backend: &Weighted| {
            Some(Backend {
                to: self.target(&backend.to)?,
                weight: backend.weight,
                request_headers: backend.request_headers.clone(),
                response_headers: backend.response_headers.clone(),
                rewrite: None,
                redirect: None,
                mirrors: vec![],
            })
        };
        backends.iter().map(backend).collect()
    }

    fn target(&self, to: &Target) -> Option<Destination> {
        target(self.index, self.config, &self.own.namespace, to, self.addressed)
    }
}
