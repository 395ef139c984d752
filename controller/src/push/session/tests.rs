//! The protocol by cases.

use super::*;

pub(super) const TYPE: &str = "type";

pub(super) fn resource(version: &str, aliases: &[&str]) -> Resource {
    Resource {
        version: version.into(),
        body: version.as_bytes().to_vec().into(),
        aliases: aliases.iter().map(|alias| (*alias).into()).collect(),
        groups: Vec::new(),
    }
}

pub(super) fn behind(services: &[&str], resource: Resource) -> Resource {
    Resource { groups: services.iter().map(|name| Group::Behind((*name).into())).collect(), ..resource }
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

fn seen(response: Result<Option<Response>, SessionError>) -> Option<(Vec<String>, Vec<String>)> {
    response.unwrap().map(|response| {
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
    assert_eq!(session.poll(|_| &empty), Ok(None));
}

#[test]
fn one_response_is_in_flight_and_changes_add_up() {
    let mut table = table(&[("a", "1")]);
    let mut session = start(first(&["*"], &[]));
    let response = session.poll(|_| &table).unwrap().unwrap();
    table.set("a", Some(resource("2", &[])));
    table.set("b", Some(resource("1", &[])));
    table.set("a", Some(resource("3", &[])));
    table.set("b", None);
    assert_eq!(session.poll(|_| &table), Ok(None));
    assert_eq!(session.on_request(Request { nonce: "other".into(), ..ack(&response) }), Ok(Event::Stale));
    assert_eq!(session.poll(|_| &table), Ok(None));
    assert_eq!(session.on_request(ack(&response)), Ok(Event::Ack));
    assert_eq!(seen(session.poll(|_| &table)), sent(&["a=3"], &[]));
}

#[test]
fn a_rejected_version_is_not_sent_again() {
    let mut table = table(&[("a", "1")]);
    let mut session = start(first(&["*"], &[]));
    let response = session.poll(|_| &table).unwrap().unwrap();
    assert_eq!(session.on_request(nack(&response)), Ok(Event::Nack { reason: "no".into() }));
    assert_eq!(session.poll(|_| &table), Ok(None));
    table.set("a", Some(resource("2", &[])));
    assert_eq!(seen(session.poll(|_| &table)), sent(&["a=2"], &[]));
}

#[test]
fn large_states_go_in_pieces() {
    let table = table(&[("a", "1"), ("b", "1"), ("c", "1")]);
    let mut session = Session::new(1);
    session.on_request(first(&["*"], &[])).unwrap();
    for name in ["a=1", "b=1", "c=1"] {
        let response = session.poll(|_| &table).unwrap().unwrap();
        assert_eq!(response.more_follows, name != "c=1");
        session.on_request(ack(&response)).unwrap();
        assert_eq!(seen(Ok(Some(response))), sent(&[name], &[]));
    }
    assert_eq!(session.poll(|_| &table), Ok(None));
}

#[test]
fn aliases_follow_the_resource_that_has_them() {
    let mut table = Table::default();
    table.set("pod-1", Some(resource("1", &["/10.0.0.1"])));
    let mut session = start(first(&["/10.0.0.1", "/10.0.0.9"], &[]));
    let step = |session: &mut Session, table: &Table| {
        let response = session.poll(|_| table);
        response.iter().flatten().for_each(|response| drop(session.on_request(ack(response))));
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
        response.iter().flatten().for_each(|response| drop(session.on_request(ack(response))));
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

/// A session by names, driven step by step: what it is told after each.
struct ByName {
    session: Session,
    table: Table,
}

impl ByName {
    /// As our agents begin: nothing but the pods of their node.
    fn start(table: Table) -> Self {
        let mut session = Session::new(usize::MAX);
        session.of_node("n1");
        session.on_request(change(&["*"], &["*"])).unwrap();
        Self { session, table }
    }

    fn set(&mut self, name: &str, resource: Resource) -> Option<(Vec<String>, Vec<String>)> {
        self.table.set(name, Some(resource));
        self.told()
    }

    fn remove(&mut self, name: &str) -> Option<(Vec<String>, Vec<String>)> {
        self.table.set(name, None);
        self.told()
    }

    fn say(&mut self, request: Request) -> Option<(Vec<String>, Vec<String>)> {
        self.session.on_request(request).unwrap();
        self.told()
    }

    fn told(&mut self) -> Option<(Vec<String>, Vec<String>)> {
        let response = self.session.poll(|_| &self.table);
        response.iter().flatten().for_each(|response| drop(self.session.on_request(ack(response))));
        seen(response)
    }
}

fn on_node(node: &str, mut resource: Resource) -> Resource {
    resource.groups.push(Group::Node(node.into()));
    resource
}

#[test]
fn the_pods_of_the_clients_node_come_unasked() {
    let mut client = ByName::start(table(&[("other", "1")]));
    assert_eq!(client.told(), sent(&[], &[]));
    assert_eq!(client.set("pod", on_node("n1", resource("1", &["/10.0.0.1"]))), sent(&["pod=1"], &[]));
    assert_eq!(client.set("far", on_node("n2", resource("1", &[]))), None);
    // Asked for too, it stays when it moves away; left then, it goes.
    assert_eq!(client.say(change(&["/10.0.0.1"], &[])), sent(&["pod=1"], &[]));
    assert_eq!(client.set("pod", on_node("n2", resource("2", &["/10.0.0.1"]))), sent(&["pod=2"], &[]));
    assert_eq!(client.say(change(&[], &["/10.0.0.1"])), sent(&[], &["pod"]));
    assert_eq!(client.set("far", on_node("n1", resource("2", &[]))), sent(&["far=2"], &[]));
    assert_eq!(client.remove("far"), sent(&[], &["far"]));
}

#[test]
fn what_is_asked_for_and_not_there_is_told_when_it_comes_and_goes() {
    let mut client = ByName::start(Table::default());
    client.told();
    assert_eq!(client.say(change(&["/10.0.0.1"], &[])), sent(&[], &["/10.0.0.1"]));
    assert_eq!(client.set("else", resource("1", &["/10.0.0.2"])), None);
    assert_eq!(client.set("pod", resource("1", &["/10.0.0.1"])), sent(&["pod=1"], &[]));
    // The alias itself is gone with the last resource that had it.
    assert_eq!(client.set("twin", resource("1", &["/10.0.0.1"])), sent(&["twin=1"], &[]));
    assert_eq!(client.remove("pod"), sent(&[], &["pod"]));
    assert_eq!(client.set("twin", resource("2", &[])), sent(&[], &["/10.0.0.1", "twin"]));
    assert_eq!(client.set("pod", resource("3", &["/10.0.0.1"])), sent(&["pod=3"], &[]));
    // Nobody asks any more: nothing is told.
    assert_eq!(client.say(change(&[], &["/10.0.0.1"])), sent(&[], &["pod"]));
    assert_eq!(client.remove("pod"), None);
}

#[test]
fn a_service_brings_the_workloads_behind_it() {
    let mut client = ByName::start(Table::default());
    client.told();
    for name in ["pod-1", "pod-2"] {
        assert_eq!(client.set(name, behind(&["shop/web"], resource("1", &[]))), None);
    }
    client.set("shop/web", resource("1", &["/10.96.0.1"]));
    // By its virtual address or by its name; last of all, so that who knows it knows its endpoints.
    let all = sent(&["pod-1=1", "pod-2=1", "shop/web=1"], &[]);
    assert_eq!(client.say(change(&["/10.96.0.1"], &[])), all);
    assert_eq!(client.say(change(&[], &["/10.96.0.1"])), sent(&[], &["pod-1", "pod-2", "shop/web"]));
    assert_eq!(client.say(change(&["shop/web"], &[])), all);
    // Endpoints come and go.
    assert_eq!(client.set("pod-3", behind(&["shop/web"], resource("1", &[]))), sent(&["pod-3=1"], &[]));
    assert_eq!(client.set("pod-1", resource("2", &[])), sent(&[], &["pod-1"]));
    assert_eq!(
        client.set("pod-2", behind(&["shop/web", "shop/db"], resource("2", &[]))),
        sent(&["pod-2=2"], &[])
    );
    // The virtual address moves to another service.
    client.set("shop/db", resource("1", &["/10.96.0.2"]));
    assert_eq!(
        client.say(change(&["/10.96.0.2"], &["shop/web"])),
        sent(&["shop/db=1"], &["pod-3", "shop/web"])
    );
    client.table.set("shop/db", Some(resource("2", &["/10.96.0.3"])));
    assert_eq!(
        client.set("shop/web", resource("2", &["/10.96.0.2"])),
        sent(&["pod-3=1", "shop/web=2"], &["shop/db"])
    );
}

#[test]
fn a_workload_brings_the_services_that_cannot_be_asked_for() {
    let mut client = ByName::start(Table::default());
    client.told();
    let pod =
        |version, last| behind(&["shop/db", "shop/web"], resource(version, &[&format!("/10.0.0.{last}")]));
    client.set("pod-1", pod("1", 1));
    client.set("pod-2", pod("1", 2));
    client.set("shop/web", resource("1", &["/10.96.0.1"]));
    assert_eq!(client.set("shop/db", resource("1", &[])), None);
    // Who dials one of its pods is a client of it, and no client of the others.
    assert_eq!(client.say(change(&["/10.0.0.1"], &[])), sent(&["pod-1=1", "shop/db=1"], &[]));
    assert_eq!(client.set("shop/db", resource("2", &[])), sent(&["shop/db=2"], &[]));
    assert_eq!(client.say(change(&["/10.0.0.2"], &[])), sent(&["pod-2=1"], &[]));
    assert_eq!(client.say(change(&[], &["/10.0.0.1"])), sent(&[], &["pod-1"]));
    assert_eq!(client.say(change(&[], &["/10.0.0.2"])), sent(&[], &["pod-2", "shop/db"]));
    // Through another service it comes too: its pods may be dialled without another word.
    let all = sent(&["pod-1=1", "pod-2=1", "shop/db=2", "shop/web=1"], &[]);
    assert_eq!(client.say(change(&["/10.96.0.1"], &[])), all);
    // It is there later than its pods, and they may leave it.
    assert_eq!(client.remove("shop/db"), sent(&[], &["shop/db"]));
    assert_eq!(client.set("shop/db", resource("3", &[])), sent(&["shop/db=3"], &[]));
    client.table.set("pod-1", Some(behind(&["shop/web"], resource("2", &[]))));
    assert_eq!(
        client.set("pod-2", behind(&["shop/web"], resource("2", &[]))),
        sent(&["pod-1=2", "pod-2=2"], &["shop/db"])
    );
    // One that gets an address is asked for by that.
    client.set("pod-1", behind(&["shop/web", "shop/db"], resource("3", &[])));
    assert_eq!(client.set("shop/db", resource("4", &["/10.96.0.2"])), sent(&[], &["shop/db"]));
}

#[test]
fn pods_of_the_clients_node_bring_them_too_and_so_do_those_that_it_holds_already() {
    let pod = || on_node("n1", behind(&["shop/db"], resource("1", &["/10.0.0.1"])));
    let mut client = ByName::start(Table::default());
    client.told();
    client.table.set("shop/db", Some(resource("1", &[])));
    assert_eq!(client.set("pod", pod()), sent(&["pod=1", "shop/db=1"], &[]));
    assert_eq!(client.remove("pod"), sent(&[], &["pod", "shop/db"]));

    let mut table = Table::default();
    table.set("shop/db", Some(resource("1", &[])));
    table.set("pod", Some(behind(&["shop/db"], resource("1", &["/10.0.0.1"]))));
    let mut session = start(first(&["/10.0.0.1"], &[("pod", "1")]));
    assert_eq!(seen(session.poll(|_| &table)), sent(&["shop/db=1"], &[]));
}

#[test]
fn a_large_service_goes_in_pieces_and_last() {
    let mut table = Table::default();
    for name in ["z-1", "z-2"] {
        table.set(name, Some(behind(&["shop/web"], resource("1", &[]))));
    }
    table.set("shop/web", Some(resource("1", &["/10.96.0.1"])));
    let mut session = Session::new(1);
    session.on_request(first(&["/10.96.0.1", "/10.9.9.9"], &[])).unwrap();
    for (told, more_follows) in [
        (sent(&["z-1=1"], &[]), true),
        (sent(&["z-2=1"], &[]), true),
        (sent(&["shop/web=1"], &[]), true),
        (sent(&[], &["/10.9.9.9"]), false),
    ] {
        let response = session.poll(|_| &table).unwrap().unwrap();
        assert_eq!(response.more_follows, more_follows, "{told:?}");
        session.on_request(ack(&response)).unwrap();
        assert_eq!(seen(Ok(Some(response))), told);
    }
    assert_eq!(session.poll(|_| &table), Ok(None));
}

#[test]
fn a_client_by_name_resumes() {
    let mut table = Table::default();
    table.set("pod-1", Some(behind(&["shop/web"], resource("1", &[]))));
    table.set("pod-2", Some(behind(&["shop/web"], resource("2", &[]))));
    table.set("shop/web", Some(resource("1", &["/10.96.0.1"])));
    let held = [("pod-1", "1"), ("pod-2", "1"), ("pod-3", "1"), ("shop/web", "1")];
    let mut session = start(first(&["/10.96.0.1", "/10.0.0.9"], &held));
    assert_eq!(seen(session.poll(|_| &table)), sent(&["pod-2=2"], &["/10.0.0.9", "pod-3"]));
}

#[test]
fn everything_is_remembered_as_one_number() {
    let mut table = Table::with_tombstones(2);
    let mut session = start(first(&["*"], &[]));
    let mut step = |table: &Table| {
        let response = session.poll(|_| table);
        response.iter().flatten().for_each(|response| drop(session.on_request(ack(response))));
        response.map(|response| seen(Ok(response)))
    };
    let told = |resources: &[&str], removed: &[&str]| Ok(sent(resources, removed));
    assert_eq!(step(&table), told(&[], &[]));
    table.set("a", Some(resource("1", &[])));
    assert_eq!(step(&table), told(&["a=1"], &[]));
    // Gone and there again in between: only the end counts. Come and gone in between: nobody hears of it.
    table.set("a", None);
    table.set("b", Some(resource("1", &[])));
    table.set("b", None);
    table.set("a", Some(resource("1", &[])));
    assert_eq!(step(&table), told(&["a=1"], &[]));
    table.set("a", None);
    assert_eq!(step(&table), told(&[], &["a"]));
    // Removals that nobody remembers any more: the client must come again and say what it holds.
    for name in ["c", "d", "e", "f"] {
        table.set(name, Some(resource("1", &[])));
        table.set(name, None);
    }
    assert_eq!(step(&table), Err(SessionError::Behind));
    assert_eq!(seen(start(first(&["*"], &[("c", "1")])).poll(|_| &table)), sent(&[], &["c"]));
}

#[test]
fn policies_and_the_workloads_that_name_them_are_one_state() {
    let (mut policies, mut addresses) = (table(&[("p", "1")]), table(&[("w", "1")]));
    let mut session = Session::new(1 << 20);
    let of = |type_url: &str, request: Request| Request { type_url: type_url.into(), ..request };
    let ack = |response: &Response| of(&response.type_url, ack(response));
    // Not routes: there is no table of them here.
    for type_url in [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL] {
        session.on_request(of(type_url, first(&["*"], &[]))).unwrap();
    }
    let poll = |session: &mut Session, policies: &Table, addresses: &Table| {
        let tables = |type_url: &str| if type_url == ADDRESS_TYPE_URL { addresses } else { policies };
        // Borrowed for as long as the response is made.
        let response = session.poll(tables).unwrap();
        response.map(|response| {
            let told = seen(Ok(Some(response.clone()))).unwrap();
            (told, response.more_follows, response)
        })
    };
    // Policies first, and a part until the workloads have come.
    let (told, more, response) = poll(&mut session, &policies, &addresses).unwrap();
    assert_eq!((Some(told), more), (sent(&["p=1"], &[]), true));
    session.on_request(ack(&response)).unwrap();
    // Meanwhile both change: the workloads are a part now.
    policies.set("p", None);
    addresses.set("w", Some(resource("2", &[])));
    let (told, more, response) = poll(&mut session, &policies, &addresses).unwrap();
    assert_eq!((Some(told), more), (sent(&[], &["p"]), true));
    session.on_request(ack(&response)).unwrap();
    let (told, more, response) = poll(&mut session, &policies, &addresses).unwrap();
    assert_eq!((Some(told), more), (sent(&["w=2"], &[]), false));
    // Not taken yet, so the next change of a policy waits for nothing.
    policies.set("q", Some(resource("1", &[])));
    let (told, more, second) = poll(&mut session, &policies, &addresses).unwrap();
    assert_eq!((Some(told), more), (sent(&["q=1"], &[]), false));
    // A change that comes while its policy is in flight is a part until the policies are told too.
    addresses.set("w", Some(resource("3", &[])));
    policies.set("q", None);
    session.on_request(ack(&response)).unwrap();
    let (told, more, response) = poll(&mut session, &policies, &addresses).unwrap();
    assert_eq!((Some(told), more), (sent(&["w=3"], &[]), true));
    session.on_request(ack(&response)).unwrap();
    session.on_request(ack(&second)).unwrap();
    let (told, more, _) = poll(&mut session, &policies, &addresses).unwrap();
    assert_eq!((Some(told), more), (sent(&[], &["q"]), false));
    assert!(poll(&mut session, &policies, &addresses).is_none());
}

#[test]
fn routes_are_the_last_part_of_a_state() {
    let table = table(&[("a", "1")]);
    let mut session = Session::new(1 << 20);
    for type_url in ONE_STATE.iter().rev() {
        session.on_request(Request { type_url: (*type_url).to_owned(), ..first(&["*"], &[]) }).unwrap();
    }
    let mut told = Vec::new();
    while let Some(response) = session.poll(|_| &table).unwrap() {
        let answer = Request { type_url: response.type_url.clone(), ..ack(&response) };
        session.on_request(answer).unwrap();
        told.push((response.type_url, response.more_follows));
    }
    let of = |type_url: &str, more| (type_url.to_owned(), more);
    let expected =
        [of(AUTHORIZATION_TYPE_URL, true), of(ADDRESS_TYPE_URL, true), of(TRAFFIC_TYPE_URL, false)];
    assert_eq!(told, expected);
}
