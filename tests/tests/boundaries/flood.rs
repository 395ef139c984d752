//! Peers that want to use the agent up: by handshakes that never end, by slowness, by size.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use warren_tests::lab::{Lab, poll_until};

use crate::forge::{Ca, Valid};
use crate::hostile::{FAILED, a_peer_with_proper_papers_enters, gateway};
use crate::peer::{Ask, Client};

/// Far more than any limit.
const HALF_OPEN: usize = 10_000;
/// So many handshakes of one peer are borne with at a time, each for ten seconds.
const AT_A_TIME: f64 = 64.0;
/// What the agent's memory may grow by, whatever its peers do (KiB).
const GROWTH: u64 = 48 << 10;
/// The agent's deadline for a handshake is 10 s.
const PATIENCE: Duration = Duration::from_secs(20);
const FRIEND: &str = "spiffe://cluster.local/ns/shop/sa/friend";

fn refusals(lab: &Lab, limit: &str) -> Result<f64> {
    lab.node("n2").metric("warren_limit_refusals_total", &[&format!("limit=\"{limit}\"")])
}

/// Connections that say nothing; those that were reset at once are left out.
fn silent(lab: &Lab, count: usize) -> Result<Vec<TcpStream>> {
    let to = gateway(lab);
    let connect = |_| TcpStream::connect_timeout(&to, PATIENCE).ok();
    lab.pod("stranger").place().netns().enter(|| (0..count).filter_map(connect).collect())
}

pub(crate) fn half_open_handshakes_stay_few_and_harm_nobody(lab: &Lab) -> Result<()> {
    let _server = lab.pod("far").serve(["whoami", "--port", "9001"])?;
    let agent = lab.node("n2").agent();
    let (before, counted) = (agent.rss_kib()?, refusals(lab, "handshakes_per_peer")?);
    let flows = lab.node("n2").watch_flows()?;
    let began = Instant::now();
    let sockets = silent(lab, HALF_OPEN)?;
    poll_until("the refusals to be counted", PATIENCE, || {
        let now = refusals(lab, "handshakes_per_peer").ok()?;
        let admitted = AT_A_TIME * (began.elapsed().as_secs_f64() / 10.0 + 2.0);
        (now - counted >= HALF_OPEN as f64 - admitted).then_some(())
    })?;
    flows.expect(&[("/direction", "inbound"), ("/flags", "UO"), ("/destination/pod", "far")])?;
    let growth = agent.rss_kib()?.saturating_sub(before);
    ensure!(growth < GROWTH, "the agent has grown by {growth} KiB");
    // The limit is the caller's own: others come in as before.
    let to = format!("{}:9001", lab.pod("far").ip4());
    let said = lab.pod("client").workload(["connect", "--to", &to]).json()?;
    ensure!(said["ok"] == true, "{said}");
    drop(sockets);
    poll_until("the caller to be let in again", PATIENCE, || a_peer_with_proper_papers_enters(lab).ok())
}

pub(crate) fn slow_handshakes_are_cut_off(lab: &Lab) -> Result<()> {
    let flows = lab.node("n2").watch_flows()?;
    let label = "response_flags=\"TLS_FAILURE\"";
    let counted = lab.node("n2").metric(FAILED, &[label])?;
    let mut socket = silent(lab, 1)?.pop().context("no connection")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let began = Instant::now();
    // The beginning of a ClientHello that never ends, byte by byte.
    let mut hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3].into_iter().chain(std::iter::repeat(0x55));
    while began.elapsed() < PATIENCE {
        let byte = hello.next().unwrap_or_default();
        let mut answer = [0; 64];
        let cut = socket.write_all(&[byte]).is_err()
            || match socket.read(&mut answer) {
                Ok(count) => count == 0,
                Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            };
        if cut {
            let took = began.elapsed();
            ensure!(took > Duration::from_secs(5), "cut off after {took:?}, before its time");
            let fields = [("/direction", "inbound"), ("/flags", "TLS_FAILURE"), ("/destination/pod", "far")];
            let flow = flows.expect(&fields)?;
            ensure!(flow["error"].as_str().is_some_and(|error| error.contains("timed out")), "{flow}");
            ensure!(lab.node("n2").metric(FAILED, &[label])? > counted, "not counted");
            return Ok(());
        }
    }
    anyhow::bail!("still open after {PATIENCE:?}")
}

