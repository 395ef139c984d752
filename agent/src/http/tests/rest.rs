//! A connection between two requests gives back what it does not need, and nobody notices.

use super::super::limits::{IDLE, REST};
use super::world::{World, body, run, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Duration, Instant, sleep, timeout};

const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello";

/// Reads until so many answers have come.
async fn answers(client: &mut DuplexStream, count: usize) -> String {
    let mut all = String::new();
    while all.matches("hello").count() < count {
        let mut buffer = [0; 4096];
        let n = client.read(&mut buffer).await.unwrap();
        assert!(n > 0, "the connection ended: {all}");
        all += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    all
}

fn world() -> std::rc::Rc<World> {
    let world = World::simple("web");
    world.answers("web", |request| async move { text(200, body(request).await) });
    world
}

#[test]
fn requests_come_after_any_rest_whole_in_pieces_and_many_at_once() {
    run(async {
        let world = world();
        let mut client = world.connect(false);
        for rest in [Duration::ZERO, REST / 2, REST * 2, REST * 3] {
            sleep(rest).await;
            client.write_all(POST.as_bytes()).await.unwrap();
            answers(&mut client, 1).await;
            sleep(rest).await;
            let (first, second) = POST.split_at(20);
            client.write_all(first.as_bytes()).await.unwrap();
            sleep(rest).await;
            client.write_all(second.as_bytes()).await.unwrap();
            answers(&mut client, 1).await;
            sleep(rest).await;
            client.write_all(POST.repeat(3).as_bytes()).await.unwrap();
            answers(&mut client, 3).await;
        }
        assert_eq!(world.records().len(), 20);
    });
}

#[test]
fn a_rest_ends_with_the_client_and_with_idleness() {
    run(async {
        let world = world();
        for leaves in [true, false] {
            let mut client = world.connect(false);
            client.write_all(POST.as_bytes()).await.unwrap();
            answers(&mut client, 1).await;
            let began = Instant::now();
            if leaves {
                sleep(REST * 3).await;
                client.shutdown().await.unwrap();
            }
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            let limit = if leaves { REST * 4 } else { IDLE + REST };
            assert!(began.elapsed() <= limit, "{:?}", began.elapsed());
        }
    });
}

#[test]
fn half_a_head_after_a_rest_is_not_waited_for_for_ever() {
    run(async {
        let world = world();
        let mut client = world.connect(false);
        client.write_all(POST.as_bytes()).await.unwrap();
        answers(&mut client, 1).await;
        sleep(REST * 3).await;
        client.write_all(b"GET / HT").await.unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(600), client.read_to_end(&mut rest)).await;
        assert!(
            ended.is_ok() && began.elapsed() <= IDLE.max(Duration::from_secs(61)),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_client_that_does_not_read_gets_all_of_its_answer() {
    run(async {
        let world = World::simple("web");
        let long = "a".repeat(100_000);
        world.answers("web", move |_| {
            let long = long.clone();
            async move { text(200, long) }
        });
        let mut client = world.connect(false);
        client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.unwrap();
        sleep(REST * 5).await;
        let mut read = 0;
        while read < 100_000 {
            read += client.read(&mut [0; 1000]).await.unwrap();
            sleep(REST / 10).await;
        }
        client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("HTTP/1.1 200 OK"), "{rest}");
    });
}
