//! The session by interest, and the client with it.

use super::client::{Agent, Controller};
use super::*;
use crate::store::{MeshChange, Sought, Store};
use crate::xds::Session;
use crate::xds::session::name_of;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;
use warren_common::proto::MORE_FOLLOWS;
use warren_common::proto::discovery::DeltaDiscoveryRequest;

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn ip(last: u8) -> Sought {
    address(last).into()
}

fn named(name: &str) -> Sought {
    key(name).into()
}

fn with_alias(resource: Resource, last: u8) -> Resource {
    Resource { aliases: vec![format!("/{}", ip(last))], ..resource }
}

/// Subscribed, unsubscribed.
fn names<'r>(request: &'r DeltaDiscoveryRequest) -> (Vec<&'r str>, Vec<&'r str>) {
    let texts = |names: &'r [String]| names.iter().map(String::as_str).collect();
    (texts(&request.resource_names_subscribe), texts(&request.resource_names_unsubscribe))
}

fn answered(session: &Session) -> Vec<Sought> {
    session.answered().unwrap().iter().cloned().collect()
}

#[test]
fn an_address_is_asked_for_until_it_is_answered_and_resumed_then() {
    let mut session = Session::by_interest();
    let first = session.on_connect().split_off(1);
    assert_eq!(names(&first[0]), (vec!["*"], vec!["*"]), "nothing for now");
    assert_eq!(names(&first[1]), (vec![], vec![]), "namespaces: all");

    let request = session.ask(&[ip(1), ip(2), ip(3)]).unwrap();
    assert_eq!(names(&request), (vec!["/10.0.0.1", "/10.0.0.2", "/10.0.0.3"], vec![]));
    let outcome = session.on_response(response(
        "1",
        vec![with_alias(good("a", "1"), 1), with_alias(good("unasked", "1"), 9)],
        &["/10.0.0.2", "shop/gone"],
    ));
    assert_eq!(
        outcome.changes,
        [
            MeshChange::Service(arc("a")),
            MeshChange::Told(ip(1)),
            MeshChange::Service(arc("unasked")),
            MeshChange::Absent(ip(2)),
            MeshChange::Remove("shop/gone".to_owned())
        ]
    );
    assert_eq!(answered(&session), [ip(1), ip(2)]);

    // What has an answer is resumed with its versions; what has none is asked for, so that it is told in any case.
    let first = session.on_connect().split_off(1);
    assert_eq!(names(&first[0]), (vec!["/10.0.0.1", "/10.0.0.2"], vec![]));
    assert_eq!(first[0].initial_resource_versions.len(), 2);
    assert_eq!(names(&first[1]), (vec!["/10.0.0.3"], vec![]));
    assert!(first[1].initial_resource_versions.is_empty());

    // Asked for again: what is known of it counts no more.
    session.ask(&[ip(1)]).unwrap();
    assert_eq!(answered(&session), [ip(2)]);
    assert_eq!(names(&session.leave(&[ip(1), ip(2)]).unwrap()), (vec![], vec!["/10.0.0.1", "/10.0.0.2"]));
    // An answer to what was left is late.
    let late = session.on_response(response("2", vec![with_alias(good("a", "2"), 1)], &["/10.0.0.2"]));
    assert!(answered(&session).is_empty());
    // Whoever gets that address later will not be told.
    assert_eq!(late.changes, [MeshChange::Service(arc("a"))]);

    let mut everything = Session::new();
    assert!(everything.ask(&[ip(1)]).is_none() && everything.leave(&[ip(1)]).is_none());
    assert!(everything.answered().is_none());
}

