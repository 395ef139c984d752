//! Many agents in one process: the real session and the real store, each with a connection of its own.

use crate::cluster::{Size, changed_uid, node, token_file};
use crate::controller::{ADDRESS, NAME};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use warren_agent::control::Trust;
use warren_agent::interest::Interest;
use warren_agent::store::{Mesh, Store};
use warren_agent::xds::{self, SharedControllerStatus, XdsConfig};
use warren_common::model::WorkloadUid;
use warren_common::runtime::{DrainTrigger, Readiness, drain};

/// A state or a change that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(600);

/// One agent without a data plane.
pub(crate) struct Agent {
    pub(crate) store: Arc<Store>,
    pub(crate) interest: Interest,
    trigger: DrainTrigger,
    task: JoinHandle<()>,
}

impl Agent {
    /// The agent of a node.
    pub(crate) fn start(directory: &Path, number: u32, by_interest: bool, state: bool) -> Self {
        let (store, interest) = if by_interest {
            (Store::by_interest(), Interest::asking())
        } else {
            (Store::new(), Interest::everything())
        };
        let store = Arc::new(store);
        let (trigger, watch) = drain();
        let config = XdsConfig {
            url: format!("https://{ADDRESS}"),
            controller_name: NAME.to_owned(),
            trust: Trust::new(directory.join("ca/root-cert.pem"), None),
            token_file: token_file(directory, number),
            node: node(number).into(),
            state_dir: state.then(|| directory.join(format!("state-{number}-{by_interest}"))),
        };
        let ready = Readiness::default().wait_for("configuration");
        let status = SharedControllerStatus::default();
        let task = tokio::spawn(xds::run(config, store.clone(), interest.clone(), status, ready, watch));
        Self { store, interest, trigger, task }
    }

    /// Waits until the store is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Mesh) -> bool) -> Result<()> {
        let mut changed = self.store.changed();
        let waiting = changed.wait_for(|_| wanted(&self.store.guard()));
        tokio::time::timeout(LIMIT, waiting).await.context("the agent's state did not come")??;
        Ok(())
    }

    /// Drains it.
    pub(crate) async fn stop(self) {
        self.trigger.start(Duration::from_secs(10)).await;
        let _ = self.task.await;
    }
}

/// Whether everything of the cluster is there.
pub(crate) fn has_everything(mesh: &Mesh, size: Size) -> bool {
    mesh.workloads().len() == size.pods as usize && mesh.services().len() == size.services as usize
}

/// All of them.
pub(crate) struct Agents {
    agents: Vec<Arc<Agent>>,
    first_states: Vec<Duration>,
    number: watch::Sender<u32>,
    seen: mpsc::UnboundedReceiver<(u32, Instant)>,
}

impl Agents {
    /// Starts all at once and waits until each has everything.
    pub(crate) async fn start(directory: &Path, count: u32, size: Size) -> Result<Self> {
        let began = Instant::now();
        let agents: Vec<_> =
            (0..count).map(|number| Arc::new(Agent::start(directory, number, false, false))).collect();
        let waiting: Vec<_> = agents
            .iter()
            .cloned()
            .map(|agent| {
                tokio::spawn(async move {
                    agent.until(|mesh| has_everything(mesh, size)).await.map(|()| began.elapsed())
                })
            })
            .collect();
        let mut first_states = Vec::new();
        for state in waiting {
            first_states.push(state.await??);
        }
        first_states.sort();
        let (number, _) = watch::channel(0);
        let (see, seen) = mpsc::unbounded_channel();
        for agent in &agents {
            tokio::spawn(follow(Arc::clone(agent), number.subscribe(), see.clone(), size));
        }
        Ok(Self { agents, first_states, number, seen })
    }

    /// How long each waited for its first state, shortest first.
    pub(crate) fn first_states(&self) -> &[Duration] {
        &self.first_states
    }

    pub(crate) fn last_state(&self) -> Duration {
        self.first_states.last().copied().unwrap_or_default()
    }

    /// Waits until every agent has seen a change, and says how long after `began` each did.
    pub(crate) async fn see_change(&mut self, number: u32, began: Instant) -> Result<Vec<Duration>> {
        let mut latencies = Vec::with_capacity(self.agents.len());
        while latencies.len() < self.agents.len() {
            let seen = tokio::time::timeout(LIMIT, self.seen.recv()).await;
            match seen.context("a change did not reach all agents")? {
                Some((seen, at)) if seen == number => latencies.push(at - began),
                Some(_) => {}
                None => bail!("the agents are gone"),
            }
        }
        self.number.send_replace(number + 1);
        Ok(latencies)
    }

    pub(crate) async fn stop(self) {
        drop(self.number);
        for agent in self.agents {
            if let Ok(agent) = Arc::try_unwrap(agent) {
                agent.stop().await;
            }
        }
    }
}

/// Reports each change as soon as the agent's store has it.
async fn follow(
    agent: Arc<Agent>,
    mut number: watch::Receiver<u32>,
    see: mpsc::UnboundedSender<(u32, Instant)>,
    size: Size,
) {
    loop {
        let change = *number.borrow_and_update();
        let uid = WorkloadUid(changed_uid(change, size).into());
        let gone = |mesh: &Mesh| mesh.workload(&uid).is_some_and(|workload| workload.services.is_empty());
        let seen = tokio::select! {
            seen = agent.until(gone) => seen.is_ok(),
            _ = number.changed() => false,
        };
        if !seen || see.send((change, Instant::now())).is_err() || number.changed().await.is_err() {
            return;
        }
    }
}
