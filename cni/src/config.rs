//! What the container runtime hands the plugin: a configuration on standard input, the rest in the environment.

use crate::error::CniError;
use crate::span::members;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;
use warren_common::model::cni::PodName;

/// The plugin's type: the name of its file in the CNI directory.
pub const PLUGIN: &str = "warren-cni";

/// Versions of the specification, oldest first.
pub(crate) const SUPPORTED: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Our entry in a chain of plugins. Paths are the node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// [`PLUGIN`].
    #[serde(rename = "type")]
    pub plugin: String,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// The file to decide by while no agent answers.
    #[serde(default = "default_offline")]
    pub offline: PathBuf,
    /// warren's own namespace, whose pods never wait: the agent itself is one of them.
    #[serde(default = "default_namespace")]
    pub namespace: String,
}

fn default_socket() -> PathBuf {
    "/run/warren/cni.sock".into()
}

fn default_offline() -> PathBuf {
    PathBuf::from("/var/lib/warren").join(warren_common::model::cni::OFFLINE_FILE)
}

fn default_namespace() -> String {
    "warren-system".to_owned()
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            plugin: PLUGIN.to_owned(),
            socket: default_socket(),
            offline: default_offline(),
            namespace: default_namespace(),
        }
    }
}

/// The configuration of one invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) version: String,
    pub(crate) entry: Entry,
    /// The result of the plugins before us, to the letter.
    pub(crate) previous: Option<String>,
}

impl Config {
    /// Reads a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self, CniError> {
        let version = version_of(text)?;
        if !SUPPORTED.contains(&version.as_str()) {
            return Err(CniError::Version(version));
        }
        let entry =
            serde_json::from_str(text).map_err(|error| CniError::Config(format!("is not ours: {error}")))?;
        let previous = members(text).into_iter().rev().find(|(key, _)| key == "prevResult");
        let previous = previous.and_then(|(_, place)| text.get(place)).filter(|text| *text != "null");
        Ok(Self { version, entry, previous: previous.map(str::to_owned) })
    }
}

/// The version that a configuration asks for; "0.1.0" is what the specification says an absent one means.
pub(crate) fn version_of(text: &str) -> Result<String, CniError> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion")]
        version: Option<String>,
    }
    let versioned: Versioned =
        serde_json::from_str(text).map_err(|error| CniError::Decode(error.to_string()))?;
    Ok(versioned.version.filter(|version| !version.is_empty()).unwrap_or_else(|| "0.1.0".to_owned()))
}

/// The pod that `CNI_ARGS` names; none when it is no Kubernetes that calls.
pub(crate) fn pod_of(args: &str) -> Option<PodName> {
    let value = |wanted: &str| {
        let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == wanted).map(|(_, value)| value.to_owned()).next_back()
    };
    Some(PodName {
        namespace: value("K8S_POD_NAMESPACE").filter(|namespace| !namespace.is_empty())?,
        name: value("K8S_POD_NAME").filter(|name| !name.is_empty())?,
        uid: value("K8S_POD_UID").unwrap_or_default(),
    })
}

/// The pod's addresses in a result: the first of each family on `interface` inside the sandbox, IPv4 first. An
/// address that names no interface counts too.
pub(crate) fn addresses(result: &str, interface: &str) -> Result<Vec<IpAddr>, CniError> {
    #[derive(Deserialize)]
    struct CniResult {
        #[serde(default)]
        interfaces: Vec<Interface>,
        #[serde(default)]
        ips: Vec<Ip>,
    }
    #[derive(Deserialize)]
    struct Interface {
        name: String,
        #[serde(default)]
        sandbox: String,
    }
    #[derive(Deserialize)]
    struct Ip {
        address: String,
        interface: Option<usize>,
    }
    let malformed = |what: String| CniError::Config(format!("has a prevResult that {what}"));
    let CniResult { interfaces, ips } =
        serde_json::from_str(result).map_err(|error| malformed(format!("cannot be read: {error}")))?;
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in &ips {
        let on = ip.interface.and_then(|index| interfaces.get(index));
        if on.is_some_and(|on| on.sandbox.is_empty() || on.name != interface) {
            continue;
        }
        let text = ip.address.split('/').next().unwrap_or_default();
        let address: IpAddr =
            text.parse().map_err(|_| malformed(format!("has {:?} for an address", ip.address)))?;
        if !found.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_and_its_previous_result_stays_as_it_is() {
        let text = r#"{"cniVersion":"1.0.0","name":"podnet","type":"warren-cni","socket":"/s",
            "prevResult": {"ips": [ ], "big": 1e400, "cniVersion":"1.0.0"}, "unknown": {"prevResult": 1}}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!(config.version, "1.0.0");
        assert_eq!(config.entry, Entry { socket: "/s".into(), ..Entry::default() });
        assert_eq!(config.previous.unwrap(), r#"{"ips": [ ], "big": 1e400, "cniVersion":"1.0.0"}"#);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_code() {
        for (text, code) in [
            ("", 6),
            ("[]", 6),
            ("{}", 1),
            (r#"{"cniVersion":"0.2.0","type":"warren-cni"}"#, 1),
            (r#"{"cniVersion":"2.0.0","type":"warren-cni"}"#, 1),
            (r#"{"cniVersion":"1.0.0"}"#, 7),
            (r#"{"cniVersion":"1.0.0","type":"warren-cni","socket":7}"#, 7),
        ] {
            assert_eq!(Config::parse(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn pods_are_named_by_kubernetes_alone() {
        let pod = |namespace: &str, name: &str, uid: &str| {
            Some(PodName { namespace: namespace.into(), name: name.into(), uid: uid.into() })
        };
        for (args, expected) in [
            (
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u",
                pod("shop", "web", "u"),
            ),
            ("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web", pod("shop", "web", "")),
            ("K8S_POD_NAMESPACE=;K8S_POD_NAME=web", None),
            ("K8S_POD_NAME=web", None),
            ("", None),
            (";;=;a", None),
        ] {
            assert_eq!(pod_of(args), expected, "{args}");
        }
    }

    #[test]
    fn addresses_are_those_of_the_pods_own_interface() {
        // What the `ptp` and `bridge` plugins print.
        let table = [
            (
                r#"{"interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/x"}],
                    "ips":[{"interface":1,"address":"10.1.0.5/24","gateway":"10.1.0.1"}]}"#,
                Some("10.1.0.5"),
            ),
            (
                r#"{"interfaces":[{"name":"eth0","sandbox":"/x"},{"name":"net1","sandbox":"/x"}],
                    "ips":[{"interface":0,"address":"fd00::5/64"},{"interface":1,"address":"10.9.0.1/24"},
                           {"interface":0,"address":"10.1.0.5/24"},{"interface":0,"address":"10.1.0.6/24"}]}"#,
                Some("10.1.0.5 fd00::5"),
            ),
            (r#"{"ips":[{"version":"4","address":"10.1.0.5/24"}]}"#, Some("10.1.0.5")),
            (r#"{"interfaces":[{"name":"eth0"}],"ips":[{"interface":0,"address":"10.1.0.5/24"}]}"#, Some("")),
            (r#"{"ips":[{"interface":9,"address":"10.1.0.5/24"}]}"#, Some("10.1.0.5")),
            ("{}", Some("")),
            (r#"{"ips":[{"address":"web"}]}"#, None),
            (r#"{"ips":7}"#, None),
        ];
        for (result, expected) in table {
            let found = addresses(result, "eth0").ok();
            let shown = found.map(|ips| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(shown.as_deref(), expected, "{result}");
        }
    }
}
