//! What every story needs: the node's shared parts, and what belongs to one worker.

use crate::accept::Names;
use crate::gate::Gate;
use crate::handover::Exits;
use crate::identity::{Identities, Outside};
use crate::interest::Interest;
use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::observe::Observer;
use crate::outbound::{Balances, Routes};
use crate::pods::PodRegistry;
use crate::route::{Affinity, Failing, Frequency, TunnelUse};
use crate::store::Store;
use crate::tunnel::Pool;
use parking_lot::Mutex;
use std::rc::Rc;
use std::sync::Arc;

/// Shared by all workers of the agent.
pub(crate) struct Node {
    /// Peers of other trust domains are refused.
    pub trust_domain: Arc<str>,
    /// The mesh.
    pub store: Arc<Store>,
    /// What of the mesh is asked for.
    pub interest: Interest,
    /// Capture.
    pub kernel: Arc<dyn Kernel>,
    /// Certificates.
    pub identities: Identities,
    /// TLS to servers outside of the mesh.
    pub outside: Outside,
    /// How much may be open.
    pub limits: Limits,
    /// Where connections go when a successor takes them.
    pub exits: Exits,
    /// Records.
    pub observer: Observer,
    /// Enrolled pods of this node.
    pub pods: Arc<PodRegistry>,
    /// Names outside of the mesh.
    pub names: Names,
    /// Which connections get a tunnel of their own.
    pub tunnel_use: TunnelUse,
    /// How often pods connect.
    pub frequency: Mutex<Frequency>,
    /// Which endpoints the pods of this node had last.
    pub affinity: Mutex<Affinity>,
    /// Which endpoints have failed lately.
    pub failing: Mutex<Failing>,
    /// What is known of endpoints under DestinationRules.
    pub balances: Balances,
}

/// One worker's view: connections, tunnels and pools never leave it.
pub(crate) struct Context {
    /// The shared parts.
    pub node: Arc<Node>,
    /// Judges who enters this node's pods, and again when that changes.
    pub gate: Gate,
    /// This worker's tunnels.
    pub tunnels: Rc<Pool>,
    /// This worker's connections to endpoints that requests share.
    pub requests: Rc<crate::http::Pool>,
    /// This worker's compiled rules.
    pub routes: Routes,
}
