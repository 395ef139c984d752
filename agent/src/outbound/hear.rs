//! What a client speaks: said by the port, or heard. Where bytes would go is connected to at once, and whichever side speaks
//! first decides; timers only end what would last for ever. Nothing is read: what was heard is still there for whoever goes on.

use super::course::Course;
use super::endpoints::Unpicked;
use super::tried::Guess;
use super::{OutboundError, Reached, reach};
use crate::accept::{end, peek};
use crate::context::Context;
use crate::flow::{Dialled, Upstream};
use crate::http::{FIRST_LINE_DEADLINE, MAX_FIRST_LINE, Spoken, close, spoken};
use crate::observe::FlowHandle;
use crate::policy::{ClientHello, ServerName};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The first byte of whatever may be TLS: a record's type.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 20..=24;

/// How long a client may say nothing whose bytes would lead nowhere: it may wait for a server that speaks first, and never comes.
const LAST_WORD: Duration = Duration::from_secs(5);

/// What was found out.
pub(super) enum Heard {
    /// HTTP.
    Http { h2: bool },
    /// TLS, to the server of this name; empty: none, or it cannot be read.
    Tls(Arc<str>),
    /// Something else, or a server that speaks first.
    Other(Reached),
}

/// What is listened for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ear {
    /// HTTP.
    pub(super) http: bool,
    /// The server's name in TLS.
    pub(super) tls: bool,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Http { h2: bool },
    Tls(Arc<str>),
    Bytes,
}

/// Of a client whose port says HTTP: whether it is HTTP/2. Whatever it speaks, or does not get to the end of, it is answered in
/// HTTP.
pub(super) async fn is_h2(socket: &TcpStream) -> bool {
    let ear = Ear { http: true, tls: false };
    client(socket, ear).await == Said::Http { h2: true }
}

