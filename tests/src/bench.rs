//! The mesh against direct connections, in one run.

/// The program.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
