//! What is in force for the requests of a client to a port of a service, and what happens where nothing is.

use super::pattern::Patterns;
use super::table::{ClientView, HttpTable};
use std::sync::Arc;
use warren_common::model::ServiceName;
use warren_common::model::traffic::{
    Backend, Clients, Destination, Forward, HeaderChanges, HttpAction, HttpRule, RouteApi, RouteTable, Rules,
    Traffic,
};

/// What is in force for the requests of a client.
#[derive(Clone, Debug)]
pub enum InForce {
    /// Nothing: requests go to the service's own endpoints, as this table says.
    Nothing(Arc<HttpTable>),
    /// These rules.
    Rules(Arc<HttpTable>),
    /// Rules that can't be applied, and why: nothing may be sent.
    Broken(Arc<str>),
}

impl InForce {
    /// What `traffic`, all that is said about `service`, holds for requests of `client` to `port`.
    pub fn new(
        traffic: Option<&Traffic>,
        client: &ClientView<'_>,
        service: &ServiceName,
        port: u16,
        patterns: &Patterns,
    ) -> Self {
        if let Some(why) = traffic.and_then(|traffic| traffic.refused.as_deref()) {
            return Self::Broken(
                format!("what is said of the traffic to {service} is not understood: {why}").into(),
            );
        }
        let compile = |traffic| HttpTable::compile(traffic, client, port, patterns);
        match traffic.map(compile).transpose() {
            Ok(Some(Some(table))) => Self::Rules(Arc::new(table)),
            Ok(_) => match compile(&itself(service, port)) {
                Ok(Some(table)) => Self::Nothing(Arc::new(table)),
                Ok(None) => Self::Broken("a service leads nowhere without rules".into()),
                Err(error) => Self::Broken(error.to_string().into()),
            },
            Err(error) => Self::Broken(error.to_string().into()),
        }
    }
}

/// Rules that say what happens without any: everything goes to the service itself.
fn itself(service: &ServiceName, port: u16) -> Traffic {
    let to = Destination::Service { service: service.clone(), port, subset: None };
    let backend = Backend {
        to,
        weight: 1,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        rewrite: None,
        redirect: None,
        mirrors: Vec::new(),
    };
    let rule = HttpRule {
        name: "default".into(),
        matches: Vec::new(),
        action: HttpAction::Forward(Box::new(Forward { backends: vec![backend], ..Forward::default() })),
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        cors: None,
    };
    let table = RouteTable {
        clients: Clients::default(),
        ports: None,
        api: RouteApi::Istio,
        objects: Vec::new(),
        rules: Rules { http: Some(vec![rule]), ..Rules::default() },
    };
    Traffic { service: service.clone(), tables: vec![table], policies: Vec::new(), refused: None }
}
