//! The cases as data.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One case of the suite.
#[derive(Debug, Default, Deserialize)]
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
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Exchange {
    /// The client is this namespace's echo-v1.
    pub(crate) from: String,
    /// Scheme, host and port. `{deployment}` is the address of its pod.
    pub(crate) url: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) status: u16,
    /// The deployment whose pod answers.
    pub(crate) backend: Option<String>,
    /// The namespace whose pod answers.
    pub(crate) namespace: Option<String>,
    /// What that pod has seen.
    pub(crate) seen: Seen,
    pub(crate) response: Response,
    pub(crate) redirect: Option<Redirect>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            from: "gateway-conformance-mesh".to_owned(),
            url: "http://echo".to_owned(),
            path: "/".to_owned(),
            headers: BTreeMap::new(),
            status: 200,
            backend: None,
            namespace: None,
            seen: Seen::default(),
            response: Response::default(),
            redirect: None,
        }
    }
}

/// What the backend has seen of the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Seen {
    /// With its query; none: the request's own.
    pub(crate) path: Option<String>,
    /// Several values of one name are joined by commas.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) absent: Vec<String>,
}

/// The response's headers.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Response {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) absent: Vec<String>,
}

/// What a `Location` changes; the rest is the request's.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<String>,
}

/// All of them, by name.
pub(crate) fn all() -> Result<BTreeMap<String, Case>> {
    serde_saphyr::from_str(include_str!("cases.yaml")).context("cases.yaml")
}
