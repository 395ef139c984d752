use super::*;
use crate::store::MeshChange;

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_the_answer_and_no_longer_than_it_may() {
    let (store, interest) = (Arc::new(Store::by_interest()), Interest::asking());
    interest.away(None);
    let waiting = tokio::spawn({
        let (store, interest) = (Arc::clone(&store), interest.clone());
        async move { interest.learn(&store, ip(1)).await }
    });
    assert_eq!(interest.demand().await, Demand { leave: vec![], ask: vec![ip(1)] });
    store.apply(vec![MeshChange::Absent(ip(1))]);
    waiting.await.unwrap().unwrap();
    // Known: nothing to wait for, nothing to ask.
    interest.learn(&store, ip(1)).await.unwrap();
    for (happens, expected) in [
        (None, "not answered within 5 s"),
        (Some("it is malformed"), "cannot be used: it is malformed"),
        (Some("away"), "the controller is away: gone fishing"),
    ] {
        match happens {
            Some("away") => interest.away(Some("gone fishing")),
            Some(reason) => interest.refuse(ip(2), reason),
            None => {}
        }
        // Asked for again, so an old refusal counts no more.
        let refused_while_waiting = async {
            interest.demand().await;
            if let Some(reason) = happens.filter(|happens| *happens != "away") {
                interest.refuse(ip(2), reason);
            }
            std::future::pending::<()>().await;
        };
        let started = Instant::now();
        let error = tokio::select! {
            learned = interest.learn(&store, ip(2)) => learned.unwrap_err().to_string(),
            () = refused_while_waiting => unreachable!(),
        };
        assert!(error.contains(expected) && error.contains("10.0.0.2"), "{error}");
        assert_eq!(started.elapsed(), DEADLINE);
    }
}

#[tokio::test(start_paused = true)]
async fn unused_addresses_are_left_and_in_wildcard_nothing_is_followed() {
    let interest = Interest::asking();
    interest.restore([ip(1), ip(2)]);
    tokio::time::advance(Duration::from_secs(60)).await;
    interest.used("::ffff:10.0.0.2".parse().unwrap());
    assert_eq!(interest.demand().await, Demand { leave: vec![ip(1)], ask: vec![] });
    assert_eq!(interest.demand().await, Demand { leave: vec![ip(2)], ask: vec![] });
    assert_eq!(interest.followed(), 0);

    let interest = Interest::everything();
    interest.used(ip(1));
    assert_eq!((interest.asks(), interest.followed()), (false, 0));
}
