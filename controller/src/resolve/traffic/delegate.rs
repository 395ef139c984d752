//! Rules that a VirtualService leaves to another one.

use super::is_for;
use crate::index::Index;
use crate::objects::{HttpRoute, Matching, Mirrors, Name, RouteAction, VirtualService};
use std::sync::Arc;
use warren_common::model::traffic::{Clients, HeaderMatch, HttpMatch, PathMatch, QueryMatch, TextMatch};

/// A rule as it counts, and its place in the list that it is written in.
type Placed = (usize, HttpRoute);

/// The HTTP rules of a VirtualService with what others contribute, and who they are. A rule whose delegate is missing, not
/// for its namespace, or in conflict with it is left out; the others stay. What a delegate contributes has the place of the
/// rule that leaves it to it.
pub(in crate::resolve) fn flattened(index: &Index, root: &VirtualService) -> (Vec<Placed>, Vec<Name>) {
    let (mut rules, mut others) = (Vec::new(), Vec::new());
    for (place, route) in root.http.iter().enumerate() {
        let route = in_full(index, route, &root.name.namespace);
        let RouteAction::Delegate(name) = &route.action else {
            rules.push((place, route));
            continue;
        };
        let Some(delegate) = usable(index, root, name) else { continue };
        if !others.contains(name) {
            others.push(name.clone());
        }
        rules.extend(within_rule(index, &route, delegate).map(|(_, own)| (place, own)));
    }
    (rules, others)
}

/// Why a rule of a delegate is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resolve) struct Conflict {
    /// Its match that lies within none of the root's.
    pub(in crate::resolve) place: usize,
    /// The field that does not, beside the last of them.
    pub(in crate::resolve) field: &'static str,
}

/// The rules of a delegate that a rule of the root leaves out, by their places.
pub(in crate::resolve) fn conflicts<'a>(
    root: &'a HttpRoute,
    delegate: &'a VirtualService,
) -> impl Iterator<Item = (usize, Conflict)> + 'a {
    let rules = delegate.http.iter().enumerate();
    rules.filter_map(|(place, own)| Some((place, matches(&root.matches, &own.matches).err()?)))
}

/// What a delegate's rules are within each rule of `root` that is left to it.
pub(in crate::resolve) fn contributed(
    index: &Index,
    root: &VirtualService,
    delegate: &VirtualService,
) -> Vec<Vec<Placed>> {
    let left = root.http.iter().filter(|route| {
        matches!(&route.action, RouteAction::Delegate(name)
            if *name == delegate.name && usable(index, root, name).is_some())
    });
    let left = left.map(|route| in_full(index, route, &root.name.namespace));
    left.map(|route| within_rule(index, &route, delegate).collect()).collect()
}

fn within_rule<'a>(
    index: &'a Index,
    rule: &'a HttpRoute,
    delegate: &'a VirtualService,
) -> impl Iterator<Item = Placed> {
    let own = delegate.http.iter().map(|own| in_full(index, own, &delegate.name.namespace));
    own.enumerate().filter_map(|(place, own)| Some((place, merged(rule, &own).ok()?)))
}

/// A rule with full names: short ones are of the namespace of the object that has them.
fn in_full(index: &Index, route: &HttpRoute, namespace: &str) -> HttpRoute {
    let mut route = route.clone();
    let backends = match &mut route.action {
        RouteAction::Forward(backends) => backends.as_mut_slice(),
        _ => &mut [],
    };
    let targets = backends.iter_mut().map(|backend| &mut backend.to);
    for to in targets.chain(route.mirrors.targets_mut()) {
        to.host = index.full_name(&to.host, namespace);
    }
    route
}

/// A VirtualService that `root` may delegate to.
pub(in crate::resolve) fn usable<'a>(
    index: &'a Index,
    root: &VirtualService,
    name: &Name,
) -> Option<&'a VirtualService> {
    let delegate = index.virtual_service(name)?;
    let visible = is_for(delegate.exported_to.as_ref(), &root.name.namespace);
    (delegate.hosts.is_empty() && visible).then_some(delegate)
}

/// A rule of the delegate within a rule of the root. What the delegate says wins; what it does not say is the root's.
fn merged(root: &HttpRoute, delegate: &HttpRoute) -> Result<HttpRoute, Conflict> {
    Ok(HttpRoute {
        name: joined(&root.name, &delegate.name),
        matches: matches(&root.matches, &delegate.matches)?,
        action: delegate.action.clone(),
        rewrite: delegate.rewrite.clone().or_else(|| root.rewrite.clone()),
        timeout_ms: delegate.timeout_ms.or(root.timeout_ms),
        retries: delegate.retries.clone().or_else(|| root.retries.clone()),
        fault: delegate.fault.clone().or_else(|| root.fault.clone()),
        mirrors: mirrors(&root.mirrors, &delegate.mirrors),
        cors: delegate.cors.clone().or_else(|| root.cors.clone()),
        headers: delegate.headers.clone().or_else(|| root.headers.clone()),
    })
}

fn mirrors(root: &Mirrors, delegate: &Mirrors) -> Mirrors {
    let several = if delegate.several.is_empty() { &root.several } else { &delegate.several };
    Mirrors {
        one: delegate.one.clone().or_else(|| root.one.clone()),
        share: delegate.share.or(root.share),
        several: several.clone(),
    }
}

