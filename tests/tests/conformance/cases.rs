//! The cases as data.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One case of the suite.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Case {
    /// Each has to be answered as it says.
    pub(crate) requests: Vec<Exchange>,
    /// Percent of the first request's repetitions, by backend; none: it is not repeated.
    pub(crate) shares: BTreeMap<String, f64>,
    /// So many clients repeat it.
    pub(crate) clients: usize,
    /// The reason of `ResolvedRefs`; none: it holds.
    pub(crate) resolved: Option<String>,
}

/// A request and what has to come back.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Exchange {
    /// The client is this namespace's echo-v1; none: the suite's usual client.
    pub(crate) from: Option<String>,
    /// Scheme, host and port; none: the suite's usual service. `{deployment}` is the address of its pod.
    pub(crate) url: Option<String>,
    pub(crate) method: String,
    /// `UUID` in it is another text in each request.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) status: u16,
    /// The status of a call by gRPC.
    pub(crate) grpc: i32,
    /// No backend has seen it.
    pub(crate) answered_here: bool,
    /// The deployment whose pod answers.
    pub(crate) backend: Option<String>,
    /// The namespace whose pod answers.
    pub(crate) namespace: Option<String>,
    /// What that pod has seen.
    pub(crate) seen: Seen,
    pub(crate) response: Response,
    pub(crate) redirect: Option<Redirect>,
    /// Deployments that get copies, and of how many requests (percent).
    pub(crate) mirrors: BTreeMap<String, f64>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            from: None,
            url: None,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            status: 200,
            grpc: 0,
            answered_here: false,
            backend: None,
            namespace: None,
            seen: Seen::default(),
            response: Response::default(),
            redirect: None,
            mirrors: BTreeMap::new(),
        }
    }
}

/// What the backend has seen of the request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Seen {
    /// With its query; none: the request's own.
    pub(crate) path: Option<String>,
    pub(crate) host: Option<String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub(crate) proto: Option<String>,
    /// Several values of one name are joined by commas; `{backend}` is the deployment that has seen it.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) absent: Vec<String>,
}

/// The response's headers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Response {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) absent: Vec<String>,
}

/// What a `Location` changes; the rest is the request's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<String>,
}

/// Reads a table of cases.
pub(crate) fn read(yaml: &str) -> Result<BTreeMap<String, Case>> {
    serde_saphyr::from_str(yaml).context("a table of cases")
}
