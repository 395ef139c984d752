//! The last steps: which endpoint, how it is reached, and whether it lets the client in.

use super::ask::Ask;
use super::tale::{Tale, row};
use super::whom::shown;
use super::{Scene, Seen, words};
use crate::balance::{Ask as Turn, Effective, Group, HashInput, Health as _, hash_input, hash_of_connection};
use crate::outbound::{named, originated};
use crate::policy::{self, Connection, Denial};
use crate::route::http::RequestView;
use crate::route::{
    Backend, Choice, Doubts, Failing, Hop, Own, Target, own_endpoint, rank, resolve_backend, target_of,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use warren_common::model::admin::{Transport, Verdict, WhyMark, WhyRow};
use warren_common::model::traffic::{PortPolicy, Selector};
use warren_common::model::{Health, Mode, Service, ServiceName, TunnelProtocol, Workload, WorkloadUid};

/// A port of a service, or of a part of its endpoints, that a client is on its way to.
pub(super) struct Way<'a> {
    pub(super) scene: &'a Scene<'a>,
    pub(super) client: &'a Arc<Workload>,
    pub(super) service: &'a Arc<Service>,
    pub(super) port: u16,
    pub(super) subset: Option<&'a Arc<str>>,
    pub(super) effective: &'a Effective,
    /// What is dialled, or any address of the family that is wanted.
    pub(super) like: SocketAddr,
}

