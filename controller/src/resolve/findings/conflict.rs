//! Objects for one host, of which one decides.

use super::About;
use crate::index::Index;
use crate::objects::{Created, VirtualService};
use crate::resolve::traffic::candidates;
use std::sync::Arc;

/// Another VirtualService for the same host that decides for all whom this one is for. `host` is full, or a pattern.
pub(super) fn check(
    index: &Index,
    service: &VirtualService,
    host: &Arc<str>,
    path: &str,
    about: &mut About<'_>,
) {
    if service.exported_to.as_ref().is_some_and(Vec::is_empty) {
        return;
    }
    let has_host = |other: &&VirtualService| {
        other.hosts.iter().any(|theirs| index.full_name(theirs, &other.name.namespace) == *host)
    };
    let is_for_all = |other: &&VirtualService| match (&other.exported_to, &service.exported_to) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(theirs), Some(own)) => own.iter().all(|namespace| theirs.contains(namespace)),
    };
    let ahead = candidates(index, host).into_iter().take_while(|other| other.name != service.name);
    let Some(winner) = ahead.filter(has_host).find(is_for_all) else { return };
    let why = match winner.created <= service.created {
        true => comes_first(winner.created, service.created),
        false => "is of the namespace of those whom both are for",
    };
    let text = format!(
        "the VirtualService {} decides for {host}: it {why}; rules of several are not merged",
        winner.name
    );
    let fix = Some("Put the rules into one of them, or delegate".to_owned());
    about.warning("host-conflict", path, text, fix);
}

/// Why one of two objects that are both for something counts.
pub(super) fn comes_first(winner: Created, loser: Created) -> &'static str {
    match (winner, loser) {
        (None, None) => "has no age, nor has this one, and then the names decide",
        (winner, loser) if winner == loser => "is as old as this one, and then the names decide",
        _ => "is older",
    }
}
