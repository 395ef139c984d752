//! Chaos: agents are upgraded and die, the controller dies, policies flip, the CA's keys are replaced, pods come and go, all
//! at random, under traffic that counts. At no moment may a forbidden connection stand, a byte be wrong, or a permitted
//! connection fail outside the windows in which an agent of its way was down; and in the end nothing may be left over.
//!
//! `WARREN_CHAOS_STEPS` says how many things happen (default 8), `WARREN_CHAOS_SEED` which (default 1; `cargo xtask test
//! chaos` draws one); both are printed.

#![allow(clippy::print_stdout, reason = "a random run says what it did, so that it can be repeated")]

mod turmoil;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use turmoil::{Footprint, SOON, at, say, shop, stream, until_enrolled, until_reached};
use warren_tests::lab::{Daemon, Lab, Node, Pod, PodSpec, poll_until};

/// After an agent is ready again: labels, certificates and tunnels of the other side.
const SETTLE: Duration = Duration::from_secs(5);
fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// What one attempt to connect came to.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    ended: Instant,
    stood: bool,
}

/// Somebody who tries to connect again and again.
struct Prober {
    from: Pod,
    to: String,
    attempts: Mutex<Vec<Attempt>>,
}

impl Prober {
    fn new(from: Pod, to: &Pod) -> Self {
        Self { from, to: at(to, 9000), attempts: Mutex::default() }
    }

    fn run(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let stood = say(&self.from, &self.to, "hello").is_ok_and(|said| said["text"] == "hello");
            let attempt = Attempt { began, ended: Instant::now(), stood };
            if let Ok(mut attempts) = self.attempts.lock() {
                attempts.push(attempt);
            }
        }
    }

    fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().map(|attempts| attempts.clone()).unwrap_or_default()
    }

    /// Waits until so many more attempts were made.
    fn wait_for(&self, more: usize) -> Result<()> {
        let before = self.attempts().len();
        let what = format!("{} to try {more} times", self.from.name());
        poll_until(&what, 3 * SOON, || (self.attempts().len() >= before + more).then_some(()))
    }
}

fn deny(name: &str, app: &str, account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  action: DENY\n  selector: {{matchLabels: {{app: {app}}}}}\n  \
         rules: [{{from: [{{source: {{principals: ['*/ns/shop/sa/{account}']}}}}]}}]\n"
    )
}

/// A node, and the agent that serves it now: the node's first one, or its latest successor.
struct Post<'a> {
    node: &'a Node,
    successor: Option<Daemon>,
}

impl Post<'_> {
    fn agent(&self) -> &Daemon {
        self.successor.as_ref().unwrap_or(self.node.agent())
    }
}

/// Everything that happens to the mesh.
struct Chaos<'a> {
    lab: &'a Lab,
    posts: Vec<Post<'a>>,
    random: StdRng,
    /// When an agent was down, by node, its return included.
    windows: Vec<(String, Instant, Instant)>,
    guests: Vec<String>,
    moody: bool,
    made: u32,
}

impl<'a> Chaos<'a> {
    fn step(&mut self) -> Result<String> {
        Ok(match self.random.random_range(0..9) {
            0 => self.replace_agent()?,
            1 | 2 => self.upgrade_agent()?,
            3 => {
                self.lab.controller().kill();
                self.lab.start_controller()?;
                "controller killed".to_owned()
            }
            4 => self.flip()?,
            5 => self.come()?,
            6 => self.rotate()?,
            _ => self.go()?,
        })
    }

