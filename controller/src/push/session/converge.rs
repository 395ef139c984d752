//! A client's model that must reach the server's state whatever happens.

use super::tests::{TYPE, ack, change, nack, resource};
use super::*;
use proptest::prelude::*;

/// What a client does with what it is told. It rejects the versions in `bad`.
#[derive(Debug, Default)]
struct Client {
    holds: BTreeMap<String, String>,
    wildcard: bool,
    names: BTreeSet<String>,
    unanswered: Option<Response>,
}

const BAD: &str = "9";

impl Client {
    fn take(&mut self, response: &Response) -> bool {
        let mut good = true;
        for (name, resource) in &response.resources {
            if &*resource.version == BAD {
                good = false;
            } else {
                self.holds.insert(name.to_string(), resource.version.to_string());
            }
        }
        for name in &response.removed {
            self.holds.remove(name.as_ref());
        }
        good
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, u8),
    Remove(u8),
    Deliver,
    Answer,
    Subscribe(u8),
    Unsubscribe(u8),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, 0..10_u8, 0..4_u8).prop_map(|(name, version, alias)| Step::Set(name, version, alias)),
        2 => (0..6_u8).prop_map(Step::Remove),
        5 => Just(Step::Deliver),
        4 => Just(Step::Answer),
        1 => (0..12_u8).prop_map(Step::Subscribe),
        1 => (0..12_u8).prop_map(Step::Unsubscribe),
        1 => Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..80)
}

/// 0..=5 are names, 6..=9 aliases, the rest the wildcard.
fn asked(number: u8) -> String {
    match number {
        0..=5 => format!("r{number}"),
        6..=9 => format!("/10.0.0.{}", number - 6),
        _ => "*".to_owned(),
    }
}

fn connect(session: &mut Session, client: &mut Client) {
    *session = Session::new(70);
    client.unanswered = None;
    let wildcard = client.wildcard.then(|| "*".to_owned());
    let request = Request {
        type_url: TYPE.into(),
        subscribe: wildcard.into_iter().chain(client.names.iter().cloned()).collect(),
        initial_versions: client.holds.clone(),
        ..Request::default()
    };
    // A first request that names nothing asks for everything.
    client.wildcard |= request.subscribe.is_empty();
    session.on_request(request).unwrap();
}

fn deliver(session: &mut Session, client: &mut Client, table: &Table) -> bool {
    match session.poll(|_| table) {
        Some(response) => {
            assert!(client.unanswered.is_none(), "two responses in flight");
            client.unanswered = Some(response);
            true
        }
        None => false,
    }
}

fn answer(session: &mut Session, client: &mut Client) -> bool {
    let Some(response) = client.unanswered.take() else {
        return false;
    };
    let reply = if client.take(&response) { ack(&response) } else { nack(&response) };
    session.on_request(reply).unwrap();
    true
}

proptest! {
    #[test]
    fn clients_converge(steps in steps(), tombstones in 0..4_usize, wildcard: bool) {
        let mut table = Table::with_tombstones(tombstones);
        let mut client = Client { wildcard, ..Client::default() };
        client.names.insert("r1".to_owned());
        let mut session = Session::new(0);
        connect(&mut session, &mut client);
        for step in steps {
            match step {
                Step::Set(name, version, alias) => {
                    // As with hashes of contents: another alias is another version.
                    let version = if version == 9 { BAD.to_owned() } else { format!("{version}.{alias}") };
                    let alias = if version == BAD { String::new() } else { format!("/10.0.0.{alias}") };
                    table.set(&format!("r{name}"), Some(resource(&version, &[&alias])));
                }
                Step::Remove(name) => { table.set(&format!("r{name}"), None); }
                Step::Deliver => { deliver(&mut session, &mut client, &table); }
                Step::Answer => { answer(&mut session, &mut client); }
                Step::Subscribe(number) => {
                    let name = asked(number);
                    if name == "*" { client.wildcard = true } else { client.names.insert(name.clone()); }
                    session.on_request(change(&[&name], &[])).unwrap();
                }
                Step::Unsubscribe(number) => {
                    let name = asked(number);
                    if name == "*" { client.wildcard = false } else { client.names.remove(&name); }
                    session.on_request(change(&[], &[&name])).unwrap();
                }
                Step::Reconnect => connect(&mut session, &mut client),
            }
        }
        let mut rounds = 0;
        while answer(&mut session, &mut client) || deliver(&mut session, &mut client, &table) {
            rounds += 1;
            prop_assert!(rounds < 200, "it never ends");
        }
        for name in table.names() {
            let (_, resource) = table.get(name).unwrap();
            let wanted = client.wildcard
                || client.names.contains(name.as_ref())
                || resource.aliases.iter().any(|alias| client.names.contains(alias.as_ref()));
            let held = client.holds.get(name.as_ref()).map(String::as_str);
            if !wanted {
                prop_assert_eq!(held, None, "{} is not wanted any more", name);
            } else if &*resource.version != BAD {
                prop_assert_eq!(held, Some(resource.version.as_ref()), "{}", name);
            }
        }
        for name in client.holds.keys() {
            prop_assert!(table.get(name).is_some(), "{} is gone", name);
        }
    }
}
