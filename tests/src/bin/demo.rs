//! `warren-demo`: the mesh at work, step by step (`cargo xtask demo`).

fn main() -> std::process::ExitCode {
    warren_tests::demo::main()
}