#[test]
fn a_service_is_asked_for_by_its_own_name() {
    let mut session = Session::by_interest();
    let request = session.ask(&[named("here"), named("late"), named("none"), ip(1)]).unwrap();
    assert_eq!(names(&request), (vec!["shop/here", "shop/late", "shop/none", "/10.0.0.1"], vec![]));
    let outcome = session.on_response(response(
        "1",
        vec![with_alias(good("here", "1"), 1), good("unasked", "1")],
        &["shop/none", "shop/gone"],
    ));
    let removed = |name: &str| MeshChange::Remove(format!("shop/{name}"));
    assert_eq!(
        outcome.changes,
        [
            MeshChange::Service(arc("here")),
            MeshChange::Told(ip(1)),
            MeshChange::Told(named("here")),
            MeshChange::Service(arc("unasked")),
            removed("none"),
            MeshChange::Absent(named("none")),
            removed("gone"),
        ]
    );
    assert_eq!(answered(&session), [ip(1), named("here"), named("none")]);
    let first = session.on_connect().split_off(1);
    assert_eq!(names(&first[0]), (vec!["/10.0.0.1", "shop/here", "shop/none"], vec![]));
    assert_eq!(names(&first[1]), (vec!["shop/late"], vec![]));

    // One that cannot be read is there, and one that goes is not.
    let outcome =
        session.on_response(response("2", vec![bad("none", |r| r.resource = None)], &["shop/here"]));
    assert_eq!(
        outcome.changes,
        [MeshChange::Forget(named("none")), removed("here"), MeshChange::Absent(named("here"))]
    );
    assert!(matches!(&outcome.refused[..], [(one, _)] if *one == named("none")), "{:?}", outcome.refused);
    assert_eq!(answered(&session), [ip(1), named("here")]);
    assert_eq!(names(&session.leave(&[named("here")]).unwrap()), (vec![], vec!["shop/here"]));
    // Nobody asks any more: that it goes says nothing about later.
    let outcome = session.on_response(response("3", vec![], &["shop/here"]));
    assert_eq!(outcome.changes, [removed("here")]);
}

#[test]
fn an_answer_that_cannot_be_used_is_no_answer() {
    let mut session = Session::by_interest();
    session.ask(&[ip(1)]).unwrap();
    session.on_response(response("1", vec![], &["/10.0.0.1"]));
    assert_eq!(answered(&session), [ip(1)]);
    // Somebody got the address, and nobody here can read who: it is not outside the mesh any more.
    let spoiled = bad("x", |r| r.resource.as_mut().unwrap().value = vec![0xff]);
    let outcome = session.on_response(response("2", vec![with_alias(spoiled, 1)], &[]));
    assert_eq!(outcome.changes, [MeshChange::Forget(ip(1))]);
    assert_eq!(outcome.refused.len(), 1);
    assert!(outcome.refused[0].1.contains("malformed"), "{:?}", outcome.refused);
    assert!(answered(&session).is_empty());
}

#[test]
fn a_response_that_cannot_be_read_at_all_is_rejected() {
    let mut unreadable = response("1", vec![good("a", "1")], &[]);
    unreadable.resources.push(vec![0xff].into());
    let outcome = Session::new().on_response(unreadable);
    assert_eq!((outcome.changes.len(), outcome.rejected.len()), (1, 1));
    assert!(outcome.request.error_detail.unwrap().message.contains("cannot be read"));
}

#[tokio::test]
async fn a_state_in_parts_is_applied_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "t").unwrap();
    let mut controller = Controller::start(folder.path()).await;
    let agent = Agent::start(folder.path(), &controller.url);
    let part = |nonce, name| DeltaDiscoveryResponse {
        system_version_info: MORE_FOLLOWS.to_owned(),
        ..response(nonce, vec![good(name, "1")], &[])
    };
    let mut stream = controller.stream().await;
    stream.request().await;
    stream.send(policies("0", vec![], &[])).await;
    stream.send(part("1", "a")).await;
    stream.request().await;
    assert!(!agent.readiness.is_ready() && agent.store.load().services().len() == 0);
    // The stream breaks in the middle: the next one brings the rest.
    drop(stream);
    let mut stream = controller.stream().await;
    assert_eq!(stream.request().await.initial_resource_versions.len(), 1);
    // Policies that come with it belong to it.
    stream
        .send(DeltaDiscoveryResponse {
            system_version_info: MORE_FOLLOWS.to_owned(),
            ..policies("2", vec![good_policy("p", "1")], &[])
        })
        .await;
    stream.send(part("3", "b")).await;
    stream.request().await;
    assert!(!agent.readiness.is_ready());
    stream.send(policies("4", vec![], &[])).await;
    agent.has("a").await;
    agent.has("b").await;
    assert!(agent.readiness.is_ready() && agent.store.load().policies().list().count() == 1);
    agent.stop().await;
}