    fn post(&mut self) -> &mut Post<'a> {
        let drawn = self.random.random_range(0..self.posts.len());
        &mut self.posts[drawn]
    }

    /// An agent ends and another one starts: for that long its pods may be cut off.
    fn replace_agent(&mut self) -> Result<String> {
        let orderly = self.random.random_bool(0.5);
        let post = self.post();
        let (name, began) = (post.node.name().to_owned(), Instant::now());
        if orderly {
            post.agent().stop()?;
        } else {
            post.agent().kill();
        }
        post.agent().start()?;
        let said = format!("agent of {name} {}", if orderly { "restarted" } else { "killed" });
        self.windows.push((name, began, Instant::now() + SETTLE));
        Ok(said)
    }

    /// An agent hands over to its successor: nobody may notice.
    fn upgrade_agent(&mut self) -> Result<String> {
        self.made += 1;
        let number = self.made.to_string();
        let post = self.post();
        let successor = post.node.another_agent(&number, &[])?;
        successor.spawn()?;
        successor.wait_log("this agent serves the pods now", SOON)?;
        post.agent().stop()?;
        successor.wait_ready(SOON)?;
        post.successor = Some(successor);
        Ok(format!("agent of {} upgraded", post.node.name()))
    }

    /// New keys of the CA, unless some are on their way: nobody may notice.
    fn rotate(&mut self) -> Result<String> {
        let root: &[&str] = if self.random.random_bool(0.5) { &["--root"] } else { &[] };
        let status: serde_json::Value =
            serde_json::from_str(&self.lab.warren_ca(["status", "-o", "json"]).stdout()?)?;
        let phase = status["rotation"]["phase"].as_str().context("no phase")?;
        if phase != "steady" {
            return Ok(format!("the CA is still {phase}"));
        }
        self.lab.warren_ca(["rotate"]).args(root).stdout()?;
        Ok(format!("rotation of the {}", if root.is_empty() { "signing certificate" } else { "root" }))
    }

    /// Whether `client` may enter `moody` changes, and soon is so.
    fn flip(&mut self) -> Result<String> {
        self.moody = !self.moody;
        if self.moody {
            self.lab.write_manifest("moody.yaml", &deny("moody", "moody", "client"))?;
        } else {
            self.lab.remove_manifest("moody.yaml")?;
        }
        let (client, to) = (self.lab.pod("client"), at(&self.lab.pod("moody"), 9000));
        poll_until("the policy to be followed", SOON, || {
            (say(&client, &to, "hello").ok()?["ok"] == !self.moody).then_some(())
        })?;
        Ok(format!("moody {}", if self.moody { "closes" } else { "opens" }))
    }

    fn come(&mut self) -> Result<String> {
        self.made += 1;
        let (name, node) = (format!("guest-{}", self.made), ["n1", "n2"][self.random.random_range(0..2)]);
        let spec = PodSpec::new(&name).on(node).namespace("shop").service_account("guest");
        let guest = self.lab.add_pod(&spec)?;
        let _server = guest.serve(["echo", "--port", "9000"])?;
        until_reached(&self.lab.pod("client"), &at(&guest, 9000))?;
        self.guests.push(name.clone());
        Ok(format!("{name} came to {node}"))
    }

    fn go(&mut self) -> Result<String> {
        if self.guests.is_empty() {
            return self.come();
        }
        let name = self.guests.swap_remove(self.random.random_range(0..self.guests.len()));
        self.lab.delete_pod(&name)?;
        Ok(format!("{name} went"))
    }
}

#[test]
fn nothing_is_lost_and_nothing_gets_in() {
    let steps = from_environment("WARREN_CHAOS_STEPS").unwrap_or(8);
    let seed: u64 = from_environment("WARREN_CHAOS_SEED").unwrap_or(1);
    println!("WARREN_CHAOS_SEED={seed} WARREN_CHAOS_STEPS={steps}");
    let lab = shop()
        .pod("moody", |pod| pod.on("n2").namespace("shop").label("app", "moody"))
        .pod("intruder", |pod| pod.on("n1").namespace("shop").service_account("intruder"))
        // Certificates are renewed again and again.
        .agent_arg("--certificate-lifetime")
        .agent_arg("60s")
        // And so is the CA, in phases that don't wait long for an agent that is down.
        .controller_arg("--certificate-lifetime=60s")
        .controller_arg("--ca-settle=2s");
    lab.test(|lab| run(lab, steps, seed));
}

