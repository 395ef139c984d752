//! SIGTERM and SIGINT end a daemon in order.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first SIGTERM or SIGINT and names it.
///
/// # Errors
/// When the process may not install signal handlers.
pub async fn shutdown_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
