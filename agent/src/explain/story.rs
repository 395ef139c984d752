//! The steps of a connection, in the order of [its story](crate::outbound).

use super::ask::{Ask, Speaks};
use super::backend::{Way, arrive, choice, like};
use super::request::Request;
use super::tale::{Tale, row};
use super::whom::{Whom, client, shown, whom};
use super::{ExplainError, Scene, words};
use crate::balance::{Effective, effective, in_force};
use crate::route::http::{ClientView, HttpTable, InForce, Patterns, table_of};
use crate::route::l4::{L4Table, Said, Way as L4Way, way};
use crate::route::{Through, headless_at, named, resolve};
use std::net::SocketAddr;
use std::sync::Arc;
use warren_common::model::admin::{Transport, Why, WhyMark, WhyQuestion};
use warren_common::model::traffic::{Destination, PortPolicy, RouteTable, Traffic};
use warren_common::model::{Cidr, Service, Workload};

/// Where it would go, and why.
///
/// # Errors
/// [`ExplainError`] when the question is not understood, or is another node's.
pub fn why(scene: &Scene<'_>, question: &WhyQuestion) -> Result<Why, ExplainError> {
    let ask = Ask::new(question)?;
    let client = client(scene.mesh, scene.node, &question.client)?;
    let mut tale = Tale::new();
    Story { scene, client, ask: &ask }.tell(&mut tale);
    let Tale { steps, outcome } = tale;
    Ok(Why { client: shown(client), asked: ask.shown.clone(), steps, outcome })
}

/// What is said of a service's port to a client.
struct SaidOf<'a> {
    traffic: Option<&'a Traffic>,
    rules: InForce,
    connections: Option<L4Table>,
    policy: Effective,
}

/// A client on its way.
struct Story<'a> {
    scene: &'a Scene<'a>,
    client: &'a Arc<Workload>,
    ask: &'a Ask,
}

