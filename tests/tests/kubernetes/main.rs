//! The mesh on a real two-node Kubernetes (`cargo xtask test kubernetes`), as its users have it.

mod analyze;
mod cli;
mod cni;
mod disturbance;
mod enrolment;
mod hostile;
mod install;
mod plain;
mod revocation;
mod strict;
mod traffic;
mod visibility;
mod workloads;
