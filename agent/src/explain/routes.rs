//! The rules and DestinationRules in force for pods, as people read them.

use super::backend::says_nothing_of_endpoints;
use super::whom::{client, close, shown};
use super::{ExplainError, Scene, words};
use crate::balance::in_force;
use crate::route::http::{Action, ClientView, HttpTable, InForce, Patterns, Rule, table_of};
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_common::model::admin::{
    PolicyInForce, Routes, RoutesOf, RoutesQuestion, RuleView, RulesKind, SubsetView,
};
use warren_common::model::traffic::{Clients, Destination, HttpMatch, RouteTable, ScopedPolicy, Traffic};
use warren_common::model::{AppProtocol, Service, ServiceName, Workload};

/// What is in force for the enrolled pods of the scene's node.
///
/// # Errors
/// [`ExplainError::Client`] when the client that is asked about is not known, or another node's.
pub fn routes(scene: &Scene<'_>, question: &RoutesQuestion) -> Result<Routes, ExplainError> {
    let clients = clients(scene, question.client.as_deref())?;
    let patterns = Patterns::default();
    let mut left = question.limit;
    let mut routes = Routes { unknown: unknown(scene, question), ..Routes::default() };
    for traffic in scene.mesh.all_traffic() {
        let service = scene.mesh.service(&traffic.service);
        let namespace = question.namespace.as_deref();
        if namespace.is_some_and(|wanted| *traffic.service.namespace != *wanted)
            || question.service.as_deref().is_some_and(|wanted| !is_named(&traffic.service, wanted))
        {
            continue;
        }
        // Without its service nobody can reach it, and its ports are unknown.
        let Some(service) = service else { continue };
        for port in service.ports.iter().map(|port| port.service_port) {
            for group in groups(traffic, port, &clients) {
                let whole = clients.len() == group.clients.len() && question.client.is_none();
                let of = Of { scene, traffic, service, port, group: &group, patterns: &patterns };
                routes.routes.extend(of.view(whole, &mut left));
            }
        }
    }
    Ok(routes)
}

/// Whom it is asked about.
fn clients<'a>(scene: &Scene<'a>, wanted: Option<&str>) -> Result<Vec<&'a Arc<Workload>>, ExplainError> {
    if let Some(wanted) = wanted {
        return Ok(vec![client(scene.mesh, scene.node, wanted)?]);
    }
    let is_here = |workload: &&Arc<Workload>| {
        scene.node.is_none_or(|node| *workload.node == *node)
            && workload.enrolment.enrolled
            && !workload.host_network
    };
    Ok(scene.mesh.workloads().filter(is_here).collect())
}

/// By its whole hostname, or the first part or parts of it.
fn is_named(service: &ServiceName, wanted: &str) -> bool {
    let rest = service.hostname.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// That nobody is called what is asked about; none where somebody is.
fn unknown(scene: &Scene<'_>, question: &RoutesQuestion) -> Option<String> {
    let wanted = question.service.as_deref()?;
    let namespace = question.namespace.as_deref();
    let named = || scene.mesh.services().filter(|service| is_named(&service.key, wanted));
    let is_here = |service: &&Arc<Service>| namespace.is_none_or(|here| *service.key.namespace == *here);
    if named().any(|service| is_here(&service)) {
        return None;
    }
    let whole = |service: &Arc<Service>| format!("{}.{}", service.name, service.key.namespace);
    let mut near: Vec<String> = named().map(whole).collect();
    if near.is_empty() {
        let names = scene.mesh.services().map(|service| match is_here(&service) {
            true => service.name.to_string(),
            false => whole(service),
        });
        near = close(wanted, names);
    }
    let here = namespace.map_or_else(String::new, |here| format!(" in the namespace {here}"));
    let near = match &*near {
        [] => "; `warren services` shows those that are known".to_owned(),
        near => format!("; is {} meant?", near.join(" or ")),
    };
    Some(format!("there is no service {wanted}{here}{near}"))
}

/// Clients for whom the same is in force.
struct Group<'a> {
    table: Option<&'a RouteTable>,
    policy: Option<&'a ScopedPolicy>,
    clients: Vec<&'a Arc<Workload>>,
}

