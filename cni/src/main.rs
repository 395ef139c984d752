//! `warren-cni`, as it lies in a node's CNI directory.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren_cni::run()
}
