//! The rules of one client for one port of a service, compiled.

use super::condition::{Conditions, PathPart, Unmet};
use super::index::Index;
use super::pattern::{Checks, Patterns};
use super::request::RequestView;
use super::rule::Rule;
use std::sync::Arc;
use warren_common::model::Labels;
use warren_common::model::traffic::values::RuleError;
use warren_common::model::traffic::{HttpMatch, HttpRule, ObjectName, RouteApi, RouteTable, Traffic};

/// Who calls: what tables and matches can ask of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientView<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its pod's labels.
    pub labels: &'a Labels,
}

/// Why rules can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {index} ({name:?}) of {}: {source}", listed(objects))]
pub struct TableError {
    /// What the table was made of.
    pub objects: Vec<ObjectName>,
    /// The rule's place among the table's.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
    /// What is wrong with it.
    pub source: RuleError,
}

fn listed(objects: &[ObjectName]) -> String {
    let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Rules for the requests of one client to one port of a service. It never changes: share it, and route as often as you like.
#[derive(Debug)]
pub struct HttpTable {
    api: RouteApi,
    grpc: bool,
    objects: Vec<ObjectName>,
    names: Option<Arc<str>>,
    entries: Vec<Entry>,
    index: Index,
}

/// One match of a rule, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) rule: Arc<Rule>,
    // The rule's place in the table that was compiled.
    index: u32,
    // None: the rule is for every request.
    pub(super) wanted: Option<Box<HttpMatch>>,
    pub(super) conditions: Conditions,
}

/// What decides about a request.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'t> {
    /// The rule.
    pub rule: &'t Arc<Rule>,
    /// The rule's name and the match's, as logs have them (`rule.match`); may be empty.
    pub name: &'t Arc<str>,
    /// The place of the match in the order in which they are tried.
    pub place: usize,
    /// The rule's place in the [`RouteTable`] that was compiled.
    pub index: usize,
    /// What of the path was matched, for rewrites and redirects.
    pub part: PathPart,
}

impl HttpTable {
    /// The rules of `traffic` that are in force for requests of `client` to `port` of the service: of the first table that is for
    /// them, without what this client never meets and without what comes after a match that holds every request.
    ///
    /// None: the service's own endpoints answer, as if it had no routes. A VirtualService of which nothing is for this client is
    /// none; a route of the Gateway API without rules lets nothing through.
    ///
    /// # Errors
    /// [`TableError`]: nothing may be sent to the service then. [`check`] finds it before the traffic is taken over.
    pub fn compile(
        traffic: &Traffic,
        client: &ClientView<'_>,
        port: u16,
        patterns: &Patterns,
    ) -> Result<Option<Self>, TableError> {
        let Some(table) = table_of(traffic, client, port) else { return Ok(None) };
        let Some(rules) = &table.rules.http else { return Ok(None) };
        let is_met = |wanted: &HttpMatch| {
            wanted.clients.hold(client.namespace, client.labels)
                && wanted.port.is_none_or(|asked| asked == port)
        };
        let mut entries = Vec::new();
        'rules: for (index, rule) in rules.iter().enumerate() {
            if !rule.matches.is_empty() && !rule.matches.iter().any(is_met) {
                continue;
            }
            let failed = |source| failed(table, index, rule, source);
            let compiled = Arc::new(Rule::new(rule, table.api, patterns).map_err(failed)?);
            for wanted in alternatives(rule) {
                if !wanted.is_none_or(is_met) {
                    continue;
                }
                let entry = Entry::new(index, rule, &compiled, wanted, patterns).map_err(failed)?;
                let is_last = entry.conditions.hold_everything(wanted.unwrap_or(&HttpMatch::default()));
                entries.push(entry);
                if is_last {
                    break 'rules;
                }
            }
        }
        if entries.is_empty() && table.api == RouteApi::Istio {
            return Ok(None);
        }
        let index = Index::new(entries.iter().map(|entry| &entry.conditions.path));
        let objects = table.objects.clone();
        let names = Some(listed(&objects)).filter(|names| !names.is_empty()).map(Into::into);
        Ok(Some(Self { api: table.api, grpc: table.rules.grpc, objects, names, entries, index }))
    }

    /// The first rule of which a match holds for the request; none: it is answered as [`Refusal`](super::Refusal) says.
    pub fn route(&self, request: &RequestView<'_>) -> Option<Matched<'_>> {
        let check = |place: u32| self.entries.get(place as usize)?.conditions.check(request).ok();
        let (place, part) = self.index.first(request.path, check)?;
        self.matched(place as usize, part)
    }

    fn matched(&self, place: usize, part: PathPart) -> Option<Matched<'_>> {
        let entry = self.entries.get(place)?;
        let index = entry.index as usize;
        Some(Matched { rule: &entry.rule, name: &entry.name, place, index, part })
    }

    /// [`Self::route`] by asking one match after the other, telling `seen` how each decided.
    pub(super) fn scan<'t>(
        &'t self,
        request: &RequestView<'_>,
        mut seen: impl FnMut(&'t Entry, Result<PathPart, Unmet>),
    ) -> Option<Matched<'t>> {
        self.entries.iter().enumerate().find_map(|(place, entry)| {
            let checked = entry.conditions.check(request);
            seen(entry, checked);
            self.matched(place, checked.ok()?)
        })
    }

    /// Whose rules they are.
    pub fn api(&self) -> RouteApi {
        self.api
    }

    /// Whether they are rules of GRPCRoutes.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// The objects that it was made of.
    pub fn objects(&self) -> &[ObjectName] {
        &self.objects
    }

    /// The same, for people; none if there are none.
    pub fn names_of_objects(&self) -> Option<&Arc<str>> {
        self.names.as_ref()
    }

    /// Its matches in the order in which they are tried: the name as logs have it, the conditions (none: every request), the rule.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, Option<&HttpMatch>, &Arc<Rule>)> {
        self.entries.iter().map(|entry| (&entry.name, entry.wanted.as_deref(), &entry.rule))
    }

    /// Of each of [`Self::entries`], its rule's place in the [`RouteTable`] that was compiled.
    pub fn places(&self) -> impl ExactSizeIterator<Item = usize> {
        self.entries.iter().map(|entry| entry.index as usize)
    }
}