#[tokio::test]
async fn what_was_asked_for_outlives_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "t").unwrap();
    let mut controller = Controller::start(folder.path()).await;
    let agent = Agent::by_interest(folder.path(), &controller.url);
    let mut stream = controller.stream().await;
    let first = stream.request().await;
    assert_eq!(names(&first), (vec!["*"], vec!["*"]));
    stream.send(policies("0", vec![], &[])).await;
    stream.send(response("1", vec![], &[])).await;
    stream.request().await;

    let mut known = Vec::new();
    for (sought, resources) in [
        (ip(1), vec![with_alias(service_at("a", 1), 1)]),
        (ip(2), vec![]),
        (named("b"), vec![good("b", "1")]),
        (named("c"), vec![]),
    ] {
        let name = name_of(&sought);
        let learning = tokio::spawn({
            let (interest, store, sought) = (agent.interest.clone(), agent.store.clone(), sought.clone());
            async move { interest.learn(&store, sought).await }
        });
        let asked = stream.request().await;
        assert_eq!(names(&asked), (vec![name.as_str()], vec![]));
        let removed = if resources.is_empty() { vec![name.as_str()] } else { vec![] };
        stream.send(response(&name, resources, &removed)).await;
        stream.request().await;
        learning.await.unwrap().unwrap();
        known.push(sought);
    }
    assert_eq!(agent.status.get().followed, Some(4));
    agent.stop().await;
    controller.task.abort();

    // Without a controller: what was known is known, the rest is not guessed.
    let agent = Agent::by_interest(folder.path(), "https://127.0.0.1:9");
    agent.has("a").await;
    let mesh = agent.store.load();
    assert!(known.iter().all(|one| mesh.tells(one)) && !mesh.tells(&ip(3)) && !mesh.tells(&named("d")));
    let absent: BTreeSet<_> = mesh.absent().cloned().collect();
    assert_eq!((agent.interest.followed(), absent), (4, BTreeSet::from([ip(2), named("c")])));
    agent.stop().await;

    // Taken for everything, it would make the rest of the mesh an outside.
    let path = folder.path().join("state/mesh.pb");
    let error = crate::xds::disk::restore(&path, &mut Session::new(), &Store::new()).unwrap_err();
    assert!(error.to_string().contains("subscribed by interest"), "{error}");
}

#[tokio::test]
async fn where_rules_lead_is_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "t").unwrap();
    let mut controller = Controller::start(folder.path()).await;
    let agent = Agent::by_interest(folder.path(), &controller.url);
    let mut stream = controller.stream().await;
    stream.request().await;
    stream.send(routes("0", vec![leading("web", "1", "other")], &[])).await;
    stream.send(policies("1", vec![], &[])).await;
    stream.send(response("2", vec![], &[])).await;
    stream.request().await;

    // Once somebody dials what they are for.
    agent.interest.used(address(1));
    assert_eq!(names(&stream.request().await), (vec!["/10.0.0.1"], vec![]));
    stream.send(response("3", vec![with_alias(service_at("web", 1), 1)], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "3");
    assert_eq!(names(&stream.request().await), (vec!["shop/other"], vec![]));
    stream.send(response("4", vec![good("other", "1")], &[])).await;
    assert_eq!(stream.request().await.response_nonce, "4");
    agent.has("other").await;
    // And when they change.
    stream.send(routes("5", vec![leading("web", "2", "new")], &[])).await;
    assert_eq!(names(&stream.request().await), (vec!["shop/new"], vec![]));
    assert_eq!(agent.interest.followed(), 3);
    agent.stop().await;
}

/// The rules of the service `from`, which send connections to another one.
fn leading(from: &str, version: &str, to: &str) -> Resource {
    let backend = json!({ "to": { "service": { "service": key(to), "port": 80 } }, "weight": 1 });
    let table = json!({ "api": "istio", "objects": [], "rules": { "tcp": [{ "backends": [backend] }] } });
    let said = serde_json::from_value(json!({ "service": key(from), "tables": [table] })).unwrap();
    let value = encode_traffic(&said);
    Resource {
        resource: Some(prost_types::Any { type_url: TRAFFIC_TYPE_URL.to_owned(), value }),
        ..traffic(from, version)
    }
}

fn service_at(name: &str, last: u8) -> Resource {
    let service = Service { addresses: vec![address(last)], ..service(name) };
    let mut resource = good(name, "1");
    resource.resource.as_mut().unwrap().value = encode_address(&MeshResource::Service(Box::new(service)));
    resource
}