/// Each match of the delegate within each of the root that it lies within: one at least.
fn matches(
    roots: &[Matching<HttpMatch>],
    delegates: &[Matching<HttpMatch>],
) -> Result<Vec<Matching<HttpMatch>>, Conflict> {
    let mut merged = Vec::new();
    if let ([], matches) | (matches, []) = (roots, delegates) {
        return Ok(matches.to_vec());
    }
    for (place, delegate) in delegates.iter().enumerate() {
        let (before, mut field) = (merged.len(), "");
        for root in roots {
            match within(root, delegate) {
                Ok(one) => merged.push(one),
                Err(conflict) => field = conflict,
            }
        }
        if merged.len() == before {
            return Err(Conflict { place, field });
        }
    }
    Ok(merged)
}

fn joined(root: &Arc<str>, delegate: &Arc<str>) -> Arc<str> {
    match (root.is_empty(), delegate.is_empty()) {
        (true, _) => delegate.clone(),
        (_, true) => root.clone(),
        _ => format!("{root}-{delegate}").into(),
    }
}

/// A match of the delegate that lies within one of the root; the field that does not, when it does not.
fn within(
    root: &Matching<HttpMatch>,
    delegate: &Matching<HttpMatch>,
) -> Result<Matching<HttpMatch>, &'static str> {
    let (outer, inner) = (&root.when, &delegate.when);
    let gateways = match (root.gateways.as_slice(), delegate.gateways.as_slice()) {
        ([], gateways) | (gateways, []) => gateways.to_vec(),
        (outer, inner) => {
            if !inner.iter().all(|gateway| outer.contains(gateway)) {
                return Err("gateways");
            }
            inner.to_vec()
        }
    };
    let port = match (outer.port, inner.port) {
        (Some(outer), Some(inner)) if outer != inner => return Err("port"),
        (outer, inner) => inner.or(outer),
    };
    if outer.ignore_path_case != inner.ignore_path_case {
        return Err("ignoreUriCase");
    }
    let when = HttpMatch {
        name: joined(&outer.name, &inner.name),
        clients: clients(&outer.clients, &inner.clients)?,
        port,
        path: path(outer.path.as_ref(), inner.path.as_ref()).ok_or("uri")?,
        ignore_path_case: inner.ignore_path_case,
        method: text(outer.method.as_ref(), inner.method.as_ref()).ok_or("method")?,
        scheme: text(outer.scheme.as_ref(), inner.scheme.as_ref()).ok_or("scheme")?,
        authority: text(outer.authority.as_ref(), inner.authority.as_ref()).ok_or("authority")?,
        headers: headers(&outer.headers, &inner.headers)?,
        query: query(&outer.query, &inner.query).ok_or("queryParams")?,
    };
    Ok(Matching { gateways, when, never: root.never || delegate.never })
}

fn clients(outer: &Clients, inner: &Clients) -> Result<Clients, &'static str> {
    let namespaces = match (&outer.namespaces, &inner.namespaces) {
        (Some(outer), Some(inner)) if outer != inner => return Err("sourceNamespace"),
        (outer, inner) => inner.clone().or_else(|| outer.clone()),
    };
    let mut labels = inner.labels.clone();
    for (key, value) in &outer.labels {
        if labels.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
            return Err("sourceLabels");
        }
    }
    Ok(Clients { namespaces, labels })
}

/// None: in conflict.
fn path(outer: Option<&PathMatch>, inner: Option<&PathMatch>) -> Option<Option<PathMatch>> {
    let (Some(of_root), Some(own)) = (outer, inner) else { return Some(inner.or(outer).cloned()) };
    let holds = match (of_root, own) {
        (PathMatch::Prefix(outer), PathMatch::Prefix(inner) | PathMatch::Exact(inner)) => {
            inner.starts_with(&**outer)
        }
        (PathMatch::Exact(outer), PathMatch::Exact(inner)) => outer == inner,
        _ => false,
    };
    holds.then(|| Some(own.clone()))
}

fn text(outer: Option<&TextMatch>, inner: Option<&TextMatch>) -> Option<Option<TextMatch>> {
    let (Some(of_root), Some(own)) = (outer, inner) else { return Some(inner.or(outer).cloned()) };
    let holds = match (of_root, own) {
        (TextMatch::Present, _) => true,
        (TextMatch::Prefix(outer), TextMatch::Prefix(inner) | TextMatch::Exact(inner)) => {
            inner.starts_with(&**outer)
        }
        (TextMatch::Exact(outer), TextMatch::Exact(inner)) => outer == inner,
        _ => false,
    };
    holds.then(|| Some(own.clone()))
}

fn headers(outer: &[HeaderMatch], inner: &[HeaderMatch]) -> Result<Vec<HeaderMatch>, &'static str> {
    let mut all = inner.to_vec();
    for of_root in outer {
        let is_within = match inner.iter().find(|own| own.name == of_root.name && own.not == of_root.not) {
            None => {
                all.push(of_root.clone());
                continue;
            }
            // A condition that something does not hold is not narrowed.
            Some(own) if own.not => own.value == of_root.value,
            Some(own) => text(Some(&of_root.value), Some(&own.value)).is_some(),
        };
        if !is_within {
            return Err(if of_root.not { "withoutHeaders" } else { "headers" });
        }
    }
    Ok(all)
}

fn query(outer: &[QueryMatch], inner: &[QueryMatch]) -> Option<Vec<QueryMatch>> {
    let mut all = inner.to_vec();
    for of_root in outer {
        match inner.iter().find(|own| own.name == of_root.name) {
            None => all.push(of_root.clone()),
            Some(own) => drop(text(Some(&of_root.value), Some(&own.value))?),
        }
    }
    Some(all)
}
