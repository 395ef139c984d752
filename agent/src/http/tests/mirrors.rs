//! Copies of requests whose bodies come late, too long, or for nobody.

use super::super::mirror::under_way;
use super::world::{World, body, forward, run, script, text, to};
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Duration, Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A service whose requests are copied to others, and what those have got.
fn mirrored(shadows: &[&str]) -> (Rc<World>, Rc<RefCell<Vec<String>>>) {
    let mirror = |name| json!({"to": to(name)["to"], "per_million": 1_000_000, "shadow_host": false});
    let mirrors: Vec<_> = shadows.iter().map(|name| mirror(name)).collect();
    let world = World::new(&json!([forward("web", json!({"mirrors": mirrors}))]));
    let seen: Rc<RefCell<Vec<String>>> = Rc::default();
    for name in shadows {
        let (name, seen) = ((*name).to_owned(), Rc::clone(&seen));
        world.answers(&name.clone(), move |request| {
            let (name, seen) = (name.clone(), Rc::clone(&seen));
            async move {
                let got = format!("{name} {}", body(request).await);
                seen.borrow_mut().push(got);
                text(200, "nobody hears this")
            }
        });
    }
    (world, seen)
}

/// A client whose request has begun.
async fn begun(world: &Rc<World>, length: usize) -> DuplexStream {
    let mut client = world.connect(false);
    let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    sleep(SECOND).await;
    client
}

#[test]
fn each_mirror_gets_a_body_that_comes_late() {
    run(async {
        let (world, seen) = mirrored(&["one", "two", "three"]);
        world.answers("web", |request| async move { text(200, body(request).await) });
        let mut client = begun(&world, 5).await;
        client.write_all(b"hello").await.unwrap();
        sleep(SECOND).await;
        seen.borrow_mut().sort();
        assert_eq!(*seen.borrow(), ["one hello", "three hello", "two hello"]);
        assert_eq!(under_way(), 0);
    });
}

#[test]
fn a_copy_that_cannot_be_sent_takes_no_place() {
    run(async {
        let (world, seen) = mirrored(&["one"]);
        world.answers("web", |request| async move { text(200, body(request).await) });
        let mut client = begun(&world, 100_000).await;
        assert_eq!(under_way(), 1);
        client.write_all(&[b'a'; 80_000]).await.unwrap();
        sleep(SECOND).await;
        assert_eq!((under_way(), seen.borrow().len()), (0, 0), "while the rest is still to come");
    });
}

#[test]
fn a_client_waits_for_no_copy_of_what_nobody_reads() {
    run(async {
        let (world, seen) = mirrored(&["one"]);
        world.endpoint("web", script(|_, stream| async move { drop(stream) }));
        let began = Instant::now();
        let mut client = begun(&world, 5).await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
        assert_eq!((under_way(), seen.borrow().len()), (0, 0));
    });
}
