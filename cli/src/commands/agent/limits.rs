//! The agent's limits as flags.

use clap::Args;
use std::time::Duration;
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
    /// Open streams of one tunnel into a pod
    #[arg(long, env = "WARREN_MAX_STREAMS_PER_TUNNEL", default_value_t = DEFAULT.streams_per_tunnel, value_name = "N")]
    max_streams_per_tunnel: usize,
    /// Requests of one pod's applications under way, where rules make the agent look into them
    #[arg(long, env = "WARREN_MAX_REQUESTS_PER_POD", default_value_t = DEFAULT.requests_per_pod, value_name = "N")]
    max_requests_per_pod: usize,
    /// The same of all pods on this node
    #[arg(long, env = "WARREN_MAX_REQUESTS_PER_NODE", default_value_t = DEFAULT.requests_per_node, value_name = "N")]
    max_requests_per_node: usize,
    /// Bytes of one pod's requests kept to be sent again; a request that finds no room is sent once
    #[arg(long, env = "WARREN_MAX_KEPT_BYTES_PER_POD", default_value_t = DEFAULT.kept_bytes_per_pod, value_name = "BYTES")]
    max_kept_bytes_per_pod: usize,
    /// The same of all pods on this node
    #[arg(long, env = "WARREN_MAX_KEPT_BYTES_PER_NODE", default_value_t = DEFAULT.kept_bytes_per_node, value_name = "BYTES")]
    max_kept_bytes_per_node: usize,
    /// Bytes that one pod's HTTP/2 connections may bring before anybody reads them; one that finds no room gets a small window
    #[arg(long, env = "WARREN_MAX_UNREAD_BYTES_PER_POD", default_value_t = DEFAULT.unread_bytes_per_pod, value_name = "BYTES")]
    max_unread_bytes_per_pod: usize,
    /// The same of all pods on this node
    #[arg(long, env = "WARREN_MAX_UNREAD_BYTES_PER_NODE", default_value_t = DEFAULT.unread_bytes_per_node, value_name = "BYTES")]
    max_unread_bytes_per_node: usize,
    /// End a connection that carries no byte for so long; 0: never, as without a mesh
    #[arg(long, env = "WARREN_IDLE_TIMEOUT", default_value_t = DEFAULT.idle_connection.as_secs(), value_name = "SECONDS")]
    idle_timeout: u64,
    /// Close a tunnel into a pod that has no connection for so long; 0: never
    #[arg(long, env = "WARREN_TUNNEL_IDLE_TIMEOUT", default_value_t = DEFAULT.idle_tunnel.as_secs(), value_name = "SECONDS")]
    tunnel_idle_timeout: u64,
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
            streams_per_tunnel: args.max_streams_per_tunnel,
            requests_per_pod: args.max_requests_per_pod,
            requests_per_node: args.max_requests_per_node,
            kept_bytes_per_pod: args.max_kept_bytes_per_pod,
            kept_bytes_per_node: args.max_kept_bytes_per_node,
            unread_bytes_per_pod: args.max_unread_bytes_per_pod,
            unread_bytes_per_node: args.max_unread_bytes_per_node,
            idle_connection: Duration::from_secs(args.idle_timeout),
            idle_tunnel: Duration::from_secs(args.tunnel_idle_timeout),
        }
    }
}
