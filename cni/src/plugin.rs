//! THE STORY of one invocation: read, ask the agent, say whether the pod may start.
//!
//! The plugin is the last of a chain. It changes nothing of the pod's network itself, so the result of the plugins
//! before it is the result.

use crate::agent;
use crate::config::{Config, SUPPORTED, addresses, pod_of, version_of};
use crate::decide::{Saved, decide};
use crate::error::CniError;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;
use warren_common::model::cni::{Command, PodName, Request};

/// How long the agent may take: it waits 5 s for the controller's word itself.
const ANSWER: Duration = Duration::from_secs(8);
/// How long an agent that is not there is waited for where nothing may start without it: one that is replaced is
/// back by then.
const ABSENT: Duration = Duration::from_secs(3);
/// How long the end of a pod may be held up.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the container runtime sets in the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: Option<String>,
    /// `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub interface: Option<String>,
    /// `CNI_ARGS`.
    pub args: Option<String>,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            command: text("CNI_COMMAND"),
            container_id: text("CNI_CONTAINERID"),
            netns: std::env::var_os("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from),
            interface: text("CNI_IFNAME"),
            args: text("CNI_ARGS"),
        }
    }
}

/// What is printed, and whether it is a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub output: String,
    /// Exit with 0.
    pub success: bool,
}

/// One invocation with `input` on standard input.
pub fn invoke(environment: &Environment, input: io::Result<String>) -> Outcome {
    let version = input.as_deref().ok().and_then(|text| version_of(text).ok());
    let supported = version.clone().filter(|version| SUPPORTED.contains(&version.as_str()));
    let newest = SUPPORTED.last().copied().unwrap_or_default();
    match answer(environment, input, version.as_deref()) {
        Ok(output) => Outcome { output, success: true },
        Err(error) => {
            let output = error.to_json(supported.as_deref().unwrap_or(newest)) + "\n";
            Outcome { output, success: false }
        }
    }
}

fn answer(
    environment: &Environment,
    input: io::Result<String>,
    version: Option<&str>,
) -> Result<String, CniError> {
    let command = environment.command.as_deref().ok_or(CniError::Environment("CNI_COMMAND"))?;
    let config = || Config::parse(&input.map_err(|error| CniError::Io(error.to_string()))?);
    match command {
        "ADD" => add(environment, &config()?),
        "CHECK" => check(environment, &config()?).map(|()| String::new()),
        // What has gone must not come back because of us: an end is never refused.
        "DEL" => {
            if let Ok(config) = config() {
                delete(environment, &config);
            }
            Ok(String::new())
        }
        // Without an agent the plugin still does its work: what is not in the mesh starts. And it has to be so: a
        // node whose network counts as not ready would not start the agent either.
        "STATUS" => config().map(|_| String::new()),
        // The agent itself finds out which pods are gone.
        "GC" => config().map(|_| String::new()),
        "VERSION" => Ok(versions(version)),
        _ => Err(CniError::Environment("CNI_COMMAND")),
    }
}

fn add(environment: &Environment, config: &Config) -> Result<String, CniError> {
    let previous = config.previous.as_deref().ok_or_else(|| {
        CniError::Config(
            "has no prevResult: warren-cni must stand behind another plugin of a list".to_owned(),
        )
    })?;
    let result = previous.to_owned() + "\n";
    let Some(pod) = concerned(environment, config) else { return Ok(result) };
    let interface = environment.interface.as_deref().ok_or(CniError::Environment("CNI_IFNAME"))?;
    let addresses = addresses(previous, interface)?;
    let request = request(environment, Command::Add, &pod, addresses)?;
    let netns = namespace(environment)?;
    let saved = Saved::of(std::fs::read(&config.entry.offline));
    let ask = || agent::ask(&config.entry.socket, &request, Some(netns.as_fd()), ANSWER);
    let mut asked = ask();
    if asked.is_err() && saved.holds(&pod.namespace) && agent::wait_for(&config.entry.socket, ABSENT) {
        asked = ask();
    }
    decide(&asked, &saved, &pod).map(|()| result)
}

fn check(environment: &Environment, config: &Config) -> Result<(), CniError> {
    let Some(pod) = concerned(environment, config) else { return Ok(()) };
    let request = request(environment, Command::Check, &pod, Vec::new())?;
    let netns = namespace(environment)?;
    let asked = agent::ask(&config.entry.socket, &request, Some(netns.as_fd()), ANSWER);
    decide(&asked, &Saved::of(std::fs::read(&config.entry.offline)), &pod)
}

fn delete(environment: &Environment, config: &Config) {
    let Some(pod) = concerned(environment, config) else { return };
    if let Ok(request) = request(environment, Command::Del, &pod, Vec::new()) {
        // Without an agent: the next one sees by itself that the pod is gone.
        let _ = agent::ask(&config.entry.socket, &request, None, FAREWELL);
    }
}

/// The pod, if it can be one of the mesh: warren's own must not wait for warren.
fn concerned(environment: &Environment, config: &Config) -> Option<PodName> {
    let pod = pod_of(environment.args.as_deref().unwrap_or_default())?;
    (pod.namespace != config.entry.namespace).then_some(pod)
}

fn request(
    environment: &Environment,
    command: Command,
    pod: &PodName,
    addresses: Vec<std::net::IpAddr>,
) -> Result<Request, CniError> {
    let container_id = environment.container_id.clone().ok_or(CniError::Environment("CNI_CONTAINERID"))?;
    Ok(Request { command, pod: pod.clone(), container_id, addresses })
}

fn namespace(environment: &Environment) -> Result<File, CniError> {
    let path = environment.netns.as_deref().ok_or(CniError::Environment("CNI_NETNS"))?;
    let failed =
        |error| CniError::Config(format!("names {}, which cannot be opened: {error}", path.display()));
    File::open(path).map_err(failed)
}

fn versions(asked: Option<&str>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Versions<'a> {
        cni_version: &'a str,
        supported_versions: &'a [&'a str],
    }
    let newest = SUPPORTED.last().copied().unwrap_or_default();
    let versions = Versions { cni_version: asked.unwrap_or(newest), supported_versions: SUPPORTED };
    serde_json::to_string(&versions).unwrap_or_default() + "\n"
}

#[cfg(test)]
#[path = "plugin_tests.rs"]
mod tests;
