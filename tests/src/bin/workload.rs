//! `warren-workload`: the servers and clients that run in the lab's pods.

fn main() -> std::process::ExitCode {
    warren_tests::workload::main()
}