pub(crate) fn a_giant_header_is_refused(lab: &Lab) -> Result<()> {
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
    let to = format!("{}:9000", lab.pod("far").ip4());
    let before = lab.node("n2").agent().rss_kib()?;
    // Up to 32 KiB are read, to be refused by name; HTTP/2 itself answers more, and hangs up on what never ends.
    for (size, limit) in
        [(16 << 10, Some("header_size")), (48 << 10, Some("malformed_request")), (1 << 20, None)]
    {
        let flows = lab.node("n2").watch_flows()?;
        let counted = limit.map(|limit| refusals(lab, limit)).transpose()?;
        let header = "x".repeat(size);
        let outcome = Client::new(&from, Some(&papers)).ask(gateway(lab), &Ask::Connect(&to, Some(&header)));
        let flag = if let Some(limit) = limit {
            ensure!(matches!(outcome, Ok((431, _))), "{size} bytes of header: {outcome:?}");
            ensure!(Some(refusals(lab, limit)?) > counted, "{limit} is not counted");
            "UO"
        } else {
            ensure!(outcome.is_err(), "{size} bytes of header: {outcome:?}");
            "H2_HANDSHAKE_FAILURE"
        };
        flows.expect(&[
            ("/direction", "inbound"),
            ("/flags", flag),
            ("/destination/pod", "far"),
            ("/source/identity", FRIEND),
        ])?;
    }
    let growth = lab.node("n2").agent().rss_kib()?.saturating_sub(before);
    ensure!(growth < GROWTH, "the agent has grown by {growth} KiB");
    Ok(())
}

/// TLS stands, and then nothing is said, or only very slowly.
pub(crate) fn a_tunnel_that_never_begins_is_cut_off(lab: &Lab) -> Result<()> {
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
    let flows = lab.node("n2").watch_flows()?;
    let took = Client::new(&from, Some(&papers)).say_nothing(gateway(lab), PATIENCE)?;
    ensure!(took > Duration::from_secs(5), "cut off after {took:?}, before its time");
    let flow = flows.expect(&[
        ("/direction", "inbound"),
        ("/flags", "H2_HANDSHAKE_FAILURE"),
        ("/destination/pod", "far"),
        ("/source/identity", FRIEND),
    ])?;
    ensure!(flow["error"].as_str().is_some_and(|error| error.contains("did not begin HTTP/2")), "{flow}");
    Ok(())
}

pub(crate) fn streams_beyond_the_limit_are_refused(lab: &Lab) -> Result<()> {
    const ALLOWED: u32 = 256;
    const MORE: u32 = 44;
    let far = lab.pod("far");
    let _server = far.serve(["echo", "--port", "9003"])?;
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
    let (before, counted) = (lab.node("n2").agent().rss_kib()?, refusals(lab, "streams_per_tunnel")?);
    let flows = lab.node("n2").watch_flows()?;
    let to = format!("{}:9003", far.ip4());
    let refused = Client::new(&from, Some(&papers)).open_too_many(gateway(lab), &to, ALLOWED + MORE)?;
    ensure!(refused == MORE as usize, "{refused} streams were refused");
    let flow = flows.expect(&[
        ("/direction", "inbound"),
        ("/flags", "UO"),
        ("/destination/pod", "far"),
        ("/source/identity", FRIEND),
    ])?;
    ensure!(flow["error"].as_str().is_some_and(|error| error.contains("streams of this tunnel")), "{flow}");
    let now = refusals(lab, "streams_per_tunnel")?;
    ensure!(now - counted == f64::from(MORE), "{} refusals were counted", now - counted);
    let growth = lab.node("n2").agent().rss_kib()?.saturating_sub(before);
    ensure!(growth < GROWTH, "the agent has grown by {growth} KiB");
    Ok(())
}

pub(crate) fn a_stream_that_is_never_read_holds_little(lab: &Lab) -> Result<()> {
    let far = lab.pod("far");
    let _server = far.serve(["source", "--port", "9002", "--bytes", "1000000000"])?;
    let from = lab.pod("stranger");
    let papers = Ca::of_mesh(lab)?.sign(FRIEND, Valid::Now)?;
    let before = lab.node("n2").agent().rss_kib()?;
    let to: SocketAddr = (far.ip4(), 9002).into();
    let client = Client::new(&from, Some(&papers));
    // Sixteen streams with room for 1 GiB each, of which nothing is read.
    let held = client.hold_unread(gateway(lab), &to.to_string(), 16)?;
    let mut last = 0;
    poll_until("the server to be held up", PATIENCE, || {
        let sent = lab.node("n2").metric("istio_tcp_sent_bytes_total", &[]).ok()? as u64;
        let stands = sent == last && sent > 0;
        last = sent;
        stands.then_some(())
    })?;
    let growth = lab.node("n2").agent().rss_kib()?.saturating_sub(before);
    ensure!(growth < GROWTH, "the agent has grown by {growth} KiB");
    drop(held);
    Ok(())
}
