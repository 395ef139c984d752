use super::*;
use crate::pods::testing::pod;
use crate::store::MeshChange;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use warren_common::model::traffic::Traffic;
use warren_common::model::{Service, ServiceName, Workload};

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn ip(last: u8) -> Sought {
    address(last).into()
}

fn name(short: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: short.into() }
}

fn asked(all: &[Sought]) -> Demand {
    Demand { leave: vec![], ask: all.to_vec() }
}

fn service(short: &str, addresses: &[u8]) -> Service {
    let addresses: Vec<_> = addresses.iter().map(|last| address(*last)).collect();
    let service = json!({
        "name": short, "key": name(short), "addresses": addresses, "ports": [], "publish_not_ready": false,
    });
    serde_json::from_value(service).unwrap()
}

/// The rules of a service send connections to these: a name, and perhaps a subset after a slash.
fn traffic(of: &str, to: &[&str]) -> Traffic {
    let backend = |to: &&str| -> Value {
        let (short, subset) = to.split_once('/').map_or((*to, None), |(short, subset)| (short, Some(subset)));
        json!({ "to": { "service": { "service": name(short), "port": 80, "subset": subset } }, "weight": 1 })
    };
    let backends: Vec<_> = to.iter().map(backend).collect();
    let table = json!({ "api": "istio", "objects": [], "rules": { "tcp": [{ "backends": backends }] } });
    serde_json::from_value(json!({ "service": name(of), "tables": [table] })).unwrap()
}

