//! warren's agent.
