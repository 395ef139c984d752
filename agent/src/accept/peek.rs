//! A look at what a socket has received, which stays where it is.

use std::io;
use std::os::fd::AsFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// Shows the first bytes of what was received and not read to `look`, more each time that more has come, until it has an
/// answer; None: the other side has ended before, or all of the first `limit` bytes were no answer.
///
/// The stream itself is not touched: it is watched through a descriptor of its own, for "there is nothing more to see" must
/// not become "there is nothing to read" for whoever reads it later.
///
/// # Errors
/// When the connection has failed.
pub async fn peek<T>(
    stream: &TcpStream,
    limit: usize,
    mut look: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let copy = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
    // SAFETY: the AsyncFd owns the descriptor, which the TcpStream keeps open and the same until it is dropped.
    #[allow(unsafe_code, reason = "tokio asks for the promise that the descriptor stays the same")]
    let watched = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE)? };
    let mut buffer = vec![0; limit];
    let mut seen = 0;
    loop {
        let mut ready = watched.readable().await?;
        let ended = ready.ready().is_read_closed();
        let peeked = ready.try_io(|watched| match watched.get_ref().peek(&mut buffer) {
            // The kernel tells of each arrival, so the next one is waited for.
            Ok(count) if count <= seen && !ended => Err(io::ErrorKind::WouldBlock.into()),
            peeked => peeked,
        });
        let count = match peeked {
            Ok(count) => count?,
            Err(_) => continue,
        };
        if let Some(fresh) = buffer.get(seen..count)
            && let Some(found) = look(fresh)
        {
            return Ok(Some(found));
        }
        if count == limit || (ended && count <= seen) {
            return Ok(None);
        }
        seen = seen.max(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// Answers with all it has seen once that ends with a dot.
    fn until_dot() -> impl FnMut(&[u8]) -> Option<String> {
        let mut all = String::new();
        move |bytes| {
            all += std::str::from_utf8(bytes).unwrap();
            all.ends_with('.').then(|| all.clone())
        }
    }

    #[tokio::test]
    async fn bytes_are_seen_as_they_come_and_stay() {
        let (mut client, mut server) = pair().await;
        let looking = tokio::spawn(async move { (peek(&server, 100, until_dot()).await, server) });
        for part in ["a", "bc", "."] {
            client.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (found, again) = looking.await.unwrap();
        assert_eq!(found.unwrap().as_deref(), Some("abc."));
        server = again;
        let mut read = [0; 4];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abc.");
    }

    #[tokio::test]
    async fn who_looked_in_vain_has_not_hidden_anything_from_who_reads() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"ab").await.unwrap();
        let looking = peek(&server, 100, until_dot());
        assert!(
            tokio::time::timeout(Duration::from_millis(50), looking).await.is_err(),
            "it went on waiting"
        );
        let mut read = [0; 2];
        tokio::time::timeout(Duration::from_secs(5), server.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"ab");
    }

    #[tokio::test]
    async fn the_end_and_the_limit_end_the_look() {
        let (mut client, server) = pair().await;
        client.write_all(b"abcdef").await.unwrap();
        assert_eq!(peek(&server, 4, until_dot()).await.unwrap(), None);
        drop(client);
        assert_eq!(peek(&server, 100, until_dot()).await.unwrap(), None);
        let (client, server) = pair().await;
        drop(client);
        assert_eq!(peek(&server, 100, until_dot()).await.unwrap(), None);
    }
}
