//! A connection as a sentence: when, who, to whom, how, whether it was allowed, how much, how long, why not.

use super::hint::hint;
use super::request::request;
use super::{Style, bytes, clean, milliseconds};
use warren_common::model::admin::{Direction, Flow, FlowPeer, FlowState, Transport, Verdict};

/// One flow. `wide` adds a line with what identifies it; `node` a column of that width with whose record it is.
pub(crate) fn flow(flow: &Flow, wide: bool, node: Option<usize>, style: Style) -> String {
    let node = node.map_or_else(String::new, |width| format!("{:<width$} ", clean(&flow.node)));
    let direction = match flow.direction {
        Direction::Outbound => "out",
        Direction::Inbound => "in ",
    };
    let mut text = format!(
        "{} {node}{direction} {} {} {}  {}  {}, {} sent, {} received, {}\n",
        style.dim(&clock(&flow.start)),
        style.bold(&source(&flow.source)),
        style.arrow(),
        destination(&flow.destination, style),
        transport(flow, style),
        verdict(flow, style),
        bytes(flow.bytes_sent),
        bytes(flow.bytes_received),
        lasted(flow),
    );
    if let Some(about) = &flow.request {
        text += &request(about, wide, style);
    }
    if let Some(dry_run) = &flow.dry_run {
        text += &format!("    dry run: {}\n", clean(dry_run));
    }
    if let Some(why) = failure(flow) {
        text += &format!("    {} {}\n", style.cross(), style.red(&clean(&why)));
        if let Some(hint) = hint(flow) {
            text += &format!("      likely: {}\n", clean(&hint));
        }
    }
    if wide {
        let identity =
            |peer: &FlowPeer| peer.identity.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let about = format!(
            "    flow {} on {}, began {}, {} {} {}\n",
            flow.id,
            flow.node,
            flow.start,
            identity(&flow.source),
            style.arrow(),
            identity(&flow.destination)
        );
        text += &style.dim(&about);
    }
    text
}

/// What a follower missed of an agent.
pub(crate) fn lost(count: u64, node: Option<&str>, style: Style) -> String {
    let (flows, were) = if count == 1 { ("flow", "was") } else { ("flows", "were") };
    let node = node.map_or_else(String::new, |node| format!(" of {}", clean(node)));
    let text =
        format!("... {count} {flows}{node} {were} not shown: they ended faster than this reader took them");
    style.yellow(&text) + "\n"
}

/// What fell out of the agent's ring before anybody asked.
pub(crate) fn evicted(count: u64) -> String {
    let (noun, verb) = if count == 1 { ("flow", "is") } else { ("flows", "are") };
    format!("{count} older {noun} {verb} no longer kept; `warren flows -f` shows flows as they happen\n")
}

/// `13:23:43.791` of an RFC 3339 time (UTC).
fn clock(start: &str) -> String {
    let time = start.split_once('T').map_or(start, |(_, time)| time);
    clean(time.get(..12).unwrap_or(time))
}

fn name(peer: &FlowPeer) -> Option<String> {
    let namespace = peer.namespace.as_deref()?;
    match peer.pod.as_deref().or(peer.workload.as_deref()) {
        Some(pod) => Some(clean(&format!("{namespace}/{pod}"))),
        // Known by certificate alone.
        None => Some(clean(&format!("{namespace}/{}", peer.identity.as_ref()?.service_account()))),
    }
}

fn source(peer: &FlowPeer) -> String {
    name(peer).unwrap_or_else(|| peer.address.map_or_else(|| "unknown".to_owned(), |a| a.to_string()))
}

fn destination(peer: &FlowPeer, style: Style) -> String {
    let asked = peer.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    let port = peer.address.map_or_else(String::new, |address| format!(":{}", address.port()));
    let endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
    match (peer.service.as_deref(), name(peer)) {
        (Some(service), pod) => {
            let behind: Vec<String> = [pod, endpoint].into_iter().flatten().collect();
            let service = style.bold(&format!("{}{port}", clean(service)));
            if behind.is_empty() { service } else { format!("{service} ({})", behind.join(" ")) }
        }
        (None, Some(pod)) => {
            format!("{} ({})", style.bold(&format!("{pod}{port}")), endpoint.unwrap_or(asked))
        }
        (None, None) => style.bold(&asked),
    }
}

/// With a tick where both identities were proven; none for a tunnel that never stood.
fn transport(flow: &Flow, style: Style) -> String {
    let proven = matches!(flow.flags.as_str(), "-" | "DENY");
    match flow.transport {
        Transport::Hbone if proven => format!("{} mTLS tunnel", style.tick()),
        Transport::Hbone => "mTLS tunnel".to_owned(),
        Transport::SameNode => format!("{} same node", style.tick()),
        Transport::Plaintext => format!("{} plaintext", style.warning()),
        Transport::None => "no transport".to_owned(),
    }
}

fn verdict(flow: &Flow, style: Style) -> String {
    let by = flow.policy.as_deref().map_or_else(String::new, |rule| {
        // The rule repeats the verdict.
        let rest = rule.strip_prefix("allow ").or_else(|| rule.strip_prefix("deny ")).unwrap_or(rule);
        if rest.starts_with('(') { format!(" {}", clean(rest)) } else { format!(" by {}", clean(rest)) }
    });
    match flow.verdict {
        Verdict::Allowed => format!("allowed{by}"),
        Verdict::Denied => style.red(&format!("DENIED{by}")),
        Verdict::None => "not judged".to_owned(),
    }
}

fn lasted(flow: &Flow) -> String {
    let duration = milliseconds(flow.duration_ms);
    match flow.state {
        FlowState::Open => format!("open for {duration}"),
        FlowState::Closed => duration,
    }
}

fn failure(flow: &Flow) -> Option<String> {
    match (flow.flags.as_str(), flow.error.as_deref()) {
        ("-", None) => None,
        ("-", Some(error)) => Some(error.to_owned()),
        (flag, Some(error)) => Some(format!("{flag}: {error}")),
        (flag, None) => Some(flag.to_owned()),
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
