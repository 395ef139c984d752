//! What a client speaks: said by the port, or heard. Nobody waits for a timer: the endpoint is connected to at once, and
//! whichever side speaks first decides. Nothing is read: what was heard is still there for whoever goes on.

use super::{OutboundError, reach};
use crate::accept::{end, peek};
use crate::context::Context;
use crate::flow::{Dialled, Upstream};
use crate::http::{FIRST_LINE_DEADLINE, MAX_FIRST_LINE, Spoken, close, spoken};
use crate::observe::FlowHandle;
use crate::standing::Guest;
use std::rc::Rc;
use tokio::net::TcpStream;

/// What was found out.
pub(super) enum Heard {
    /// HTTP.
    Http { h2: bool },
    /// Something else, or a server that speaks first.
    Other { reached: (Upstream, Option<Guest>) },
    /// Nothing: this came in between.
    Failed(OutboundError),
}

/// Of a client whose port says HTTP: whether it is HTTP/2. Whatever it speaks, or does not get to the end of, it is answered in
/// HTTP.
pub(super) async fn is_h2(socket: &TcpStream) -> bool {
    if socket.readable().await.is_err() {
        return false;
    }
    let heard = tokio::time::timeout(FIRST_LINE_DEADLINE, client(socket)).await;
    heard.is_ok_and(|heard| heard == Spoken::Http2)
}

/// Of a client whose port says nothing.
pub(super) async fn protocol(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Heard {
    let mut reaching = Box::pin(reach(context, dialled, flow));
    let heard = tokio::select! {
        biased;
        heard = client(socket) => heard,
        reached = &mut reaching => return match reached {
            Ok(reached) => with_server(socket, reached).await,
            // Rules may lead elsewhere; what has none fails with this.
            Err(error) => match client(socket).await {
                Spoken::Http1 => Heard::Http { h2: false },
                Spoken::Http2 => Heard::Http { h2: true },
                Spoken::Other | Spoken::Unclear => Heard::Failed(error),
            },
        },
    };
    match heard {
        Spoken::Http1 => Heard::Http { h2: false },
        Spoken::Http2 => Heard::Http { h2: true },
        Spoken::Other | Spoken::Unclear => match reaching.await {
            Ok(reached) => Heard::Other { reached },
            Err(error) => Heard::Failed(error),
        },
    }
}

/// Connected, and nobody has said enough yet.
async fn with_server(socket: &TcpStream, mut reached: (Upstream, Option<Guest>)) -> Heard {
    let server = async {
        match &mut reached.0 {
            Upstream::Socket(server) => drop(server.readable().await),
            Upstream::Tunnel(stream) => drop(stream.readable().await),
            // Not asked for: what may turn out to be requests shares. If it came, its server would be heard later.
            Upstream::Dedicated(_) => std::future::pending().await,
        }
    };
    let heard = tokio::select! {
        biased;
        heard = client(socket) => heard,
        () = server => Spoken::Other,
    };
    let h2 = match heard {
        Spoken::Http1 => false,
        Spoken::Http2 => true,
        Spoken::Other | Spoken::Unclear => return Heard::Other { reached },
    };
    // It was connected to for nothing, and is told so in order.
    match reached.0 {
        Upstream::Socket(server) => end(server),
        Upstream::Tunnel(stream) => drop(tokio::task::spawn_local(close(stream.into_io()))),
        Upstream::Dedicated(tunnel) => drop(tunnel),
    }
    Heard::Http { h2 }
}

/// Waits until it is clear what the client speaks.
async fn client(socket: &TcpStream) -> Spoken {
    // Who says nothing costs no buffer.
    if socket.readable().await.is_err() {
        return Spoken::Other;
    }
    let mut first = Vec::new();
    let heard = peek(socket, MAX_FIRST_LINE, |fresh| {
        first.extend_from_slice(fresh);
        Some(spoken(&first)).filter(|spoken| *spoken != Spoken::Unclear)
    });
    heard.await.ok().flatten().unwrap_or(Spoken::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn nobody_takes_for_ever_to_say_the_first_line() {
        for (said, expected, patience) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true, None),
            ("GET / HTTP/1.1\r\n", false, None),
            ("PRI * HTT", false, Some(FIRST_LINE_DEADLINE)),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let began = Instant::now();
            assert_eq!(is_h2(&server).await, expected, "{said:?}");
            if let Some(patience) = patience {
                assert!(began.elapsed() >= patience, "{said:?}");
            }
        }
    }
}