impl Way<'_> {
    /// Nobody is known to stand behind the service: files leave that to the cluster. It is told then.
    pub(super) fn is_left_open(&self, tale: &mut Tale) -> bool {
        let hostname = &self.service.key.hostname;
        let is_open = says_nothing_of_endpoints(self.scene, &self.service.key);
        if is_open {
            tale.step("endpoint", "there is no pod that its selector takes, and no EndpointSlice of it");
            tale.end(format!("the files don't say which endpoints {hostname} has"));
        }
        is_open
    }

    /// The endpoint, as the DestinationRule that is in force says; for a request if there is one.
    pub(super) fn choose(
        &self,
        request: Option<&RequestView<'_>>,
        tale: &mut Tale,
    ) -> Result<Target, String> {
        let Self { scene, client, service, port, effective, .. } = *self;
        let failing = scene.known.failing();
        let seen = scene.known.seen(client, &service.key, port, self.subset);
        let group = Group::new(scene.mesh, service, client, port, effective);
        let by_rule = !effective.counts_nothing() && service.steering.mode != Mode::Passthrough;
        let last = scene.known.last(client, &service.key);
        let backend = Backend { service, port, subset: Some(&effective.labels), own: false };
        if let Own::Endpoint(workload, port) = own_endpoint(scene.mesh, &backend, self.like) {
            let row = row(WhyMark::Chosen, [shown(workload), place(workload), "dialled".to_owned()]);
            let text = "the one that was dialled: the service has no address of its own";
            tale.rows("endpoint", text, vec![row]);
            let target = target_of(scene.mesh, client, service, workload, port, self.like.ip());
            return target.map_err(|error| error.to_string());
        }
        let picked = match by_rule {
            true => self.by_rule(&group, &seen, request),
            false => self.any(&failing, last.as_ref()),
        };
        let uid = picked.as_ref().ok().and_then(|(target, _)| target.workload.as_ref()).map(|it| &it.uid);
        let (rows, possible) = self.candidates(&seen, &failing, uid);
        let known = scene.mesh.endpoints(&service.key).len();
        let balancer = match (&effective.policy.balancer, last) {
            (Some(balancer), _) if by_rule => words::balancer(balancer),
            (_, Some(_)) if !by_rule => "session affinity: the one that this client had last".to_owned(),
            _ if by_rule => "LEAST_REQUEST".to_owned(),
            _ => "any of the best".to_owned(),
        };
        let how = match &picked {
            Ok((_, HashInput::Hash(_))) => "the hash decides",
            Ok((_, HashInput::NewCookie { .. })) => "the client gets a cookie, and keeps to one",
            _ if possible > 1 => "one of those that may be, by chance or turn",
            _ => "",
        };
        tale.outcome.certain &= possible <= 1 || matches!(picked, Ok((_, HashInput::Hash(_))));
        let how = if how.is_empty() { String::new() } else { format!("; {how}") };
        tale.rows("endpoint", format!("{possible} of {known} may be chosen, {balancer}{how}"), rows);
        picked.map(|(target, _)| target)
    }

    fn by_rule(
        &self,
        group: &Group,
        seen: &Seen,
        request: Option<&RequestView<'_>>,
    ) -> Result<(Target, HashInput), String> {
        let Self { scene, client, service, like, .. } = *self;
        let input = match (group.hash_key(), request) {
            (Some(key), Some(request)) => hash_input(key, request, address(client), scene.entropy),
            (Some(key), None) => hash_of_connection(key, address(client)),
            (None, _) => HashInput::Absent,
        };
        let turn = Turn { turn: scene.entropy, entropy: scene.entropy, hash: input.hash(), avoid: &[] };
        let dialled = group.is_passthrough().then(|| group.at(like.ip())).flatten();
        let picked = dialled.map_or_else(|| group.pick(&turn, seen), Ok);
        let endpoint = picked.map_err(|error| format!("{}: {error}", service.key.hostname))?;
        let target = target_of(scene.mesh, client, service, &endpoint.workload, endpoint.port, like.ip());
        Ok((target.map_err(|error| error.to_string())?, input))
    }

    fn any(&self, failing: &Failing, sticky: Option<&WorkloadUid>) -> Result<(Target, HashInput), String> {
        let Self { scene, client, service, port, effective, like, .. } = *self;
        let backend = Backend { service, port, subset: Some(&effective.labels), own: false };
        let choice = choice(scene, failing, sticky);
        let target = resolve_backend(scene.mesh, client, &backend, like, &choice);
        Ok((target.map_err(|error| error.to_string())?, HashInput::Absent))
    }

    /// Every endpoint of the service, and why it may be chosen or not; and how many may.
    fn candidates(
        &self,
        seen: &Seen,
        failing: &Failing,
        chosen: Option<&WorkloadUid>,
    ) -> (Vec<WhyRow>, usize) {
        let Self { scene, service, port, effective, .. } = *self;
        let judged: Vec<_> = scene
            .mesh
            .endpoints(&service.key)
            .map(|workload| (workload, self.judge(&effective.labels, seen, workload)))
            .collect();
        // Who is worse than the best is there for when nobody else is.
        let class = |judged: &Judged| (judged.terminating, judged.meant_for_others, judged.distance);
        let best = judged.iter().filter_map(|(_, judged)| judged.as_ref().ok()).map(class).min();
        let mut possible = 0;
        let mut rows: Vec<_> = judged
            .iter()
            .map(|(workload, judged)| {
                let failed = failing.is_avoided(workload, port, scene.now);
                let (mark, why) = match judged {
                    Err(why) => (WhyMark::Excluded, why.clone()),
                    Ok(judged) if Some(class(judged)) != best => (WhyMark::Excluded, judged.second()),
                    Ok(_) if failed => (WhyMark::Possible, "has failed lately: comes last".to_owned()),
                    Ok(judged) => (WhyMark::Possible, judged.said.clone()),
                };
                possible += usize::from(mark == WhyMark::Possible);
                let mark = if chosen == Some(&workload.uid) { WhyMark::Chosen } else { mark };
                row(mark, [shown(workload), place(workload), why])
            })
            .collect();
        rows.sort_by_key(|row| row.mark != WhyMark::Chosen);
        (rows, possible)
    }

    fn judge(&self, labels: &Selector, seen: &Seen, workload: &Workload) -> Result<Judged, String> {
        let Self { client, service, port, .. } = *self;
        let lacks = labels.iter().find(|(key, value)| workload.labels.get(*key) != Some(*value));
        if let Some((key, value)) = lacks {
            return Err(format!("lacks the label {key}={value}"));
        }
        let Some((rank, _)) = rank(service, client, port, workload) else {
            return Err(match workload.health {
                Health::Unhealthy if !service.publish_not_ready => "not ready".to_owned(),
                _ => "not for this client: it is elsewhere, or does not serve this port".to_owned(),
            });
        };
        if seen.is_out(&workload.uid) {
            return Err("left out by outlier detection".to_owned());
        }
        let said = match seen.active(&workload.uid) {
            0 => "ready".to_owned(),
            active => format!("ready, {active} requests under way"),
        };
        Ok(Judged {
            terminating: rank.terminating,
            meant_for_others: rank.meant_for_others,
            distance: rank.distance,
            said,
        })
    }
}

/// An endpoint that may be chosen, if none is better.
struct Judged {
    terminating: bool,
    meant_for_others: bool,
    distance: usize,
    said: String,
}

impl Judged {
    fn second(&self) -> String {
        let why = match self {
            Self { terminating: true, .. } => "terminating: for when nobody is ready",
            Self { meant_for_others: true, .. } => "meant for clients elsewhere",
            _ => "farther away: for when nobody near is ready",
        };
        why.to_owned()
    }
}

/// Files need not say who stands behind a service; an agent knows it.
pub(super) fn says_nothing_of_endpoints(scene: &Scene<'_>, service: &ServiceName) -> bool {
    scene.node.is_none() && scene.mesh.endpoints(service).len() == 0
}

