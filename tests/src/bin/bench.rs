//! `warren-bench`: the mesh against direct connections (`cargo xtask bench`).

fn main() -> std::process::ExitCode {
    warren_tests::bench::main()
}
