//! The agent's limits as flags.

use clap::Args;
use warren_agent::limits::LimitsConfig;

const DEFAULT: LimitsConfig = LimitsConfig::DEFAULT;

/// How much may be open at a time; beyond it is refused, counted (`warren_limit_refusals_total`) and told in flows.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct LimitArgs {
    /// Connections of one pod's applications, in and out
    #[arg(long, env = "WARREN_MAX_CONNECTIONS_PER_POD", default_value_t = DEFAULT.connections_per_pod, value_name = "N")]
    max_connections_per_pod: usize,
    /// Connections of all pods' applications on this node
    #[arg(long, env = "WARREN_MAX_CONNECTIONS_PER_NODE", default_value_t = DEFAULT.connections_per_node, value_name = "N")]
    max_connections_per_node: usize,
    /// TLS handshakes in progress that one address has begun with one pod
    #[arg(long, env = "WARREN_MAX_HANDSHAKES_PER_PEER", default_value_t = DEFAULT.handshakes_per_peer, value_name = "N")]
    max_handshakes_per_peer: usize,
    /// TLS handshakes in progress with one pod
    #[arg(long, env = "WARREN_MAX_HANDSHAKES_PER_POD", default_value_t = DEFAULT.handshakes_per_pod, value_name = "N")]
    max_handshakes_per_pod: usize,
    /// TLS handshakes in progress with all pods of this node
    #[arg(long, env = "WARREN_MAX_HANDSHAKES_PER_NODE", default_value_t = DEFAULT.handshakes_per_node, value_name = "N")]
    max_handshakes_per_node: usize,
    /// Tunnels from one address into one pod; an agent opens one for 256 connections and worker
    #[arg(long, env = "WARREN_MAX_TUNNELS_PER_PEER", default_value_t = DEFAULT.tunnels_per_peer, value_name = "N")]
    max_tunnels_per_peer: usize,
    /// Tunnels into one pod
    #[arg(long, env = "WARREN_MAX_TUNNELS_PER_POD", default_value_t = DEFAULT.tunnels_per_pod, value_name = "N")]
    max_tunnels_per_pod: usize,
}

impl From<LimitArgs> for LimitsConfig {
    fn from(args: LimitArgs) -> Self {
        Self {
            connections_per_pod: args.max_connections_per_pod,
            connections_per_node: args.max_connections_per_node,
            handshakes_per_peer: args.max_handshakes_per_peer,
            handshakes_per_pod: args.max_handshakes_per_pod,
            handshakes_per_node: args.max_handshakes_per_node,
            tunnels_per_peer: args.max_tunnels_per_peer,
            tunnels_per_pod: args.max_tunnels_per_pod,
        }
    }
}
