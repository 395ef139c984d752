//! Rules of a VirtualService for ports where they do not count.

use super::About;
use crate::index::Index;
use crate::objects::{Matching, VirtualService};
use crate::resolve::service::Family;
use crate::resolve::{ResolveConfig, host};
use std::collections::BTreeSet;

pub(super) fn check(index: &Index, config: &ResolveConfig, service: &VirtualService, about: &mut About<'_>) {
    let hosts = service.hosts.iter().map(|host| index.full_name(host, &service.name.namespace));
    let held = hosts.flat_map(|host| index.services_held_by(&host));
    let ports: BTreeSet<_> = held.flat_map(|service| host::families(index, config, &service)).collect();
    if ports.is_empty() {
        return;
    }
    let check =
        |field, family, matches, about: &mut About<'_>| of_list(&ports, field, family, matches, about);
    let http: Vec<_> = service.http.iter().map(|rule| ports_of(&rule.matches, |when| when.port)).collect();
    check("http", Family::Http, &http, about);
    let of_tls = |when: &warren_common::model::traffic::TlsMatch| when.connection.port;
    let tls: Vec<_> = service.tls.iter().map(|rule| ports_of(&rule.matches, of_tls)).collect();
    check("tls", Family::Other, &tls, about);
    let tcp: Vec<_> = service.tcp.iter().map(|rule| ports_of(&rule.matches, of_tls)).collect();
    check("tcp", Family::Other, &tcp, about);
}

fn ports_of<M>(matches: &[Matching<M>], port: impl Fn(&M) -> Option<u16>) -> Vec<Option<u16>> {
    matches.iter().map(|one| port(&one.when)).collect()
}

/// `rules`: of each rule, the port that each of its matches asks for.
fn of_list(
    ports: &BTreeSet<(u16, Family)>,
    field: &str,
    family: Family,
    rules: &[Vec<Option<u16>>],
    about: &mut About<'_>,
) {
    let counts = |known: Family| known == family || known == Family::Heard;
    let (what, fix) = match family {
        Family::Http => (
            "HTTP",
            "Say `appProtocol: http` (or http2, grpc) at the Service's port, or write rules under tcp",
        ),
        _ => (
            "anything else than HTTP",
            "Write the rules under http, or say `appProtocol: tcp` at the Service's port",
        ),
    };
    if !rules.is_empty() && !ports.iter().any(|(_, known)| counts(*known)) {
        let all = ports.iter().map(|(port, _)| port.to_string()).collect::<Vec<_>>().join(", ");
        let text =
            format!("no port of the hosts ({all}) says that it is for {what}: these rules have no effect");
        return about.warning("rules-not-for-port", format!("spec.{field}"), text, Some(fix.to_owned()));
    }
    for (rule, matches) in rules.iter().enumerate() {
        for (place, port) in matches.iter().enumerate().filter_map(|(place, port)| Some((place, (*port)?))) {
            let path = format!("spec.{field}[{rule}].match[{place}].port");
            let known: Vec<_> = ports.iter().filter(|(known, _)| *known == port).collect();
            if known.is_empty() {
                let text = format!("no service of the hosts has a port {port}: this match never holds");
                about.warning("port-not-found", path, text, None);
            } else if !known.iter().any(|(_, known)| counts(*known)) {
                let text = format!("the port {port} is not for {what}: this match never holds");
                about.warning("rules-not-for-port", path, text, Some(fix.to_owned()));
            }
        }
    }
}
