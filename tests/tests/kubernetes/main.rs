//! The mesh on a real two-node Kubernetes (`cargo xtask test kubernetes`), as its users have it.

mod disturbance;
mod enrolment;
mod plain;
mod strict;
mod traffic;
mod visibility;
mod workloads;
