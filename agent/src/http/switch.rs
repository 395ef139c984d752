//! After the switch to another protocol (WebSocket, CONNECT): bytes in both directions until both have ended.
//!
//! A stream of HTTP/2 that its other end has cancelled looks as if it had ended in order: the library does not tell.

use super::exchange::Exchange;
use super::pool::{Lease, Switched};
use crate::observe::ResponseFlag;
use std::any::Any;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that are read at once, each way.
const BUFFER: usize = 16 << 10;

/// An endpoint that has switched, to be joined with its client.
pub(super) struct Switching {
    pub(super) lease: Lease,
    pub(super) exchange: Exchange,
    /// Held as long as the connection lasts.
    pub(super) place: Box<dyn Any>,
}

impl Switching {
    /// Copies until both sides have ended, or the connection has to end: then both are to be reset.
    pub(super) async fn join<S: AsyncRead + AsyncWrite + Unpin>(self, client: &mut S) {
        let Self { lease, mut exchange, place } = self;
        let Switched { io: mut server, mut evicted } = match lease.switched().await {
            Ok(server) => server,
            Err(error) => {
                let why = format!("the endpoint ended instead of switching: {error}");
                exchange.broken(ResponseFlag::UpstreamTermination, "upgrade_failed", &why);
                return;
            }
        };
        let copied = tokio::select! {
            biased;
            () = &mut evicted => Err(io::Error::other("it was let in no longer")),
            copied = tokio::io::copy_bidirectional_with_sizes(client, &mut server, BUFFER, BUFFER) => copied,
        };
        drop(place);
        match copied {
            Ok((sent, received)) => {
                exchange.sent(sent);
                exchange.received(usize::try_from(received).unwrap_or(usize::MAX));
                exchange.finish();
            }
            Err(error) => {
                let why = format!("the connection broke off after it had switched: {error}");
                exchange.broken(ResponseFlag::UpstreamTermination, "upgraded_connection_reset", &why);
            }
        }
    }
}
