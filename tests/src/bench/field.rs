//! The lab of the bench: the same three pods twice, once without the label, once with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::plan::{Mode, Route};
use crate::lab::{Lab, LabBuilder, Mesh, Pod, PodSpec, Proc, object, poll_until};
use crate::nginx::Nginx;

pub(crate) const HTTP: u16 = 8080;
/// HTTP/2 without TLS.
pub(crate) const H2C: u16 = 8081;
pub(crate) const IPERF: u16 = 5201;
pub(crate) const ECHO: u16 = 7000;

/// The lab and its servers.
pub(crate) struct Field<'a> {
    pub(crate) lab: &'a Lab,
    _servers: Vec<Servers>,
}

struct Servers {
    _nginx: Nginx,
    _iperf: Proc,
    _echo: Proc,
}

pub(crate) fn cluster() -> LabBuilder {
    let mut builder =
        Lab::builder().nodes(["n1", "n2"]).namespace("direct", Mesh::Absent).namespace("mesh", Mesh::Enabled);
    for namespace in ["direct", "mesh"] {
        for (role, node) in [("client", "n1"), ("near", "n1"), ("far", "n2")] {
            let place =
                |pod: PodSpec| pod.on(node).namespace(namespace).service_account(role).label("role", role);
            builder = builder.pod(&format!("{namespace}-{role}"), place);
        }
    }
    for name in SERVICES {
        builder = builder.service(name, |service| {
            let service = service.namespace("mesh").port("http", 80, HTTP).port("grpc", 81, H2C);
            service.select("role", "far")
        });
    }
    builder
}

/// Those whose requests have rules; see [`rules`].
const SERVICES: [&str; 3] = ["routed", "matched", "hundred"];

/// The rules of one of them. Every response says that it went by them.
fn rules(name: &str) -> Value {
    let to = |host: &str, weight: u32| json!({ "destination": { "host": host }, "weight": weight });
    let last = json!({ "name": "last", "route": [to(name, 100)] });
    let mut http: Vec<Value> = match name {
        "matched" => vec![json!({
            "name": "jason",
            "match": [{ "headers": { "end-user": { "exact": "jason" } } }],
            "retries": { "attempts": 2, "perTryTimeout": "5s", "retryOn": "5xx,reset" },
            "route": [to(name, 75), to("routed", 25)],
        })],
        "hundred" => (1..100)
            .map(|number| {
                json!({ "match": [{ "uri": { "prefix": format!("/api/{number}/") } }], "route": [to(name, 100)] })
            })
            .collect(),
        _ => Vec::new(),
    };
    http.push(last);
    for rule in &mut http {
        rule["headers"] = json!({ "response": { "set": { "x-rules": name } } });
    }
    object("VirtualService", &format!("mesh/{name}"), &json!({ "hosts": [name], "http": http }))
}

impl<'a> Field<'a> {
    /// Starts the mesh, then the servers.
    pub(crate) fn set(lab: &'a Lab) -> Result<Self> {
        lab.start_mesh()?;
        let mut servers = Vec::new();
        for name in ["direct-near", "direct-far", "mesh-near", "mesh-far"] {
            let pod = lab.pod(name);
            let mut iperf =
                pod.command("iperf3").args(["-s", "-p", &IPERF.to_string(), "--forceflush"]).spawn()?;
            iperf.wait_for("Server listening", Duration::from_secs(10))?;
            servers.push(Servers {
                _nginx: Nginx::start_with_h2(lab, &pod, HTTP, H2C)?,
                _iperf: iperf,
                _echo: pod.serve(["echo", "--port", &ECHO.to_string()])?,
            });
        }
        Ok(Self { lab, _servers: servers })
    }

    /// Puts the rules for requests in force.
    pub(crate) fn route(&self) -> Result<()> {
        for name in SERVICES {
            self.lab.write_manifest(&format!("rules-{name}.yaml"), &rules(name).to_string())?;
        }
        for name in SERVICES {
            poll_until(&format!("the rules of {name}"), Duration::from_secs(20), || {
                let url = format!("http://{name}/");
                let head = self.client(Mode::Mesh).curl(["-D", "-", "-o", "/dev/null", &url]).stdout();
                head.ok()?.contains("x-rules").then_some(())
            })?;
        }
        Ok(())
    }

    /// The pod that sends.
    pub(crate) fn client(&self, mode: Mode) -> Pod {
        self.lab.pod(&format!("{}-client", namespace(mode)))
    }

    /// The address of the pod that answers.
    pub(crate) fn server(&self, mode: Mode, route: Route) -> Ipv4Addr {
        let role = match route {
            Route::CrossNode => "far",
            Route::SameNode => "near",
        };
        self.lab.pod(&format!("{}-{role}", namespace(mode))).ip4()
    }

    /// CPU seconds of both agents since their start.
    pub(crate) fn agents_cpu(&self) -> Result<f64> {
        self.lab.nodes().iter().map(|node| node.agent().cpu_seconds()).sum()
    }

    /// Resident KiB of each agent.
    pub(crate) fn agents_rss(&self) -> Result<Vec<u64>> {
        self.lab.nodes().iter().map(|node| node.agent().rss_kib()).collect()
    }
}

fn namespace(mode: Mode) -> &'static str {
    match mode {
        Mode::Direct => "direct",
        Mode::Mesh => "mesh",
    }
}
