//! `GET /v1/routes`: what is in force for the traffic of this node's pods to services, as people read it.

use super::{encoded, parameters};
use crate::model::traffic::ObjectName;
use crate::model::{AppProtocol, ServiceName};
use serde::{Deserialize, Serialize};

/// Rules in an answer, unless it is asked for more.
pub const DEFAULT_RULES: usize = 1000;

/// What is asked. The parameters of `/v1/routes` are these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesQuestion {
    /// Only this service: its name, `name.namespace`, or its whole hostname.
    pub service: Option<String>,
    /// Only services of this namespace.
    pub namespace: Option<String>,
    /// Only what is in force for this pod: `namespace/name`.
    pub client: Option<String>,
    /// Rules in the answer, at most.
    pub limit: usize,
}

impl Default for RoutesQuestion {
    fn default() -> Self {
        Self { service: None, namespace: None, client: None, limit: DEFAULT_RULES }
    }
}

impl RoutesQuestion {
    /// As the query of a URL.
    pub fn to_query(&self) -> String {
        let Self { service, namespace, client, limit } = self;
        let pair = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name}={}&", encoded(value))).unwrap_or_default()
        };
        let pairs = [pair("service", service), pair("namespace", namespace), pair("client", client)];
        format!("{}limit={limit}", pairs.concat())
    }

    /// From the query of a URL.
    ///
    /// # Errors
    /// What is not understood, in words.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for (name, value) in parameters(query)? {
            match name {
                "service" => asked.service = Some(value),
                "namespace" => asked.namespace = Some(value),
                "client" => asked.client = Some(value),
                "limit" => {
                    asked.limit = value.parse().map_err(|_| format!("limit={value:?} must be a number"))?;
                }
                _ => {
                    let known = "service, namespace, client, limit";
                    return Err(format!("{name:?} is not a parameter of /v1/routes; it takes {known}"));
                }
            }
        }
        Ok(asked)
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// By service, port and kind; several where clients differ.
    pub routes: Vec<RoutesOf>,
    /// There is no such service as was asked for; what may be meant, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// What is in force for some clients of a port of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutesOf {
    /// The service.
    pub service: ServiceName,
    /// Its port.
    pub port: u16,
    /// What the port says is spoken.
    pub protocol: AppProtocol,
    /// The pods that it is in force for, `namespace/name`.
    pub clients: Vec<String>,
    /// They are all enrolled pods of the nodes that were asked.
    pub every_client: bool,
    /// What of a connection the rules look at.
    pub kind: RulesKind,
    /// What the rules come from.
    pub objects: Vec<ObjectName>,
    /// Rules that can't be applied, and why: nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// In the order in which they are tried.
    pub rules: Vec<RuleView>,
    /// So many more were left out of the answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// The DestinationRules in force for the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyInForce>,
    /// What is not as it seems.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What of a connection rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RulesKind {
    /// Its requests.
    Http,
    /// Its requests, which are gRPC.
    Grpc,
    /// Its server name.
    Tls,
    /// Nothing but where it goes.
    Tcp,
    /// There are none: a DestinationRule alone.
    None,
}

/// One rule, in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its name in flows; may be empty.
    pub name: String,
    /// Any of these; none: everything.
    pub when: Vec<String>,
    /// What happens, unless it is sent to the backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
    /// Where it is sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendView>,
    /// What else: rewrites, headers, timeouts, faults ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<String>,
}

/// One way out of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// `host:port`, and its subset; what was named, if that is nothing.
    pub to: String,
    /// Its share of the requests.
    pub percent: f64,
    /// Why it leads nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// A DestinationRule, or several merged, for a port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInForce {
    /// What says so.
    pub objects: Vec<ObjectName>,
    /// What it says.
    pub says: Vec<String>,
    /// Its subsets.
    pub subsets: Vec<SubsetView>,
}

/// A part of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetView {
    /// Its name.
    pub name: String,
    /// `key=value`, joined by commas.
    pub labels: String,
    /// Endpoints with these labels, whatever their health.
    pub endpoints: usize,
    /// What it says for itself.
    pub says: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_its_query() {
        let asked = RoutesQuestion {
            service: Some("web".into()),
            namespace: None,
            client: Some("shop/web-1".into()),
            limit: 7,
        };
        assert_eq!(asked.to_query(), "service=web&client=shop/web-1&limit=7");
        assert_eq!(RoutesQuestion::from_query(&asked.to_query()), Ok(asked));
        assert_eq!(RoutesQuestion::from_query(""), Ok(RoutesQuestion::default()));
        assert!(RoutesQuestion::from_query("limit=many").unwrap_err().contains("number"));
        assert!(RoutesQuestion::from_query("pod=x").unwrap_err().contains("client"));
    }
}