impl Entry {
    fn new(
        index: usize,
        rule: &HttpRule,
        compiled: &Arc<Rule>,
        wanted: Option<&HttpMatch>,
        patterns: &Patterns,
    ) -> Result<Self, RuleError> {
        let conditions = match wanted {
            Some(wanted) => Conditions::new(wanted, patterns)?,
            None => Conditions::new(&HttpMatch::default(), patterns)?,
        };
        let name = match wanted.map_or("", |wanted| &*wanted.name) {
            "" => Arc::clone(&rule.name),
            name if rule.name.is_empty() => name.into(),
            name => format!("{}.{name}", rule.name).into(),
        };
        let wanted = wanted.map(|wanted| Box::new(wanted.clone()));
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        Ok(Self { name, rule: Arc::clone(compiled), index, wanted, conditions })
    }
}

/// The table that decides: the first that holds the client and the port.
pub fn table_of<'a>(traffic: &'a Traffic, client: &ClientView<'_>, port: u16) -> Option<&'a RouteTable> {
    traffic.tables.iter().find(|table| {
        table.clients.hold(client.namespace, client.labels)
            && table.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    })
}

/// Whether every rule of every table can be compiled: what can't is to be rejected before it is taken over.
///
/// # Errors
/// The first that can't.
pub fn check(traffic: &Traffic, checks: &Checks) -> Result<(), TableError> {
    let patterns = checks.patterns();
    for table in &traffic.tables {
        for (index, rule) in table.rules.http.iter().flatten().enumerate() {
            let failed = |source| failed(table, index, rule, source);
            let compiled = Arc::new(Rule::new(rule, table.api, patterns).map_err(failed)?);
            for wanted in alternatives(rule) {
                Entry::new(index, rule, &compiled, wanted, patterns).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// The matches of a rule; none stands for every request.
fn alternatives(rule: &HttpRule) -> impl Iterator<Item = Option<&HttpMatch>> {
    let everything = rule.matches.is_empty().then_some(None);
    everything.into_iter().chain(rule.matches.iter().map(Some))
}

fn failed(table: &RouteTable, index: usize, rule: &HttpRule, source: RuleError) -> TableError {
    TableError { objects: table.objects.clone(), index, name: Arc::clone(&rule.name), source }
}
