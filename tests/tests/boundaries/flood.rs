//! Peers that want to use the agent up: by handshakes that never end, by slowness, by size.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use warren_tests::lab::{Lab, poll_until};

use crate::forge::{Ca, Valid};
use crate::hostile::{a_peer_with_proper_papers_enters, gateway};
use crate::peer::{Ask, Client};

/// Far more than any limit.
const HALF_OPEN: usize = 10_000;
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
    let sockets = silent(lab, HALF_OPEN)?;
    poll_until("the refusals to be counted", PATIENCE, || {
        let now = refusals(lab, "handshakes_per_peer").ok()?;
        (now - counted >= (HALF_OPEN - 100) as f64).then_some(())
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
    for size in [16 << 10, 1 << 20] {
        let header = "x".repeat(size);
        let outcome = Client::new(&from, Some(&papers)).ask(gateway(lab), &Ask::Connect(&to, Some(&header)));
        ensure!(!matches!(outcome, Ok((200, _))), "{size} bytes of header were taken");
    }
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