/// Of a client whose port does not say enough; `bytes`: where bytes go. Until it is clear that they do, the way there is a guess:
/// it has no place at its endpoint, and counts for nothing.
///
/// # Errors
/// The client's bytes lead nowhere, or were not led there, or there is no place for them.
pub(super) async fn protocol(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    ear: Ear,
    bytes: Result<Course, OutboundError>,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Result<Heard, OutboundError> {
    let bytes = match bytes {
        Ok(bytes) => bytes,
        // There is nobody to connect to meanwhile.
        Err(error) => return last_word(socket, ear).await.ok_or(error),
    };
    let guess = Guess::default();
    let heard = guessed(context, dialled, ear, &bytes, &guess, socket, flow).await;
    match heard {
        Ok(Heard::Other(mut reached)) => {
            guess.counts();
            if let Some(place) = &mut reached.place {
                place.enter().map_err(Unpicked::from)?;
                place.connected(true);
            }
            Ok(Heard::Other(reached))
        }
        Err(error) => {
            guess.counts();
            Err(error)
        }
        Ok(heard) => Ok(heard),
    }
}

async fn guessed(
    context: &Rc<Context>,
    dialled: &Dialled<'_>,
    ear: Ear,
    bytes: &Course,
    guess: &Guess,
    socket: &TcpStream,
    flow: &FlowHandle,
) -> Result<Heard, OutboundError> {
    let mut reaching = Box::pin(reach(context, dialled, bytes, Some(guess), flow));
    let said = tokio::select! {
        biased;
        said = client(socket, ear) => said,
        reached = &mut reaching => return match reached {
            Ok(reached) => Ok(with_server(socket, ear, reached).await),
            // Rules may lead elsewhere; what has none fails with this.
            Err(error) => last_word(socket, ear).await.ok_or(error),
        },
    };
    match heard(said) {
        Some(heard) => Ok(heard),
        None => reaching.await.map(Heard::Other),
    }
}

/// What a client says in time that is not just bytes.
async fn last_word(socket: &TcpStream, ear: Ear) -> Option<Heard> {
    if timeout(LAST_WORD, socket.readable()).await.is_err() {
        return None;
    }
    heard(client(socket, ear).await)
}

/// What is not just bytes.
fn heard(said: Said) -> Option<Heard> {
    match said {
        Said::Http { h2 } => Some(Heard::Http { h2 }),
        Said::Tls(name) => Some(Heard::Tls(name)),
        Said::Bytes => None,
    }
}

/// Connected, and nobody has said enough yet.
async fn with_server(socket: &TcpStream, ear: Ear, mut reached: Reached) -> Heard {
    let server = async {
        match &mut reached.upstream {
            Upstream::Socket(server) => drop(server.readable().await),
            Upstream::Tunnel(stream) => drop(stream.readable().await),
            // Not asked for: what may turn out to be requests shares. If it came, its server would be heard later. And of TLS
            // that is spoken here nothing can be heard without reading it.
            Upstream::Dedicated(_) | Upstream::Originated(_) => std::future::pending().await,
        }
    };
    let said = tokio::select! {
        biased;
        said = client(socket, ear) => said,
        () = server => Said::Bytes,
    };
    let Some(heard) = heard(said) else { return Heard::Other(reached) };
    // It was connected to for nothing, and is told so in order.
    match reached.upstream {
        Upstream::Socket(server) => end(server),
        Upstream::Tunnel(stream) => drop(tokio::task::spawn_local(close(stream.into_io()))),
        Upstream::Dedicated(tunnel) => drop(tunnel),
        Upstream::Originated(opened) => drop(tokio::task::spawn_local(close(opened.io))),
    }
    heard
}

/// Waits until it is clear what the client speaks. Who has begun to say it has so long for the rest.
async fn client(socket: &TcpStream, ear: Ear) -> Said {
    // Who says nothing costs no buffer.
    if socket.readable().await.is_err() {
        return Said::Bytes;
    }
    let limit = if ear.tls { ClientHello::LIMIT.max(MAX_FIRST_LINE) } else { MAX_FIRST_LINE };
    let mut listener = Listener::new(ear);
    let said = timeout(FIRST_LINE_DEADLINE, peek(socket, limit, |fresh| listener.hear(fresh))).await;
    said.ok().and_then(Result::ok).flatten().unwrap_or_else(|| listener.end())
}

/// Hears a client's first bytes.
#[derive(Debug)]
struct Listener {
    ear: Ear,
    first: Vec<u8>,
    hello: ClientHello,
}

impl Listener {
    fn new(ear: Ear) -> Self {
        Self { ear, first: Vec::new(), hello: ClientHello::default() }
    }

    /// None: more has to be heard.
    fn hear(&mut self, fresh: &[u8]) -> Option<Said> {
        let first = self.first.first().or(fresh.first())?;
        if self.ear.tls && TLS_RECORDS.contains(first) {
            self.first.push(*first);
            return self.hello.read(fresh).map(|name| Said::Tls(named(name)));
        }
        if !self.ear.http {
            return Some(Said::Bytes);
        }
        self.first.extend_from_slice(fresh);
        match spoken(&self.first) {
            Spoken::Http1 => Some(Said::Http { h2: false }),
            Spoken::Http2 => Some(Said::Http { h2: true }),
            Spoken::Other => Some(Said::Bytes),
            Spoken::Unclear => None,
        }
    }

    /// There will be no more.
    fn end(&self) -> Said {
        match self.first.first() {
            Some(first) if self.ear.tls && TLS_RECORDS.contains(first) => Said::Tls("".into()),
            _ => Said::Bytes,
        }
    }
}

fn named(name: ServerName) -> Arc<str> {
    match name {
        ServerName::Named(name) => name,
        ServerName::Unreadable => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    /// A ClientHello for `a.example`, of TLS 1.2 without anything else.
    fn hello() -> Vec<u8> {
        let name = b"a.example";
        let entry = [&[0, 0, name.len() as u8][..], name].concat();
        let list = [&[0, entry.len() as u8][..], &entry].concat();
        let extension = [&[0, 0, 0, list.len() as u8][..], &list].concat();
        let extensions = [&[0, extension.len() as u8][..], &extension].concat();
        let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &extensions].concat();
        let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
        [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
    }

    fn said(http: bool, tls: bool, parts: &[&[u8]]) -> Option<Said> {
        let mut listener = Listener::new(Ear { http, tls });
        parts.iter().find_map(|part| listener.hear(part))
    }

    #[test]
    fn what_is_listened_for_is_heard_however_it_is_split() {
        let hello = hello();
        let tls = Some(Said::Tls("a.example".into()));
        let (first, rest) = hello.split_at(1);
        for http in [false, true] {
            assert_eq!(said(http, true, &[&hello]), tls);
            assert_eq!(said(http, true, &[first, rest]), tls);
            assert_eq!(said(http, true, &[first]), None, "there is more to come");
            assert_eq!(said(http, true, &[b"\x16bad!\x00"]), Some(Said::Tls("".into())), "unreadable");
        }
        assert_eq!(said(true, false, &[&hello]), Some(Said::Bytes), "nobody asked for TLS");
        assert_eq!(said(true, true, &[b"GET / HT", b"TP/1.1\r\n"]), Some(Said::Http { h2: false }));
        assert_eq!(said(true, true, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]), Some(Said::Http { h2: true }));
        assert_eq!(said(false, true, &[b"GET / HTTP/1.1\r\n"]), Some(Said::Bytes), "nobody asked for HTTP");
        assert_eq!(said(true, true, &[b"\x00\x01"]), Some(Said::Bytes));
    }

    #[test]
    fn an_early_end_is_what_it_began_as() {
        let end = |ear, bytes: &[u8]| {
            let mut listener = Listener::new(ear);
            listener.hear(bytes);
            listener.end()
        };
        let both = Ear { http: true, tls: true };
        assert_eq!(end(both, &hello()[..20]), Said::Tls("".into()));
        assert_eq!(end(both, b"GET"), Said::Bytes);
        assert_eq!(end(both, b""), Said::Bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_of_it_is_not_waited_for_for_ever() {
        let ear = Ear { http: true, tls: true };
        let hello = hello();
        for (said, expected, patience) in [
            (&b""[..], None, LAST_WORD),
            (b"GET / HTT", None, FIRST_LINE_DEADLINE),
            (&hello[..20], Some(""), FIRST_LINE_DEADLINE),
            (&hello, Some("a.example"), Duration::ZERO),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            client.write_all(said).await.unwrap();
            // What was written has arrived before time goes on.
            if !said.is_empty() {
                server.readable().await.unwrap();
            }
            let began = Instant::now();
            let heard = last_word(&server, ear).await;
            let name = match &heard {
                Some(Heard::Tls(name)) => Some(&**name),
                Some(_) => panic!("{said:?}"),
                None => None,
            };
            assert_eq!(name, expected, "{said:?}");
            assert!(began.elapsed() >= patience, "{said:?}");
        }
    }

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
