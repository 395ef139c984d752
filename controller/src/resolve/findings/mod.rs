//! What the author of a route or a traffic policy should know, as data. Pure: from the index alone, so that it can be asked
//! of manifests that nobody has applied yet.

mod conflict;
mod destination_rule;
mod order;
mod ports;
mod route;
mod shadowed;
mod subset;
mod unseen;
mod virtual_service;

use super::{ResolveConfig, external, host, resolve};
use crate::index::{Index, ResourceKey};
use crate::objects::{FieldNote, Key, Kind, NoteKind};
use crate::source::Problem;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic fails, or goes where it should not.
    Error,
    /// Something has no effect, or another one than it seems.
    Warning,
    /// It works; it could be said better.
    Info,
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of thing it is; it does not change between versions.
    pub code: &'static str,
    /// The object that it is about.
    pub object: Key,
    /// The field, for example `spec.http[0].route[0]`; empty: the whole object.
    pub path: String,
    /// What is so, in a sentence without its full stop.
    pub text: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)?;
        if let Some(fix) = &self.fix {
            write!(f, ". {fix}")?;
        }
        write!(f, " [{}]", self.code)
    }
}

/// The code of what the controller itself has to say of an object.
const NOT_AS_WRITTEN: &str = "not-as-written";

/// What is to be said about an object; nothing when it is not there.
pub fn findings(index: &Index, config: &ResolveConfig, key: &Key) -> Vec<Finding> {
    let mut about = About { key, found: Vec::new() };
    match key.kind {
        Kind::VirtualService => {
            if let Some(service) = index.virtual_service(&key.name) {
                about.notes(&service.notes);
                virtual_service::check(index, config, service, &mut about);
            }
        }
        Kind::DestinationRule => {
            if let Some(rule) = index.destination_rule(&key.name) {
                about.notes(&rule.notes);
                destination_rule::check(index, config, rule, &mut about);
            }
        }
        Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute => {
            if let Some(route) = index.route(key.kind, &key.name) {
                about.notes(&route.notes);
                route::check(index, config, route, &mut about);
            }
        }
        Kind::ServiceEntry => {
            index.service_entry(&key.name).into_iter().for_each(|entry| about.notes(&entry.notes));
            about.not_as_written(host::remarks(index, config, &key.name));
        }
        Kind::WorkloadEntry => {
            index.workload_entry(&key.name).into_iter().for_each(|entry| about.notes(&entry.notes));
            let mut problems = Vec::new();
            external::workload_entry(index, config, &key.name, &mut problems);
            about.not_as_written(problems);
        }
        Kind::ReferenceGrant => {
            if let Some(grant) = index.reference_grant(&key.name) {
                about.notes(&grant.notes);
            }
        }
        Kind::Pod => about.resolved(index, config, &ResourceKey::Workload(key.name.clone())),
        Kind::Namespace => about.resolved(index, config, &ResourceKey::Namespace(key.name.name.clone())),
        Kind::AuthorizationPolicy => {
            about.resolved(index, config, &ResourceKey::AuthorizationPolicy(key.name.clone()));
        }
        // It has nothing of its own that could be resolved.
        Kind::PeerAuthentication => {
            about.resolved(index, config, &ResourceKey::Remarks(key.clone()));
        }
        Kind::Node | Kind::ServiceAccount | Kind::Service | Kind::EndpointSlice => {}
    }
    about.found
}

/// What is to be said about all objects, the worst first.
pub fn analyze(index: &Index, config: &ResolveConfig) -> Vec<Finding> {
    let mut all: Vec<Finding> = index.keys().iter().flat_map(|key| findings(index, config, key)).collect();
    all.sort_by_key(|finding| (finding.severity, finding.object.clone()));
    all
}

/// The same as problems, without what works.
pub(super) fn problems(index: &Index, config: &ResolveConfig, key: &Key) -> Vec<Problem> {
    // Pods come and go, and nobody looks again at what is said about rules.
    let is_followed = |finding: &Finding| {
        finding.severity < Severity::Info && finding.code != destination_rule::EMPTY_SUBSET
            // Whoever resolves it says so.
            && finding.code != NOT_AS_WRITTEN
    };
    let found = findings(index, config, key).into_iter().filter(is_followed);
    let problem = |finding: Finding| Problem {
        place: finding.object.to_string(),
        line: None,
        reason: finding.to_string(),
    };
    found.map(problem).collect()
}

/// `exportTo: ["~"]`.
fn exported_to_nobody(exported_to: Option<&[Arc<str>]>, about: &mut About<'_>) {
    if exported_to.is_some_and(<[_]>::is_empty) {
        about.warning(
            "exported-to-nobody",
            "spec.exportTo",
            "it is for no namespace: nobody follows it",
            None,
        );
    }
}

/// Gathers what is said about one object.
struct About<'a> {
    key: &'a Key,
    found: Vec<Finding>,
}

impl About<'_> {
    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        path: impl Into<String>,
        text: impl Into<String>,
        fix: Option<String>,
    ) {
        let (object, path, text) = (self.key.clone(), path.into(), text.into());
        self.found.push(Finding { severity, code, object, path, text, fix });
    }

    fn error(
        &mut self,
        code: &'static str,
        path: impl Into<String>,
        text: impl Into<String>,
        fix: Option<String>,
    ) {
        self.add(Severity::Error, code, path, text, fix);
    }

    fn warning(
        &mut self,
        code: &'static str,
        path: impl Into<String>,
        text: impl Into<String>,
        fix: Option<String>,
    ) {
        self.add(Severity::Warning, code, path, text, fix);
    }

    fn info(
        &mut self,
        code: &'static str,
        path: impl Into<String>,
        text: impl Into<String>,
        fix: Option<String>,
    ) {
        self.add(Severity::Info, code, path, text, fix);
    }

    /// What the controller says when it resolves something.
    fn resolved(&mut self, index: &Index, config: &ResolveConfig, key: &ResourceKey) {
        self.not_as_written(resolve(index, config, key).problems);
    }

    fn not_as_written(&mut self, problems: Vec<Problem>) {
        for Problem { reason, .. } in problems {
            self.warning(NOT_AS_WRITTEN, "", reason, None);
        }
    }

    fn notes(&mut self, notes: &[FieldNote]) {
        for note in notes {
            let FieldNote { path, about } = note;
            let (severity, code) = match about {
                _ if note.is_lost_condition() => (Severity::Error, "condition-lost"),
                NoteKind::Unknown => (Severity::Warning, "unknown-field"),
                NoteKind::Unsupported(_) | NoteKind::Lost(_) => (Severity::Warning, "unsupported-field"),
                NoteKind::Deprecated(_) => (Severity::Info, "deprecated-field"),
            };
            self.add(severity, code, path, note.text(), None);
        }
    }
}

#[cfg(test)]
mod tests;
