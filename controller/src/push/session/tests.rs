//! The protocol by cases.

use super::*;

pub(super) const TYPE: &str = "type";

pub(super) fn resource(version: &str, aliases: &[&str]) -> Resource {
    Resource {
        version: version.into(),
        body: version.as_bytes().to_vec().into(),
        aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
    }
}

fn table(resources: &[(&str, &str)]) -> Table {
    let mut table = Table::default();
    for (name, version) in resources {
        table.set(name, Some(resource(version, &[])));
    }
    table
}

fn first(subscribe: &[&str], held: &[(&str, &str)]) -> Request {
    Request {
        type_url: TYPE.into(),
        subscribe: subscribe.iter().map(ToString::to_string).collect(),
        initial_versions: held
            .iter()
            .map(|(name, version)| (name.to_string(), version.to_string()))
            .collect(),
        ..Request::default()
    }
}

pub(super) fn ack(response: &Response) -> Request {
    Request { type_url: TYPE.into(), nonce: response.nonce.clone(), ..Request::default() }
}

pub(super) fn nack(response: &Response) -> Request {
    Request { error: Some("no".into()), ..ack(response) }
}

pub(super) fn change(subscribe: &[&str], unsubscribe: &[&str]) -> Request {
    let unsubscribe = unsubscribe.iter().map(ToString::to_string).collect();
    Request { unsubscribe, ..first(subscribe, &[]) }
}

fn start(request: Request) -> Session {
    let mut session = Session::new(usize::MAX);
    session.on_request(request).unwrap();
    session
}

fn seen(response: Option<Response>) -> Option<(Vec<String>, Vec<String>)> {
    response.map(|response| {
        let resource = |(name, resource): &(Arc<str>, Arc<Resource>)| format!("{name}={}", resource.version);
        (
            response.resources.iter().map(resource).collect(),
            response.removed.iter().map(ToString::to_string).collect(),
        )
    })
}

fn sent(resources: &[&str], removed: &[&str]) -> Option<(Vec<String>, Vec<String>)> {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    Some((owned(resources), owned(removed)))
}

#[test]
fn the_first_request_decides_what_is_followed() {
    let table = table(&[("a", "1"), ("b", "1")]);
    for (request, expected) in [
        (first(&[], &[]), sent(&["a=1", "b=1"], &[])),
        (first(&["*"], &[]), sent(&["a=1", "b=1"], &[])),
        (first(&["a"], &[]), sent(&["a=1"], &[])),
        (first(&["a", "c"], &[]), sent(&["a=1"], &["c"])),
        // Resuming: the difference only, and an answer even when there is none.
        (first(&["*"], &[("a", "1"), ("b", "0"), ("gone", "1")]), sent(&["b=1"], &["gone"])),
        (first(&["*"], &[("a", "1"), ("b", "1")]), sent(&[], &[])),
    ] {
        assert_eq!(seen(start(request.clone()).poll(|_| &table)), expected, "{request:?}");
    }
}

#[test]
fn unknown_types_get_an_empty_answer_once() {
    let empty = Table::default();
    let mut session = start(first(&["*"], &[]));
    assert_eq!(seen(session.poll(|_| &empty)), sent(&[], &[]));
    assert_eq!(session.poll(|_| &empty), None);
}

#[test]
fn one_response_is_in_flight_and_changes_add_up() {
    let mut table = table(&[("a", "1")]);
    let mut session = start(first(&["*"], &[]));
    let response = session.poll(|_| &table).unwrap();
    table.set("a", Some(resource("2", &[])));
    table.set("b", Some(resource("1", &[])));
    table.set("a", Some(resource("3", &[])));
    table.set("b", None);
    assert_eq!(session.poll(|_| &table), None);
    assert_eq!(session.on_request(Request { nonce: "other".into(), ..ack(&response) }), Ok(Event::Stale));
    assert_eq!(session.poll(|_| &table), None);
    assert_eq!(session.on_request(ack(&response)), Ok(Event::Ack));
    assert_eq!(seen(session.poll(|_| &table)), sent(&["a=3"], &[]));
}

#[test]
fn a_rejected_version_is_not_sent_again() {
    let mut table = table(&[("a", "1")]);
    let mut session = start(first(&["*"], &[]));
    let response = session.poll(|_| &table).unwrap();
    assert_eq!(session.on_request(nack(&response)), Ok(Event::Nack { reason: "no".into() }));
    assert_eq!(session.poll(|_| &table), None);
    table.set("a", Some(resource("2", &[])));
    assert_eq!(seen(session.poll(|_| &table)), sent(&["a=2"], &[]));
}

#[test]
fn large_states_go_in_pieces() {
    let table = table(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let mut session = Session::new(1);
    session.on_request(first(&["*"], &[])).unwrap();
    for name in ["a=1", "b=1", "c=1"] {
        let response = session.poll(|_| &table).unwrap();
        session.on_request(ack(&response)).unwrap();
        assert_eq!(seen(Some(response)), sent(&[name], &[]));
    }
    assert_eq!(session.poll(|_| &table), None);
}

#[test]
fn aliases_follow_the_resource_that_has_them() {
    let mut table = Table::default();
    table.set("pod-1", Some(resource("1", &["/10.0.0.1"])));
    let mut session = start(first(&["/10.0.0.1", "/10.0.0.9"], &[]));
    let step = |session: &mut Session, table: &Table| {
        let response = session.poll(|_| table);
        response.iter().for_each(|response| drop(session.on_request(ack(response))));
        seen(response)
    };
    assert_eq!(step(&mut session, &table), sent(&["pod-1=1"], &["/10.0.0.9"]));
    // The address moves to another pod.
    table.set("pod-1", Some(resource("2", &["/10.0.0.2"])));
    table.set("pod-2", Some(resource("1", &["/10.0.0.1"])));
    assert_eq!(step(&mut session, &table), sent(&["pod-2=1"], &["pod-1"]));
    table.set("pod-3", Some(resource("1", &["/10.0.0.9"])));
    assert_eq!(step(&mut session, &table), sent(&["pod-3=1"], &[]));
    session.on_request(change(&[], &["/10.0.0.1"])).unwrap();
    assert_eq!(step(&mut session, &table), sent(&[], &["pod-2"]));
}

#[test]
fn asking_again_sends_again_and_leaving_the_wildcard_keeps_what_was_named() {
    let table = table(&[("a", "1"), ("b", "1")]);
    let mut session = start(first(&["*"], &[]));
    let mut step = |request: Request| {
        session.on_request(request).unwrap();
        let response = session.poll(|_| &table);
        response.iter().for_each(|response| drop(session.on_request(ack(response))));
        seen(response)
    };
    assert_eq!(step(change(&[], &[])), sent(&["a=1", "b=1"], &[]));
    assert_eq!(step(change(&["a"], &[])), sent(&["a=1"], &[]));
    assert_eq!(step(change(&[], &["*"])), sent(&[], &["b"]));
    assert_eq!(step(change(&["*"], &[])), sent(&["b=1"], &[]));
    assert_eq!(step(change(&[], &["a"])), sent(&["a=1"], &[]));
}

#[test]
fn a_client_has_limits() {
    let mut session = Session::new(1);
    let request = |type_url: String| Request { type_url, ..Request::default() };
    assert_eq!(session.on_request(request(String::new())), Err(SessionError::NoType));
    for number in 0..MAX_TYPES {
        session.on_request(request(number.to_string())).unwrap();
    }
    assert!(session.on_request(request("one more".into())).is_err());
    assert!(session.on_request(first(&[&"x".repeat(MAX_NAME + 1)], &[])).is_err());
}