impl Story<'_> {
    fn tell(&self, tale: &mut Tale) {
        let Self { scene, client, ask } = *self;
        if !client.enrolment.enrolled || client.host_network {
            tale.step("client", format!("{} is not in the mesh", shown(client)));
            tale.outcome.transport = Transport::Plaintext;
            return tale.end(
                "leaves as it is: nothing of this pod is captured, and no rule of the mesh holds for it",
            );
        }
        let on = if client.node.is_empty() { String::new() } else { format!(" on {}", client.node) };
        tale.step("client", format!("{}{on}, as {}", shown(client), client.identity));
        let (whom, aliases) = whom(scene.mesh, client, &ask.host, ask.port);
        for of in aliases {
            tale.step("alias", format!("ExternalName: stands for {of}"));
        }
        match whom {
            Whom::Service(service, dialled) => {
                let at = match dialled {
                    Some(dialled) => format!("at {dialled}"),
                    None => "which has no address here".to_owned(),
                };
                let name = format!("{} port {}", service.key.hostname, ask.port);
                tale.step("service", format!("{name}, {at}"));
                match dialled.and_then(|dialled| excluded(client, dialled)) {
                    Some(why) => self.passes(&why, tale),
                    None => self.service(&Through { service, port: ask.port }, dialled, tale),
                }
            }
            Whom::Unaddressed(service) => {
                let entry = format!("{}, a ServiceEntry without addresses", service.key.hostname);
                tale.step("service", entry);
                let why = "nothing tells that the connection is for the ServiceEntry, so none of its rules holds; it goes to \
                           what the application's own lookup finds (spec.addresses would change that)";
                self.passes(why, tale);
            }
            Whom::Address(dialled) => {
                let through = self.headless(dialled);
                let text = match &through {
                    Some(Through { service, port }) => format!(
                        "{} port {port}, which has no address of its own: its endpoint {dialled} is dialled",
                        service.key.hostname
                    ),
                    None => format!("no service that {} knows has {}", client.namespace, dialled.ip()),
                };
                tale.step("service", text);
                match (excluded(client, dialled), through) {
                    (Some(why), _) => self.passes(&why, tale),
                    (None, Some(through)) => self.service(&through, Some(dialled), tale),
                    (None, None) => self.address(dialled, tale),
                }
            }
            Whom::Stranger(near) => {
                let near = match &*near {
                    [] => String::new(),
                    near => format!("; is {} meant?", near.join(" or ")),
                };
                let text = format!("none that {} knows has the name {}{near}", client.namespace, ask.host);
                tale.step("service", text);
                self.passes("the name is looked up outside of the mesh, if there is one", tale);
            }
        }
    }

    /// It leaves as it is.
    fn passes(&self, why: &str, tale: &mut Tale) {
        tale.step("transport", format!("plaintext, as it is: {why}"));
        tale.outcome.transport = Transport::Plaintext;
        tale.end("leaves as it is");
    }

    /// The service without an address that is meant by dialling one of its endpoints: whose host is asked for, else the first of
    /// which something is said.
    fn headless(&self, dialled: SocketAddr) -> Option<Through> {
        let Self { scene, client, ask } = *self;
        let all: Vec<_> = headless_at(scene.mesh, client, dialled).collect();
        let says = |through: &&Through| {
            let said = self.said(&through.service, through.port);
            !matches!(said.rules, InForce::Nothing(_))
                || said.connections.is_some()
                || !said.policy.is_nothing()
        };
        let host = ask.parts.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = host.filter(|_| ask.speaks == Speaks::Http && all.iter().any(|one| says(&one)));
        let by_host = host.and_then(|host| named(&all, &client.namespace, host));
        by_host.or_else(|| all.iter().find(says)).or(all.first()).cloned()
    }

    /// What is said of a service's port to this client.
    fn said(&self, service: &Service, port: u16) -> SaidOf<'_> {
        let Self { scene, client, .. } = *self;
        let view = ClientView { namespace: &client.namespace, labels: &client.labels };
        let traffic = scene.mesh.traffic(&service.key).map(|traffic| &**traffic);
        let policy = traffic.and_then(|traffic| effective(traffic, &view, port, None).ok());
        SaidOf {
            traffic,
            rules: InForce::new(traffic, &view, &service.key, port, &Patterns::default()),
            connections: traffic.and_then(|traffic| L4Table::compile(traffic, &view, port)),
            policy: policy.unwrap_or_default(),
        }
    }

    fn service(&self, through: &Through, dialled: Option<SocketAddr>, tale: &mut Tale) {
        let Self { scene, client, ask } = *self;
        let Through { service, port } = through;
        if !service.ports.iter().any(|known| known.service_port == *port) {
            let ports = words::join(service.ports.iter().map(|port| port.service_port));
            return tale.end(format!("reset: {} has no port {port}, only {ports}", service.key.hostname));
        }
        let view = ClientView { namespace: &client.namespace, labels: &client.labels };
        let SaidOf { traffic, rules, connections, policy } = self.said(service, *port);
        let written = traffic.and_then(|traffic| table_of(traffic, &view, *port));
        let declared = words::protocol(service, *port);
        // Where the port says that HTTP is spoken, a DestinationRule alone is enough for requests to be looked at.
        let by_policy = declared.is_some() && policy.is_about_requests() && connections.is_none();
        match (rules, ask.speaks) {
            (InForce::Rules(table), Speaks::Http) => {
                self.protocol(through, tale);
                self.table(traffic, written, &table, &view, tale);
                Request { scene, client, ask, dialled, table: &table, written }.tell(tale);
            }
            (InForce::Nothing(table), Speaks::Http) if by_policy => {
                self.protocol(through, tale);
                tale.step(
                    "table",
                    "no rules for requests: the service's own endpoints, as its DestinationRule says",
                );
                Request { scene, client, ask, dialled, table: &table, written: None }.tell(tale);
            }
            (InForce::Broken(why), Speaks::Http) => {
                self.protocol(through, tale);
                tale.answered(500, Some("NC"), &format!("the rules can't be applied: {why}"));
            }
            (rules, speaks) => {
                let nothing = matches!(rules, InForce::Nothing(_));
                if let Some(declared) = declared.filter(|_| speaks != Speaks::Http && (!nothing || by_policy))
                {
                    tale.step("protocol", format!("the port says {declared}, and that is not it"));
                    return tale.answered(400, Some("DPE"), "what is not HTTP is not carried to this port");
                }
                let text = match (nothing, speaks) {
                    (true, Speaks::Http) => "no rules for requests are in force for this client and port",
                    (true, Speaks::Tls) => "TLS",
                    (true, Speaks::Bytes) => "whatever it is",
                    (false, Speaks::Tls) => "heard as TLS, past the rules for requests",
                    (false, _) => "heard as no HTTP, past the rules for requests",
                };
                tale.step("protocol", format!("carried as bytes: {text}"));
                self.connection(through, dialled, connections.as_ref(), &policy, tale);
            }
        }
    }

    fn protocol(&self, Through { service, port }: &Through, tale: &mut Tale) {
        let spoken = if self.ask.h2 { "HTTP/2" } else { "HTTP/1.1" };
        tale.step(
            "protocol",
            match words::protocol(service, *port) {
                Some(declared) => format!("{spoken}; the port says {declared}"),
                None => format!("{spoken}, heard: the port says nothing"),
            },
        );
    }

    /// Which table, of those that there are.
    fn table(
        &self,
        traffic: Option<&Traffic>,
        written: Option<&RouteTable>,
        table: &HttpTable,
        view: &ClientView<'_>,
        tale: &mut Tale,
    ) {
        let all = traffic.map_or(&[][..], |traffic| &traffic.tables);
        let mut decided = false;
        let rows = all.iter().map(|one| {
            let is_it = written.is_some_and(|written| std::ptr::eq(written, one));
            let why = if is_it {
                format!("is for {}{}", words::clients(&one.clients), ports(one))
            } else if decided {
                format!("comes later: is for {}{}", words::clients(&one.clients), ports(one))
            } else if !one.clients.hold(view.namespace, view.labels) {
                format!("is for {} alone", words::clients(&one.clients))
            } else {
                format!("is for the ports {} alone", words::join(one.ports.iter().flatten()))
            };
            decided |= is_it;
            let mark = if is_it { WhyMark::Chosen } else { WhyMark::Excluded };
            row(mark, [words::objects(&one.objects), why])
        });
        let rows: Vec<_> = if all.len() > 1 { rows.collect() } else { Vec::new() };
        let objects = words::objects(table.objects());
        let matches = |table: &RouteTable| {
            let rules = table.rules.http.iter().flatten();
            rules.map(|rule| rule.matches.len().max(1)).sum::<usize>()
        };
        let others = written.map_or(0, matches).saturating_sub(table.entries().len());
        let others = match others {
            0 => String::new(),
            others => {
                format!("; {others} of its matches are for others, or come after one that holds everything")
            }
        };
        tale.rows("table", format!("{objects}, the first that is for this client and port{others}"), rows);
        tale.outcome.objects = Some(objects);
    }

    /// Carried as bytes, as rules of connections say, or the DestinationRule of the service.
    fn connection(
        &self,
        Through { service, port }: &Through,
        dialled: Option<SocketAddr>,
        rules: Option<&L4Table>,
        policy: &Effective,
        tale: &mut Tale,
    ) {
        let Self { client, ask, .. } = *self;
        let said = match ask.server_name().filter(|_| rules.is_some_and(L4Table::hinges_on_name)) {
            Some(name) => Said::Tls(name),
            None => Said::Bytes,
        };
        let others = dialled.map(|dialled| headless_at(self.scene.mesh, client, dialled).skip(1).count());
        let way = way(rules, like(client, dialled).ip(), said, others.is_none_or(|others| others == 0));
        if let Some(table) = rules {
            tale.outcome.objects = Some(table.objects().to_string());
        }
        let objects = rules.map(|table| table.objects().to_string()).unwrap_or_default();
        match way {
            L4Way::Itself if policy.is_nothing() => {
                tale.outcome.objects = None;
                self.endpoint(service, *port, None, policy, dialled, tale);
            }
            L4Way::Itself => {
                tale.outcome.objects = Some(words::objects(&policy.objects));
                self.endpoint(service, *port, None, policy, dialled, tale);
            }
            L4Way::Nowhere => {
                tale.step("rules", format!("none of {objects} holds this connection"));
                self.reset("NR", &format!("no rule of {objects} holds this connection"), tale);
            }
            L4Way::Rule(rule) => {
                let name = if rule.name().is_empty() { "a rule without a name" } else { rule.name() };
                tale.outcome.route = Some(rule.name().to_string()).filter(|name| !name.is_empty());
                tale.step("rules", format!("{name} of {objects} holds, the first that does"));
                let shares: Vec<_> = rule.shares().collect();
                let best = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
                let chosen = shares.iter().position(|(_, share)| *share > 0.0 && *share >= best);
                let rows = shares.iter().enumerate().map(|(index, (to, share))| {
                    let mark = match chosen {
                        Some(chosen) if chosen == index => WhyMark::Chosen,
                        _ if *share > 0.0 => WhyMark::Possible,
                        _ => WhyMark::Excluded,
                    };
                    row(mark, [words::percent(share * 100.0), words::destination(to)])
                });
                tale.rows("backend", "by weight; the largest share is followed here", rows.collect());
                tale.outcome.certain &= best >= 1.0;
                match chosen.and_then(|chosen| shares.get(chosen)) {
                    Some((to, _)) => self.backend(to, dialled, tale),
                    None => self.reset("NC", "no backend of its rule has a share", tale),
                }
            }
        }
    }

    /// To a backend of a rule of connections.
    fn backend(&self, to: &Destination, dialled: Option<SocketAddr>, tale: &mut Tale) {
        let (name, port, subset) = match to {
            Destination::Service { service, port, subset } => (service, *port, subset.as_ref()),
            Destination::Broken { wanted, why } => {
                return self.reset("NC", &format!("{wanted} leads nowhere: {why}"), tale);
            }
        };
        let mesh = self.scene.mesh;
        let Some(service) = mesh.service(name) else {
            return self.reset("NC", &format!("there is no service {name}"), tale);
        };
        let view = ClientView { namespace: &self.client.namespace, labels: &self.client.labels };
        let traffic = mesh.traffic(name).map(|traffic| &**traffic);
        match in_force(traffic, name, &view, port, subset.map(|subset| &**subset)) {
            Ok(effective) => self.endpoint(service, port, subset, &effective, dialled, tale),
            Err(error) => self.reset("NC", &error.to_string(), tale),
        }
    }

    /// To an endpoint of a service.
    fn endpoint(
        &self,
        service: &Arc<Service>,
        port: u16,
        subset: Option<&Arc<str>>,
        effective: &Effective,
        dialled: Option<SocketAddr>,
        tale: &mut Tale,
    ) {
        let Self { scene, client, ask } = *self;
        if !effective.objects.is_empty() {
            let says = words::join(words::effective(effective));
            let says = if says.is_empty() { says } else { format!(": {says}") };
            tale.step("settings", format!("{}{says}", words::objects(&effective.objects)));
        }
        if tale.outcome.objects.is_some() {
            let subset = subset.map_or("", |subset| subset);
            tale.outcome.cluster = Some(format!("outbound|{port}|{subset}|{}", service.key.hostname));
        }
        let like = like(client, dialled);
        let way = Way { scene, client, service, port, subset, effective, like };
        if way.is_left_open(tale) {
            return;
        }
        match way.choose(None, tale) {
            Ok(target) => arrive(scene, client, ask, &target, &effective.policy, tale),
            Err(why) => self.reset("UH", &why, tale),
        }
    }

    fn reset(&self, flag: &str, why: &str, tale: &mut Tale) {
        tale.outcome.flag = Some(flag.to_owned());
        tale.end(format!("reset: {why}"));
    }

    /// To whoever has the address.
    fn address(&self, dialled: SocketAddr, tale: &mut Tale) {
        let Self { scene, client, ask } = *self;
        let failing = scene.known.failing();
        match resolve(scene.mesh, client, dialled, &choice(scene, &failing, None)) {
            Ok(target) => arrive(scene, client, ask, &target, &PortPolicy::default(), tale),
            Err(error) => tale.end(format!("reset: {error}")),
        }
    }
}

fn ports(table: &RouteTable) -> String {
    table.ports.as_ref().map_or_else(String::new, |ports| format!(", ports {}", words::join(ports)))
}

/// Why the kernel leaves such a connection alone, if it does.
fn excluded(client: &Workload, dialled: SocketAddr) -> Option<String> {
    let enrolment = &client.enrolment;
    if dialled.ip().is_loopback() {
        return Some("it stays within the pod".to_owned());
    }
    if client.addresses.contains(&dialled.ip()) {
        return Some("it is the pod's own address".to_owned());
    }
    if enrolment.exclude_outbound_ports.contains(&dialled.port()) {
        return Some(format!("the pod's annotation excludes the port {}", dialled.port()));
    }
    let mut ranges = enrolment.exclude_outbound_cidrs.iter();
    let range = ranges
        .find_map(|(ip, length)| Cidr::new(*ip, *length).ok().filter(|range| range.contains(dialled.ip())));
    range.map(|range| format!("the pod's annotation excludes {range}"))
}