/// A service at these addresses, and its rules.
fn ruled(short: &str, addresses: &[u8], to: &[&str]) -> [MeshChange; 2] {
    let service = MeshChange::Service(Arc::new(service(short, addresses)));
    [service, MeshChange::Traffic(Arc::new(traffic(short, to)))]
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_the_answer_and_no_longer_than_it_may() {
    let (store, interest) = (Arc::new(Store::by_interest()), Interest::asking());
    interest.away(None);
    let waiting = tokio::spawn({
        let (store, interest) = (Arc::clone(&store), interest.clone());
        async move { interest.learn(&store, ip(1)).await }
    });
    assert_eq!(interest.demand(&store).await, asked(&[ip(1)]));
    store.apply(vec![MeshChange::Absent(ip(1))]);
    waiting.await.unwrap().unwrap();
    // Known: nothing to wait for, nothing to ask.
    interest.learn(&store, ip(1)).await.unwrap();
    for (happens, expected, after) in [
        (None, "not answered within 5 s", DEADLINE),
        (Some("it is malformed"), "cannot be used: it is malformed", Duration::ZERO),
        (Some("away"), "the controller is away: gone fishing", DEADLINE),
    ] {
        match happens {
            Some("away") => interest.away(Some("gone fishing")),
            Some(reason) => interest.refuse(&ip(2), reason),
            None => {}
        }
        // Asked for again, so an old refusal counts no more.
        let refused_while_waiting = async {
            interest.demand(&store).await;
            if let Some(reason) = happens.filter(|happens| *happens != "away") {
                interest.refuse(&ip(2), reason);
            }
            std::future::pending::<()>().await;
        };
        let started = Instant::now();
        let error = tokio::select! {
            learned = interest.learn(&store, ip(2)) => learned.unwrap_err().to_string(),
            () = refused_while_waiting => unreachable!(),
        };
        assert!(error.contains(expected) && error.contains("10.0.0.2"), "{error}");
        assert_eq!(started.elapsed(), after);
    }
}

#[tokio::test(start_paused = true)]
async fn unused_addresses_are_left_and_in_wildcard_nothing_is_followed() {
    let (store, interest) = (Store::by_interest(), Interest::asking());
    interest.restore([ip(1), ip(2)]);
    tokio::time::advance(Duration::from_secs(60)).await;
    interest.used("::ffff:10.0.0.2".parse().unwrap());
    assert_eq!(interest.demand(&store).await, Demand { leave: vec![ip(1)], ask: vec![] });
    assert_eq!(interest.demand(&store).await, Demand { leave: vec![ip(2)], ask: vec![] });
    assert_eq!(interest.followed(), 0);

    let interest = Interest::everything();
    interest.used(address(1));
    assert_eq!((interest.asks(), interest.followed()), (false, 0));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_rules_lead_to_is_waited_for_as_an_address_is() {
    let (store, interest) = (Arc::new(Store::by_interest()), Interest::asking());
    interest.away(None);
    for there_is_one in [true, false] {
        let other = name(if there_is_one { "other" } else { "none" });
        let waiting = tokio::spawn({
            let (store, interest, other) = (Arc::clone(&store), interest.clone(), other.clone());
            async move { interest.learn(&store, other).await }
        });
        assert_eq!(interest.demand(&store).await, asked(&[other.clone().into()]));
        store.apply(vec![match there_is_one {
            true => MeshChange::Service(Arc::new(service("other", &[9]))),
            false => MeshChange::Absent(other.clone().into()),
        }]);
        waiting.await.unwrap().unwrap();
        assert_eq!(store.load().service(&other).is_some(), there_is_one);
    }
    let error = interest.learn(&store, name("silent")).await.unwrap_err().to_string();
    assert!(
        error.contains("the service shop/silent") && error.contains("not answered within 5 s"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn where_rules_lead_is_followed_as_long_as_what_leads_there() {
    let (store, interest) = (Store::by_interest(), Interest::asking());
    let apply = |changes: Vec<MeshChange>| {
        store.apply(changes);
        interest.lead(&store.guard());
    };
    let named = |short: &str| Sought::from(name(short));
    // Rules of services that nobody dials lead nowhere, be they known.
    apply([ruled("web", &[1], &["other", "web"]), ruled("aside", &[2], &["nobody"])].concat());
    assert_eq!(interest.followed(), 0);
    interest.used(address(1));
    interest.lead(&store.guard());
    assert_eq!(interest.demand(&store).await, asked(&[ip(1), named("other")]));
    // The rules of where they lead are not asked.
    apply(ruled("other", &[3], &["third"]).to_vec());
    assert_eq!(interest.followed(), 2);
    // They change, while connections are open.
    apply(ruled("web", &[1], &["other", "new"]).to_vec());
    assert_eq!(interest.demand(&store).await, asked(&[named("new")]));

    // It is in use as long as the address is: both are left at the same time.
    tokio::time::advance(Duration::from_secs(300)).await;
    interest.used(address(1));
    let both = Demand { leave: vec![ip(1), named("new"), named("other")], ask: vec![] };
    assert_eq!(interest.demand(&store).await, both);
    assert!(interest.0.started.elapsed() >= Duration::from_secs(900));
}

#[tokio::test(start_paused = true)]
async fn rules_of_a_service_without_an_address_lead_on_from_its_endpoints() {
    let (store, interest) = (Store::by_interest(), Interest::asking());
    let served = BTreeMap::from([(name("db"), vec![])]);
    let endpoint =
        Workload { services: Arc::new(served), ..Workload::clone(&pod("db-0", "db-0", &[address(4)], true)) };
    store.apply(ruled("db", &[], &["other"]).to_vec());
    store.apply(vec![MeshChange::Workload(Arc::new(endpoint))]);
    interest.lead(&store.guard());
    assert_eq!(interest.followed(), 0, "nobody dials it");
    interest.used(address(4));
    interest.lead(&store.guard());
    assert_eq!(interest.demand(&store).await, asked(&[ip(4), name("other").into()]));
}

#[test]
fn what_comes_along_with_a_service_is_not_asked_for() {
    for (addresses, to, expected) in [
        (&[1][..], &["web", "other"][..], &["other"][..]),
        (&[1], &["web/v1", "other/v1"], &["other"]),
        (&[], &["web", "other"], &["other"]),
        // Only those endpoints came that were dialled.
        (&[], &["web/v1", "other"], &["web", "other"]),
    ] {
        let (service, traffic) = (service("web", addresses), traffic("web", to));
        let found: Vec<_> = elsewhere(&service, &traffic).map(|name| &*name.hostname).collect();
        assert_eq!(found, expected, "{addresses:?} {to:?}");
    }
}