/// The clients by what is in force for them: tables and policies by their place, matches where they are for some clients only.
fn groups<'a>(traffic: &'a Traffic, port: u16, clients: &[&'a Arc<Workload>]) -> Vec<Group<'a>> {
    let mut groups: Vec<(Vec<bool>, Group<'a>)> = Vec::new();
    for client in clients {
        let view = ClientView { namespace: &client.namespace, labels: &client.labels };
        let table = table_of(traffic, &view, port);
        let holds = |clients: &Clients| clients.hold(view.namespace, view.labels);
        let policy = traffic.policies.iter().find(|policy| holds(&policy.clients));
        if table.is_none() && policy.is_none() {
            continue;
        }
        let conditional = table.into_iter().flat_map(of_some).map(|wanted| holds(&wanted.clients));
        let conditional: Vec<bool> = conditional.collect();
        let same = |a: Option<&RouteTable>, b: Option<&RouteTable>| match (a, b) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let same_policy = |a: Option<&ScopedPolicy>, b: Option<&ScopedPolicy>| match (a, b) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let known = groups.iter_mut().find(|(met, group)| {
            *met == conditional && same(group.table, table) && same_policy(group.policy, policy)
        });
        match known {
            Some((_, group)) => group.clients.push(client),
            None => groups.push((conditional, Group { table, policy, clients: vec![client] })),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

/// Matches that are for some clients only.
fn of_some(table: &RouteTable) -> impl Iterator<Item = &HttpMatch> {
    let rules = table.rules.http.iter().flatten();
    rules.flat_map(|rule| &rule.matches).filter(|wanted| wanted.clients != Clients::default())
}

/// What is in force for a group.
struct Of<'a> {
    scene: &'a Scene<'a>,
    traffic: &'a Traffic,
    service: &'a Arc<Service>,
    port: u16,
    group: &'a Group<'a>,
    patterns: &'a Patterns,
}

impl Of<'_> {
    /// One for each kind of rules that there is. `left`: rules that may still be told.
    fn view(&self, every_client: bool, left: &mut usize) -> Vec<RoutesOf> {
        let declared = self.service.ports.iter().find(|port| port.service_port == self.port);
        let base = RoutesOf {
            service: self.traffic.service.clone(),
            port: self.port,
            protocol: declared.map_or(AppProtocol::Unknown, |port| port.app_protocol),
            clients: self.group.clients.iter().map(|client| shown(client)).collect(),
            every_client,
            kind: RulesKind::None,
            objects: self.group.table.map(|table| table.objects.clone()).unwrap_or_default(),
            broken: None,
            rules: Vec::new(),
            left_out: 0,
            policy: self.policy(),
            remarks: Vec::new(),
        };
        let mut views = Vec::new();
        if let Some(table) = self.group.table {
            views.extend(self.http(&base, table, left));
            if let Some(rules) = &table.rules.tls {
                let rules = rules.iter().map(words::tls_rule);
                views.push(limited(&base, RulesKind::Tls, rules.collect(), left));
            }
            if let Some(rules) = &table.rules.tcp {
                let rules = rules.iter().map(words::tcp_rule);
                views.push(limited(&base, RulesKind::Tcp, rules.collect(), left));
            }
        }
        if views.is_empty() && base.policy.is_some() {
            views.push(RoutesOf { objects: Vec::new(), ..base });
        }
        views
    }

    fn http(&self, base: &RoutesOf, table: &RouteTable, left: &mut usize) -> Option<RoutesOf> {
        let written = table.rules.http.as_ref()?;
        let client = self.group.clients.first()?;
        let view = ClientView { namespace: &client.namespace, labels: &client.labels };
        let traffic = Some(self.traffic);
        let kind = if table.rules.grpc { RulesKind::Grpc } else { RulesKind::Http };
        match InForce::new(traffic, &view, &self.traffic.service, self.port, self.patterns) {
            InForce::Rules(compiled) => {
                let rules = self.rules(table, &compiled);
                let total: BTreeSet<usize> = compiled.places().collect();
                let mut told = limited(base, kind, rules, left);
                let others = written.len() - total.len().min(written.len());
                if others > 0 {
                    let text = "of its rules are for other clients or ports, or come after one that holds everything";
                    told.remarks.push(format!("{others} {text}"));
                }
                told.remarks.extend(self.remarks(&compiled, &view));
                Some(told)
            }
            InForce::Broken(why) => Some(RoutesOf { kind, broken: Some(why.to_string()), ..base.clone() }),
            InForce::Nothing(_) => None,
        }
    }

    /// The rules as they are tried: of each, the matches that this client can meet.
    fn rules(&self, table: &RouteTable, compiled: &HttpTable) -> Vec<RuleView> {
        let mut rules: Vec<(usize, RuleView)> = Vec::new();
        for ((_, wanted, rule), place) in compiled.entries().zip(compiled.places()) {
            let Some(written) = table.rules.http.as_ref().and_then(|all| all.get(place)) else { continue };
            let when = wanted.map(words::wanted);
            match rules.last_mut() {
                Some((last, view)) if *last == place => view.when.extend(when),
                _ => {
                    let split = split_of(rule);
                    let view = words::http_rule(written, split);
                    rules.push((place, RuleView { when: when.into_iter().collect(), ..view }));
                }
            }
        }
        rules.into_iter().map(|(_, view)| view).collect()
    }

    /// What requests will fail of, whatever they are.
    fn remarks(&self, compiled: &HttpTable, view: &ClientView<'_>) -> Vec<String> {
        let mut remarks = BTreeSet::new();
        for (name, _, rule) in compiled.entries() {
            let Action::Forward(forwarding) = &rule.action else { continue };
            if forwarding.split.pick(0).is_none() {
                remarks.insert(format!("{name}: nobody has a share of its requests: they fail"));
            }
            for backend in &forwarding.backends {
                remarks.extend(self.trouble(&backend.to, view));
            }
        }
        remarks.into_iter().collect()
    }

    fn trouble(&self, to: &Destination, view: &ClientView<'_>) -> Option<String> {
        match to {
            Destination::Broken { wanted, why } => Some(format!("{wanted} leads nowhere: {why}")),
            Destination::Service { service, port, subset } => {
                let mesh = self.scene.mesh;
                if mesh.service(service).is_none() {
                    return Some(format!("there is no service {service}"));
                }
                let traffic = mesh.traffic(service).map(|traffic| &**traffic);
                let effective = match in_force(traffic, service, view, *port, subset.as_deref()) {
                    Ok(effective) => effective,
                    Err(error) => return Some(error.to_string()),
                };
                let has = |workload: &&Arc<Workload>| {
                    effective.labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
                };
                let open = says_nothing_of_endpoints(self.scene, service);
                let none = !open && mesh.endpoints(service).find(has).is_none();
                none.then(|| format!("{} has no endpoint", words::destination(to)))
            }
        }
    }

    fn policy(&self) -> Option<PolicyInForce> {
        let scoped = self.group.policy?;
        let client = self.group.clients.first()?;
        let view = ClientView { namespace: &client.namespace, labels: &client.labels };
        let says = |subset: Option<&str>| {
            let effective = in_force(Some(self.traffic), &self.traffic.service, &view, self.port, subset);
            effective.map(|effective| words::effective(&effective)).unwrap_or_default()
        };
        let whole = says(None);
        let subsets = scoped.subsets.iter().map(|subset| {
            let has = |workload: &&Arc<Workload>| {
                subset.labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
            };
            let mut own = says(Some(&subset.name));
            own.retain(|text| !whole.contains(text));
            SubsetView {
                name: subset.name.to_string(),
                labels: words::labels(&subset.labels),
                endpoints: self.scene.mesh.endpoints(&self.traffic.service).filter(has).count(),
                says: own,
            }
        });
        let subsets = subsets.collect();
        Some(PolicyInForce { objects: scoped.objects.clone(), says: whole, subsets })
    }
}

fn split_of(rule: &Rule) -> Option<&crate::route::http::Split> {
    match &rule.action {
        Action::Forward(forwarding) => Some(&forwarding.split),
        Action::Redirect(_) | Action::Reply(_) => None,
    }
}

/// As many of `rules` as may still be told.
fn limited(base: &RoutesOf, kind: RulesKind, mut rules: Vec<RuleView>, left: &mut usize) -> RoutesOf {
    let left_out = rules.len().saturating_sub(*left);
    rules.truncate(*left);
    *left -= rules.len();
    RoutesOf { kind, rules, left_out, ..base.clone() }
}
