//! Routes of connections, applied: pure functions over tables that never change.
//!
//! ```text
//!   Traffic, client, port --L4Table::compile--> L4Table      once per client and version; none: nothing is said of connections
//!   L4Table + dialled address + Said --route--> Way
//!     TLS: the first rule of `tls` with one of the server's names; then, as any bytes, the first rule of `tcp`
//!     Way::Rule     --pick--> Destination, by weight         none: all weights are zero, the connection is refused
//!     Way::Itself             the service's own endpoints, as without rules
//!     Way::Nowhere            the connection is refused
//! ```
//!
//! Where no rule holds, the APIs differ: routes of the Gateway API replace what the service does without them; a
//! VirtualService's `tcp` does not, and its `tls` only for TLS.

mod names;
#[cfg(test)]
mod tests;

use super::http::{ClientView, Split, table_of};
use names::holds_name;
use std::net::IpAddr;
use std::sync::Arc;
use warren_common::model::Cidr;
use warren_common::model::traffic::{Backend, Destination, ObjectName, RouteApi, TcpMatch, Traffic};

/// The rules of one client for connections to one port of a service, compiled.
#[derive(Debug)]
pub struct L4Table {
    api: RouteApi,
    objects: Arc<str>,
    tls: Vec<Entry>,
    tcp: Vec<Entry>,
}

/// One match of a rule.
#[derive(Debug)]
struct Entry {
    // Empty: any.
    names: Vec<Arc<str>>,
    // Empty: any.
    destinations: Vec<Cidr>,
    rule: Arc<L4Rule>,
}

/// One rule.
#[derive(Debug)]
pub struct L4Rule {
    name: Arc<str>,
    backends: Vec<Destination>,
    split: Split,
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// TLS, to the server of this name; empty: it named none, or what it said cannot be read.
    Tls(&'a str),
    /// Anything else, or nothing before its server.
    Bytes,
}

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
pub enum Way<'t> {
    /// To a backend of this rule.
    Rule(&'t Arc<L4Rule>),
    /// To the service's own endpoints.
    Itself,
    /// Nowhere.
    Nowhere,
}

/// Where a connection goes that was dialled at `dialled` and says this first, by the rules of its service, if it has any. `alone`:
/// no other service is there. Else what no rule holds may be for another one, of which nothing is said.
pub fn way<'t>(table: Option<&'t L4Table>, dialled: IpAddr, said: Said<'_>, alone: bool) -> Way<'t> {
    match table.map_or(Way::Itself, |table| table.route(dialled, said)) {
        Way::Nowhere if !alone => Way::Itself,
        way => way,
    }
}

impl L4Table {
    /// The rules of `traffic` that are in force for connections of `client` to `port` of the service: of the first table that is
    /// for them, without what this client never meets and what comes after a match that holds everything. None: the service is
    /// as it would be without rules.
    pub fn compile(traffic: &Traffic, client: &ClientView<'_>, port: u16) -> Option<Self> {
        let table = table_of(traffic, client, port)?;
        let (tls, tcp) = (table.rules.tls.as_ref(), table.rules.tcp.as_ref());
        if tls.is_none() && tcp.is_none() {
            return None;
        }
        let is_met = |wanted: &TcpMatch| {
            wanted.clients.hold(client.namespace, client.labels)
                && wanted.port.is_none_or(|asked| asked == port)
        };
        let mut of_tls = Vec::new();
        for rule in tls.into_iter().flatten() {
            let compiled = Arc::new(L4Rule::new(&rule.name, &rule.backends));
            let met = rule.matches.iter().filter(|wanted| is_met(&wanted.connection));
            of_tls.extend(met.map(|wanted| Entry {
                names: wanted.server_names.clone(),
                destinations: wanted.connection.destinations.clone(),
                rule: Arc::clone(&compiled),
            }));
        }
        let mut of_tcp = Vec::new();
        for rule in tcp.into_iter().flatten() {
            let compiled = Arc::new(L4Rule::new(&rule.name, &rule.backends));
            let entry = |destinations| Entry { names: vec![], destinations, rule: Arc::clone(&compiled) };
            match rule.matches.is_empty() {
                true => of_tcp.push(entry(vec![])),
                false => of_tcp.extend(
                    rule.matches
                        .iter()
                        .filter(|wanted| is_met(wanted))
                        .map(|wanted| entry(wanted.destinations.clone())),
                ),
            }
        }
        for entries in [&mut of_tls, &mut of_tcp] {
            if let Some(last) = entries.iter().position(Entry::holds_everything) {
                entries.truncate(last + 1);
            }
        }
        if of_tls.is_empty() && of_tcp.is_empty() && table.api == RouteApi::Istio {
            return None;
        }
        let objects: Vec<_> = table.objects.iter().map(ObjectName::to_string).collect();
        Some(Self { api: table.api, objects: objects.join(", ").into(), tls: of_tls, tcp: of_tcp })
    }

    /// Where a connection goes that was dialled at `dialled` and says this first.
    pub fn route(&self, dialled: IpAddr, said: Said<'_>) -> Way<'_> {
        let dialled = dialled.to_canonical();
        let of_tls = match said {
            Said::Tls(name) => self.tls.iter().find(|entry| entry.holds(dialled, Some(name))),
            Said::Bytes => None,
        };
        let entry = of_tls.or_else(|| self.tcp.iter().find(|entry| entry.holds(dialled, None)));
        match (entry, self.api, said) {
            (Some(entry), ..) => Way::Rule(&entry.rule),
            (None, RouteApi::Gateway, _) => Way::Nowhere,
            // Names that are listed are all there are.
            (None, RouteApi::Istio, Said::Tls(_)) if !self.tls.is_empty() => Way::Nowhere,
            (None, RouteApi::Istio, _) => Way::Itself,
        }
    }

    /// Whether it counts what a client says first.
    pub fn hinges_on_name(&self) -> bool {
        !self.tls.is_empty()
    }

    /// The objects that it was made of, for people.
    pub fn objects(&self) -> &Arc<str> {
        &self.objects
    }
}

impl Entry {
    /// `name`: of TLS.
    fn holds(&self, dialled: IpAddr, name: Option<&str>) -> bool {
        let named = self.names.is_empty()
            || name.is_some_and(|name| self.names.iter().any(|pattern| holds_name(pattern, name)));
        named
            && (self.destinations.is_empty() || self.destinations.iter().any(|range| range.contains(dialled)))
    }

    fn holds_everything(&self) -> bool {
        self.destinations.is_empty()
            && (self.names.is_empty() || self.names.iter().any(|name| **name == *"*"))
    }
}

impl L4Rule {
    fn new(name: &Arc<str>, backends: &[Backend]) -> Self {
        Self {
            name: Arc::clone(name),
            backends: backends.iter().map(|backend| backend.to.clone()).collect(),
            split: Split::new(backends.iter().map(|backend| backend.weight)),
        }
    }

    /// Its name, as its object has it; may be empty.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Every backend and its share, from 0 to 1.
    pub fn shares(&self) -> impl Iterator<Item = (&Destination, f64)> {
        self.backends.iter().enumerate().map(|(index, to)| (to, self.split.share(index)))
    }

    /// The backend that a random number falls on; none: nobody has a share.
    pub fn pick(&self, entropy: u64) -> Option<&Destination> {
        self.backends.get(self.split.pick(entropy)?)
    }
}
