use super::*;
use crate::store::{Mesh, MeshChange};
use crate::xds::Session;
use proptest::prelude::*;
use std::collections::BTreeMap;
use warren_common::proto::{REVOCATIONS_TYPE_URL, TRUST_TYPE_URL, decode_envelope};

fn held(session: &Session) -> BTreeMap<String, String> {
    session
        .on_connect()
        .into_iter()
        .find(|request| request.type_url == ADDRESS_TYPE_URL)
        .unwrap()
        .initial_resource_versions
        .into_iter()
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn the_first_request_wants_everything_and_tells_versions() {
    let mut session = Session::new();
    let first = session.on_connect();
    // Who is ready with addresses and policies has heard of routes.
    let types = [
        TRAFFIC_TYPE_URL,
        ADDRESS_TYPE_URL,
        NAMESPACE_TYPE_URL,
        AUTHORIZATION_TYPE_URL,
        REVOCATIONS_TYPE_URL,
        TRUST_TYPE_URL,
    ];
    assert_eq!(first.len(), types.len());
    for (request, type_url) in first.iter().zip(types) {
        assert_eq!(request.type_url, type_url);
        assert!(request.resource_names_subscribe.is_empty() && request.initial_resource_versions.is_empty());
    }
    session.on_response(response("1", vec![good("a", "1"), good("b", "1")], &[]));
    session.on_response(response("2", vec![good("a", "2")], &["shop/b"]));
    assert_eq!(held(&session), pairs(&[("shop/a", "2")]));
    session.outdate_versions();
    assert_eq!(held(&session), pairs(&[("shop/a", "")]));
}

#[test]
fn routes_come_by_the_name_of_their_service() {
    let mut session = Session::new();
    let good = traffic("a", "1");
    let misnamed = Resource { name: "shop/b".to_owned(), ..traffic("a", "1") };
    let of_tomorrow = Resource {
        resource: Some(prost_types::Any {
            type_url: TRAFFIC_TYPE_URL.to_owned(),
            value: vec![10, 2, 123, 125],
        }),
        ..traffic("c", "1")
    };
    let outcome = session.on_response(routes("1", vec![good, misnamed, of_tomorrow], &["shop/d"]));
    let rejected: Vec<_> = outcome.rejected.iter().map(|rejection| rejection.resource.as_str()).collect();
    assert_eq!(rejected, ["shop/b", "shop/c"]);
    // What may ask for TLS stops its service.
    let stand_in = |name: &str, at: usize| {
        let refused = Some(outcome.rejected[at].reason.as_str().into());
        MeshChange::TrafficRefused(Arc::new(Traffic { refused, ..no_traffic(name) }))
    };
    let expected = [
        MeshChange::Traffic(Arc::new(no_traffic("a"))),
        stand_in("b", 0),
        stand_in("c", 1),
        MeshChange::TrafficGone("shop/d".to_owned()),
    ];
    assert_eq!(outcome.changes, expected);
    assert_eq!(session.versions(TRAFFIC_TYPE_URL).unwrap().len(), 1, "they are sent again");
}

#[test]
fn routes_that_cannot_be_compiled_are_refused_and_the_last_ones_stay() {
    let (mut session, mut mesh) = (Session::new(), Mesh::default());
    mesh.apply(session.on_response(routes("1", vec![traffic_with("a", "1", "50%%")], &[])).changes);
    let both = vec![traffic_with("a", "2", "50%"), traffic_with("b", "1", "%START_TIME%")];
    let outcome = session.on_response(routes("2", both, &[]));
    let error = outcome.request.error_detail.unwrap().message;
    assert!(error.starts_with("shop/a: rule 0 (\"all\") of VirtualService shop/a: "), "{error}");
    assert!(error.contains("no percent sign ends it"), "{error}");
    mesh.apply(outcome.changes);
    let versions = session.versions(TRAFFIC_TYPE_URL).unwrap();
    let version = |name: &str| versions.get(name).map(|version| &**version);
    assert_eq!((version("shop/a"), version("shop/b")), (Some("1"), Some("1")));
    let held = mesh.traffic(&key("a")).unwrap();
    assert!(held.refused.is_none() && held.tables.len() == 1, "the last good one is in force");
    // What never was understood stops its service.
    mesh.apply(session.on_response(routes("3", vec![traffic_with("c", "1", "50%")], &[])).changes);
    assert!(mesh.traffic(&key("c")).unwrap().refused.is_some());
}

#[test]
fn good_resources_are_acknowledged() {
    let mut session = Session::new();
    let outcome = session.on_response(response("n1", vec![good("a", "1")], &["shop/b"]));
    assert_eq!(outcome.changes, [MeshChange::Service(arc("a")), MeshChange::Remove("shop/b".to_owned())]);
    assert_eq!(outcome.request.response_nonce, "n1");
    assert_eq!(outcome.request.type_url, ADDRESS_TYPE_URL);
    assert!(outcome.request.error_detail.is_none() && outcome.request.initial_resource_versions.is_empty());
}

#[test]
fn enrolled_namespaces_are_told_even_if_there_are_none() {
    let change = |enrolled: &[&str], released: &[&str]| MeshChange::Namespaces {
        enrolled: enrolled.iter().map(|name| Arc::from(*name)).collect(),
        released: released.iter().map(|name| Arc::from(*name)).collect(),
    };
    let mut session = Session::new();
    assert_eq!(session.on_response(enrolled("1", &[], &[])).changes, [change(&[], &[])]);
    let outcome = session.on_response(enrolled("2", &["shop"], &["bank"]));
    assert_eq!(outcome.changes, [change(&[], &[]), change(&["shop"], &[]), change(&[], &["bank"])]);
    let mut misnamed = enrolled("3", &["shop"], &[]);
    let mut envelope = decode_envelope(misnamed.resources[0].clone()).unwrap();
    envelope.name = "bank".to_owned();
    misnamed.resources[0] = encode_envelope(&envelope);
    assert_eq!(session.on_response(misnamed).rejected.len(), 1);
}

#[test]
fn policies_are_told_even_if_there_are_none() {
    let mut session = Session::new();
    assert_eq!(session.on_response(policies("1", vec![], &[])).changes, [MeshChange::Policies]);
    let outcome =
        session.on_response(policies("2", vec![good_policy("a", "1")], &["shop/b", "no policy's name"]));
    let put = MeshChange::Policy(Arc::new(policy("a", PolicyAction::Allow)));
    let gone = MeshChange::PolicyGone("shop/b".parse().unwrap());
    assert_eq!(outcome.changes, [MeshChange::Policies, put, gone, MeshChange::Policies]);
}

#[test]
fn a_policy_that_is_not_understood_keeps_its_place() {
    let spoil = |spoil: fn(&mut Vec<u8>)| {
        let mut resource = good_policy("a", "2");
        spoil(&mut resource.resource.as_mut().unwrap().value);
        resource
    };
    // An action from the future (field 4), of a policy for a namespace; and nothing that can be read.
    for (resource, scope) in [
        (spoil(|value| value.extend([4 << 3, 9])), Some(PolicyScope::Namespace)),
        (spoil(|value| *value = vec![0xff]), None),
        (spoil(Vec::clear), None),
    ] {
        for session in [&mut Session::new(), &mut Session::by_interest()] {
            session.on_response(policies("1", vec![good_policy("b", "1")], &[]));
            let outcome =
                session.on_response(policies("2", vec![resource.clone(), good_policy("c", "1")], &[]));
            assert_eq!((outcome.changes.len(), outcome.rejected.len()), (3, 1));
            assert!(outcome.request.error_detail.is_some());
            let MeshChange::PolicyRefused(name, refused) = &outcome.changes[1] else { panic!("{outcome:?}") };
            assert_eq!((name.to_string(), refused.scope), ("shop/a".to_owned(), scope));
            let held = session.versions(AUTHORIZATION_TYPE_URL).unwrap();
            assert_eq!(held.keys().map(|name| &**name).collect::<Vec<_>>(), ["shop/b", "shop/c"]);
        }
    }
}

#[test]
fn a_bad_resource_is_named_and_the_good_ones_apply() {
    let spoiled: Vec<(Resource, &str)> = vec![
        (bad("x", |r| r.resource = None), "no content"),
        (bad("x", |r| r.resource.as_mut().unwrap().value = vec![0xff]), "malformed"),
        (bad("x", |r| r.resource.as_mut().unwrap().value.clear()), "missing"),
        (bad("x", |r| r.resource.as_mut().unwrap().type_url = "other".to_owned()), "other"),
        (bad("y", |r| r.name = "shop/x".to_owned()), "shop/y"),
    ];
    for (resource, reason) in spoiled {
        let mut session = Session::new();
        session.on_response(response("1", vec![good("x", "old")], &[]));
        let outcome = session.on_response(response("2", vec![resource, good("a", "1")], &[]));
        assert_eq!(outcome.changes, [MeshChange::Service(arc("a"))], "{reason}");
        let error = outcome.request.error_detail.unwrap();
        assert_eq!(error.code, 3);
        assert!(error.message.starts_with("shop/x: ") && error.message.contains(reason), "{}", error.message);
        assert_eq!((session.rejected(), session.rejections().len()), (1, 1));
        // The last good version is still what we hold.
        assert_eq!(held(&session), pairs(&[("shop/a", "1"), ("shop/x", "old")]));
        session.on_response(response("3", vec![good("x", "new")], &[]));
        assert_eq!((session.rejected(), session.rejections().len()), (1, 0));
    }
}

#[test]
fn what_was_not_subscribed_to_is_refused() {
    let mut session = Session::new();
    let other = DeltaDiscoveryResponse {
        type_url: "other".to_owned(),
        ..response("1", vec![good("a", "1")], &["shop/b"])
    };
    let outcome = session.on_response(other);
    assert!(outcome.changes.is_empty());
    assert!(outcome.request.error_detail.unwrap().message.contains("not subscribed"));
    assert!(held(&session).is_empty());
}

#[test]
fn a_nack_stays_short() {
    let spoil = |i: usize| bad(&format!("{}{i}", "x".repeat(5000)), |r| r.resource = None);
    let outcome = Session::new().on_response(response("1", (0..500).map(spoil).collect(), &[]));
    assert_eq!(outcome.rejected.len(), 500);
    let message = outcome.request.error_detail.unwrap().message;
    assert!(message.len() < 16_000 && message.ends_with("and 480 more"), "{} bytes", message.len());
}

proptest! {
    #[test]
    fn any_response_is_answered_without_panic(
        names in proptest::collection::vec(("[a-z/]{0,8}", proptest::collection::vec(any::<u8>(), 0..64)), 0..8),
        removed in proptest::collection::vec("[a-z/]{0,8}", 0..4),
    ) {
        let resources = names.into_iter().map(|(name, value)| Resource {
            name,
            resource: Some(prost_types::Any { type_url: ADDRESS_TYPE_URL.to_owned(), value }),
            ..Default::default()
        });
        let removed: Vec<_> = removed.iter().map(String::as_str).collect();
        let mut session = Session::new();
        let outcome = session.on_response(response("n", resources.collect(), &removed));
        prop_assert_eq!(outcome.request.error_detail.is_some(), !outcome.rejected.is_empty());
        prop_assert_eq!(outcome.request.response_nonce, "n");
    }
}