fn run(lab: &Lab, steps: u32, seed: u64) -> Result<()> {
    lab.start_mesh()?;
    lab.write_manifest("no-intruders.yaml", &deny("no-intruders", "web", "intruder"))?;
    let pods = ["client", "intruder", "near", "far", "moody"].map(|name| lab.pod(name));
    let [client, intruder, near, far, moody] = &pods;
    let serve = |pod: &Pod| pod.serve(["echo", "--port", "9000"]);
    let _servers = [serve(near)?, serve(far)?, serve(moody)?];
    until_enrolled(lab.node("n1"), 3)?;
    until_enrolled(lab.node("n2"), 2)?;
    for to in [near, far] {
        until_reached(client, &at(to, 9000))?;
        poll_until("the intruder to be kept out", SOON, || {
            (say(intruder, &at(to, 9000), "hello").ok()?["ok"] == false).then_some(())
        })?;
    }
    let before =
        lab.nodes().iter().map(|node| Footprint::of(node, node.agent())).collect::<Result<Vec<_>>>()?;

    let permitted = [Prober::new(client.clone(), far), Prober::new(client.clone(), near)];
    let forbidden = [Prober::new(intruder.clone(), far), Prober::new(intruder.clone(), near)];
    let streams = [stream(client, &at(far, 9000), &[])?, stream(far, &at(near, 9000), &[])?];
    let stop = AtomicBool::new(false);
    let mut chaos = Chaos {
        lab,
        posts: lab.nodes().iter().map(|node| Post { node, successor: None }).collect(),
        random: StdRng::seed_from_u64(seed),
        windows: Vec::new(),
        guests: Vec::new(),
        moody: false,
        made: 0,
    };
    thread::scope(|scope| {
        for prober in permitted.iter().chain(&forbidden) {
            scope.spawn(|| prober.run(&stop));
        }
        let outcome = (0..steps).try_for_each(|number| {
            let what = chaos.step().with_context(|| format!("step {number} of seed {seed}"))?;
            println!("{number}: {what}");
            // Traffic between what happens, and some of it after the last window.
            permitted.iter().chain(&forbidden).try_for_each(|prober| prober.wait_for(5))
        });
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;

    for prober in &forbidden {
        let attempts = prober.attempts();
        let inside = attempts.iter().filter(|attempt| attempt.stood).count();
        ensure!(inside == 0, "seed {seed}: {inside} of {} forbidden connections stood", attempts.len());
    }
    for (prober, nodes) in permitted.iter().zip([&["n1", "n2"][..], &["n1"][..]]) {
        let attempts = prober.attempts();
        let excused = |attempt: &Attempt| {
            let down = |(node, from, to): &(String, Instant, Instant)| {
                nodes.contains(&node.as_str()) && attempt.ended >= *from && attempt.began <= *to
            };
            chaos.windows.iter().any(down)
        };
        let refused = attempts.iter().filter(|attempt| !attempt.stood && !excused(attempt)).count();
        ensure!(refused == 0, "seed {seed}: {refused} of {} permitted connections failed", attempts.len());
        ensure!(attempts.iter().any(|attempt| attempt.stood), "nothing ever passed");
    }
    for stream in streams {
        let report = stream.report(SOON)?;
        ensure!(report["corrupt"] == 0, "seed {seed}: wrong bytes: {report}");
        ensure!(report["messages"].as_u64() > Some(100), "hardly any message: {report}");
    }
    while !chaos.guests.is_empty() {
        chaos.go()?;
    }
    until_enrolled(lab.node("n1"), 3)?;
    until_enrolled(lab.node("n2"), 2)?;
    for (post, before) in chaos.posts.iter().zip(before) {
        before.must_return(post.node, post.agent()).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}