/// What steers a choice that is only looked at.
pub(super) fn choice<'a>(
    scene: &Scene<'_>,
    failing: &'a Failing,
    sticky: Option<&'a WorkloadUid>,
) -> Choice<'a> {
    let doubts = Doubts { silent_nodes: &[], failing: Some((failing, scene.now)) };
    Choice { entropy: scene.entropy, avoid: &[], sticky, doubts }
}

fn place(workload: &Workload) -> String {
    let at = workload.addresses.first().map_or_else(
        || workload.placement.hostname.as_deref().unwrap_or("no address").to_owned(),
        ToString::to_string,
    );
    let zone = &workload.placement.locality.zone;
    let zone = if zone.is_empty() { String::new() } else { format!(" in {zone}") };
    match &*workload.node {
        "" => format!("{at}{zone}"),
        node => format!("{at} on {node}{zone}"),
    }
}

fn address(client: &Workload) -> IpAddr {
    client.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// How the target is reached, and whether it lets the client in.
pub(super) fn arrive(
    scene: &Scene<'_>,
    client: &Workload,
    ask: &Ask,
    target: &Target,
    policy: &PortPolicy,
    tale: &mut Tale,
) {
    let who = target.workload.as_ref().map(|workload| shown(workload));
    let (transport, text) = match &target.hop {
        Hop::SameNode => {
            let text = "same node: the kernel proves both identities, the bytes never touch a wire";
            (Transport::SameNode, text.to_owned())
        }
        Hop::Hbone { gateway, identity } => {
            let text = format!("mTLS tunnel (HBONE) to {gateway}, which must prove to be {identity}");
            (Transport::Hbone, text)
        }
        Hop::Plaintext => {
            let why = match &who {
                Some(who) => format!("{who} is not in the mesh"),
                None => "nothing of the mesh has this address".to_owned(),
            };
            (Transport::Plaintext, format!("plaintext: {why}"))
        }
        Hop::Named(name) => (Transport::Plaintext, format!("plaintext to {name}, which the node looks up")),
    };
    let origination = originated(policy, &target.hop, &ask.host, target.service.as_deref())
        .map_or_else(String::new, |tls| {
            format!("; {}, server name {}", words::tls_mode(&tls.settings), tls.name)
        });
    tale.step("transport", text + &origination);
    tale.outcome.transport = transport;
    tale.outcome.endpoint = who.clone();
    tale.outcome.address = Some(target.address).filter(|_| !matches!(target.hop, Hop::Named(_)));
    let to = match (&target.hop, who) {
        (Hop::Named(name), _) => format!("{name}:{}", target.address.port()),
        (_, Some(who)) => format!("{who} at {}", target.address),
        (_, None) => target.address.to_string(),
    };
    if let Err(unnamed) = named(policy, target, target.service.as_deref()) {
        tale.outcome.flag = Some("UF".to_owned());
        return tale.end(format!("refused by the client's agent: {unnamed}"));
    }
    let refused =
        target.workload.as_deref().and_then(|server| judge(scene, client, ask, target, server, tale));
    match refused {
        Some(why) => {
            tale.outcome.flag = Some("DENY".to_owned());
            tale.end(format!("refused by {to}: {why}"));
        }
        None => tale.end(format!("goes to {to}")),
    }
}

/// What the server's agent would say; why, if it refuses.
fn judge(
    scene: &Scene<'_>,
    client: &Workload,
    ask: &Ask,
    target: &Target,
    server: &Workload,
    tale: &mut Tale,
) -> Option<Denial> {
    if server.tunnel == TunnelProtocol::None {
        tale.step("policy", format!("none: {} is not in the mesh, nobody judges there", shown(server)));
        return None;
    }
    let ip = address(client);
    let connection = Connection {
        source: Some(&client.identity),
        peer: ip,
        client: ip,
        destination: target.address,
        server_name: ask.server_name(),
    };
    let effective = policy::Effective::new(scene.mesh.policies(), server);
    let decision = effective.judge(&connection);
    let dry_run = decision.dry_run.map_or(String::new(), |rule| format!("; dry run: {rule}"));
    let (verdict, rule, text, denial) = match decision.verdict {
        Ok(permit) => (Verdict::Allowed, permit.rule().to_string(), permit.rule().to_string(), None),
        Err(denial) => (Verdict::Denied, denial.rule().to_string(), denial.to_string(), Some(denial)),
    };
    let hinges = match effective.hinges_on_server_name(&connection) {
        true => "; the server name in the client's own TLS may change that",
        false => "",
    };
    tale.step("policy", format!("{text}{dry_run}{hinges}, for {}", client.identity));
    tale.outcome.verdict = verdict;
    tale.outcome.policy = Some(rule);
    denial
}

/// An address of the client's family, for what has none.
pub(super) fn like(client: &Workload, dialled: Option<SocketAddr>) -> SocketAddr {
    dialled.unwrap_or_else(|| SocketAddr::new(address(client), 0))
}
