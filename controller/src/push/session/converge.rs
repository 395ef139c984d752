//! A client's model that must reach the server's state whatever happens.

use super::tests::{TYPE, ack, behind, change, nack, resource};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What a client does with what it is told. It rejects the versions in `bad`.
#[derive(Debug, Default)]
struct Client {
    holds: BTreeMap<String, String>,
    wildcard: bool,
    names: BTreeSet<String>,
    /// The last word about each name and alias: whether there is such a resource.
    words: BTreeMap<String, bool>,
    unanswered: Option<Response>,
}

const BAD: &str = "9";
const NODE: &str = "n1";
/// What the others may stand behind.
const SERVICE: &str = "r5";

impl Client {
    fn take(&mut self, response: &Response) -> bool {
        let mut good = true;
        for (name, resource) in &response.resources {
            let called = resource.aliases.iter().chain([name]);
            self.words.extend(called.map(|name| (name.to_string(), true)));
            if &*resource.version == BAD {
                good = false;
            } else {
                self.holds.insert(name.to_string(), resource.version.to_string());
            }
        }
        for name in &response.removed {
            self.words.insert(name.to_string(), false);
            self.holds.remove(name.as_ref());
        }
        good
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Name, version, alias (4: none); behind the service, on our node.
    Set(u8, u8, u8, bool, bool),
    Remove(u8),
    Deliver,
    Answer,
    Subscribe(u8),
    Unsubscribe(u8),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, 0..10_u8, 0..5_u8, any::<bool>(), 0..4_u8)
            .prop_map(|(name, version, alias, behind, node)| Step::Set(name, version, alias, behind, node == 0)),
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
    session.of_node(NODE);
    client.unanswered = None;
    // What it has an answer for it resumes, the rest it asks for. Nothing at all is said by taking back the wildcard.
    let (known, pending): (Vec<_>, Vec<_>) =
        client.names.iter().cloned().partition(|name| client.words.contains_key(name));
    let all = || vec!["*".to_owned()];
    let (subscribe, unsubscribe) = match (client.wildcard, known.is_empty()) {
        (true, _) => ([all(), known].concat(), vec![]),
        (false, true) => (all(), all()),
        (false, false) => (known, vec![]),
    };
    let initial_versions = client.holds.clone();
    let first =
        Request { type_url: TYPE.into(), subscribe, unsubscribe, initial_versions, ..Request::default() };
    session.on_request(first).unwrap();
    if !pending.is_empty() {
        let second = Request { type_url: TYPE.into(), subscribe: pending, ..Request::default() };
        session.on_request(second).unwrap();
    }
}

fn deliver(session: &mut Session, client: &mut Client, table: &Table) -> bool {
    match session.poll(|_| table) {
        Ok(Some(response)) => {
            assert!(client.unanswered.is_none(), "two responses in flight");
            client.unanswered = Some(response);
            true
        }
        Ok(None) => false,
        Err(error) => {
            assert_eq!(error, SessionError::Behind);
            connect(session, client);
            true
        }
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
                Step::Set(name, 9, ..) => { table.set(&format!("r{name}"), Some(resource(BAD, &[]))); }
                Step::Set(name, version, alias, member, local) => {
                    // As with hashes of contents: another alias or group is another version.
                    let version = format!("{version}.{alias}.{member}.{local}");
                    let name = format!("r{name}");
                    let services = if member && name != SERVICE { &[SERVICE][..] } else { &[] };
                    let alias = format!("/10.0.0.{alias}");
                    let aliases = if alias.ends_with('4') { &[][..] } else { &[&*alias] };
                    let mut resource = behind(services, resource(&version, aliases));
                    resource.groups.extend(local.then(|| Group::Node(NODE.into())));
                    table.set(&name, Some(resource));
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
                    if name == "*" {
                        client.wildcard = false;
                    } else {
                        client.names.remove(&name);
                        client.words.remove(&name);
                    }
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
        let asked = |name: &str, resource: &Resource| {
            client.names.contains(name)
                || resource.aliases.iter().any(|alias| client.names.contains(alias.as_ref()))
        };
        let along = |group: &Group| match group {
            Group::Node(node) => &**node == NODE,
            Group::Behind(service) => {
                client.names.contains(service.as_ref())
                    || table.get(service).is_some_and(|(name, resource)| asked(name, resource))
            }
        };
        let comes = |name: &str| {
            let (_, resource) = table.get(name).unwrap();
            asked(name, resource) || resource.groups.iter().any(along)
        };
        for name in table.names() {
            let (_, resource) = table.get(name).unwrap();
            let fronts = |other: &Arc<str>| {
                let (_, other_one) = table.get(other).unwrap();
                other_one.groups.contains(&Group::Behind(name.clone())) && comes(other)
            };
            let brought = resource.aliases.is_empty() && table.names().any(fronts);
            let wanted = client.wildcard || comes(name) || brought;
            let held = client.holds.get(name.as_ref()).map(String::as_str);
            if !wanted {
                prop_assert_eq!(held, None, "{} is not wanted any more", name);
            } else if &*resource.version != BAD {
                prop_assert_eq!(held, Some(resource.version.as_ref()), "{}", name);
            }
        }
        for name in client.names.iter().filter(|_| !client.wildcard) {
            let exists = table.called(name).next().is_some();
            prop_assert_eq!(client.words.get(name), Some(&exists), "the last word about {}", name);
        }
        for name in client.holds.keys() {
            prop_assert!(table.get(name).is_some(), "{} is gone", name);
        }
    }
}
