//! The lab of the bench: the same three pods twice, once without the label, once with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;

use super::plan::{Mode, Route};
use crate::lab::{Lab, LabBuilder, Mesh, Pod, PodSpec, Proc};
use crate::nginx::{AccessLog, Nginx};

pub(crate) const HTTP: u16 = 8080;
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
            let place = |pod: PodSpec| pod.on(node).namespace(namespace).service_account(role);
            builder = builder.pod(&format!("{namespace}-{role}"), place);
        }
    }
    builder
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
                _nginx: Nginx::start(lab, &pod, HTTP, AccessLog::Off)?,
                _iperf: iperf,
                _echo: pod.serve(["echo", "--port", &ECHO.to_string()])?,
            });
        }
        Ok(Self { lab, _servers: servers })
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
