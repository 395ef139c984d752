//! `warren workloads` and `warren services`.

use super::{Style, Table};
use std::fmt::Display;
use warren_common::model::admin::{Services, Workloads};
use warren_common::model::{Health, TunnelProtocol};

/// A workload per line.
pub(crate) fn workloads(workloads: &Workloads, namespace: Option<&str>, style: Style) -> String {
    if workloads.workloads.is_empty() {
        return unknown("workload", namespace);
    }
    let mut table =
        Table::new(&["NAMESPACE", "NAME", "WORKLOAD", "NODE", "ADDRESSES", "TUNNEL", "HEALTH", "ACCOUNT"]);
    for workload in &workloads.workloads {
        let tunnel = match workload.tunnel {
            TunnelProtocol::Hbone => "hbone",
            TunnelProtocol::None => "none",
        };
        table.row([
            workload.namespace.to_string(),
            workload.name.to_string(),
            workload.owner.to_string(),
            workload.node.to_string(),
            join(&workload.addresses),
            tunnel.to_owned(),
            health(workload.health).to_owned(),
            workload.identity.service_account().to_owned(),
        ]);
    }
    table.render(style)
}

/// A service per line, or (`wide`) an endpoint per line.
pub(crate) fn services(services: &Services, wide: bool, namespace: Option<&str>, style: Style) -> String {
    if services.services.is_empty() {
        return unknown("service", namespace);
    }
    if wide {
        return endpoints(services, style);
    }
    let mut table = Table::new(&["NAMESPACE", "NAME", "ADDRESSES", "PORTS", "READY", "HOSTNAME"]);
    for view in &services.services {
        let service = &view.service;
        let healthy = view.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count();
        let ports: Vec<_> = service.ports.iter().map(|port| port.service_port).collect();
        let addresses = join(&service.addresses);
        table.row([
            service.key.namespace.to_string(),
            service.name.to_string(),
            match &service.origin.external_name {
                Some(name) => format!("alias of {name}"),
                None if addresses.is_empty() => "headless".to_owned(),
                None => addresses,
            },
            join(&ports),
            format!("{healthy}/{}", view.endpoints.len()),
            service.key.hostname.to_string(),
        ]);
    }
    table.render(style)
}

fn unknown(what: &str, namespace: Option<&str>) -> String {
    let hint = "`warren status` shows whether there is a configuration";
    match namespace {
        Some(namespace) => {
            format!(
                "no {what} of namespace {} is known; -A shows those of all, {hint}\n",
                super::clean(namespace)
            )
        }
        None => format!("no {what} is known; {hint}\n"),
    }
}

fn endpoints(services: &Services, style: Style) -> String {
    let mut table = Table::new(&["NAMESPACE", "SERVICE", "ENDPOINT", "NODE", "ADDRESSES", "PORTS", "HEALTH"]);
    for view in &services.services {
        let (namespace, name) = (&view.service.key.namespace, &view.service.name);
        let port = |port: &warren_common::model::ServicePort| match &port.target_port_name {
            Some(name) => format!("{}:{name}", port.service_port),
            None => format!("{}:{}", port.service_port, port.target_port),
        };
        let ports = join(&view.service.ports.iter().map(port).collect::<Vec<_>>());
        if view.endpoints.is_empty() {
            let none = "none".to_owned();
            let [blank, blank_too, state] = [String::new(), String::new(), String::new()];
            table.row([namespace.to_string(), name.to_string(), none, blank, blank_too, ports, state]);
            continue;
        }
        for endpoint in &view.endpoints {
            table.row([
                namespace.to_string(),
                name.to_string(),
                endpoint.workload.to_string(),
                endpoint.node.to_string(),
                join(&endpoint.addresses),
                ports.clone(),
                match &*endpoint.left_out {
                    [] => health(endpoint.health).to_owned(),
                    why => format!("{}, left out: {}", health(endpoint.health), join(why)),
                },
            ]);
        }
    }
    table.render(style)
}

fn join(values: &[impl Display]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

const fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "ready",
        Health::Terminating => "terminating",
        Health::Unhealthy => "not ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Services {
        serde_json::from_str(
            r#"{"services":[{
                "service":{"name":"web","key":{"namespace":"shop","hostname":"web.shop.svc.cluster.local"},
                    "addresses":["10.96.0.7","fd00::7"],"publish_not_ready":false,
                    "ports":[{"service_port":80,"target_port":8080,"target_port_name":null,"app_protocol":"unknown"}]},
                "endpoints":[
                    {"workload":"web-1","node":"node-a","addresses":["10.0.1.3"],"health":"healthy",
                        "left_out":["consecutive_5xx for shop/client"]},
                    {"workload":"web-2","node":"node-b","addresses":["10.0.2.3"],"health":"unhealthy"}]}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn services_show_how_many_endpoints_are_ready() {
        assert_eq!(
            services(&sample(), false, None, Style::plain(true)),
            "NAMESPACE  NAME  ADDRESSES          PORTS  READY  HOSTNAME
shop       web   10.96.0.7,fd00::7  80     1/2    web.shop.svc.cluster.local
"
        );
        assert_eq!(
            services(&sample(), true, None, Style::plain(true)),
            "NAMESPACE  SERVICE  ENDPOINT  NODE    ADDRESSES  PORTS    HEALTH
shop       web      web-1     node-a  10.0.1.3   80:8080  ready, left out: consecutive_5xx for shop/client
shop       web      web-2     node-b  10.0.2.3   80:8080  not ready
"
        );
    }

    #[test]
    fn workloads_show_where_they_are_and_who() {
        let sample: Workloads = serde_json::from_str(
            r#"{"workloads":[{"uid":"k//Pod/shop/web-1","name":"web-1","namespace":"shop","addresses":["10.0.1.3"],
                "identity":"spiffe://cluster.local/ns/shop/sa/web","node":"node-a","host_network":false,
                "tunnel":"hbone","health":"healthy","owner":"web","kind":"deployment","canonical_name":"web",
                "canonical_revision":"latest","cluster":"Kubernetes","services":[{
                    "service":{"namespace":"shop","hostname":"web.shop.svc.cluster.local"},
                    "ports":[{"service_port":80,"target_port":8080}]}],"labels":{},
                "enrolment":{"pod_uid":"u","enrolled":true,"exclude_outbound_ports":[],"exclude_inbound_ports":[],
                             "exclude_outbound_cidrs":[]}}]}"#,
        )
        .unwrap();
        assert_eq!(
            workloads(&sample, None, Style::plain(true)),
            "NAMESPACE  NAME   WORKLOAD  NODE    ADDRESSES  TUNNEL  HEALTH  ACCOUNT
shop       web-1  web       node-a  10.0.1.3   hbone   ready   web
"
        );
    }

    #[test]
    fn nothing_is_explained() {
        let none = services(&Services { services: vec![] }, false, Some("shop"), Style::plain(true));
        assert!(none.contains("namespace shop") && none.contains("warren status"), "{none}");
        let none = workloads(&Workloads { workloads: vec![] }, None, Style::plain(true));
        assert!(none.contains("warren status"), "{none}");
    }
}
