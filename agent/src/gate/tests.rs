//! Connections come, the mesh changes, and those that lost their permit have to go.

use super::*;
use crate::pods::testing;
use crate::store::MeshChange;
use std::future::ready;
use tokio::task::{LocalSet, yield_now};
use warren_common::model::{
    AuthorizationPolicy, MtlsRule, PeerAuthentication, PolicyAction, PolicyMatch, PolicyRule, PolicyScope,
    StringMatch,
};

fn pod(name: &str) -> Arc<Workload> {
    testing::pod(name, name, &[[10, 0, 2, 3].into()], true)
}

fn visitor(account: Option<&str>) -> Visitor {
    Visitor {
        source: account.map(|account| Identity::new("cluster.local", "bank", account).unwrap()),
        peer: [10, 0, 1, 2].into(),
        client: [10, 0, 1, 2].into(),
        destination: "10.0.2.3:80".parse().unwrap(),
        tunnel: None,
        server_name: None,
    }
}

/// Denies the accounts that it names.
fn deny(name: &str, accounts: &[&str]) -> MeshChange {
    let principals = accounts.iter().map(|account| StringMatch::Suffix(format!("/sa/{account}").into()));
    let one = PolicyMatch { principals: principals.collect(), ..PolicyMatch::default() };
    MeshChange::Policy(Arc::new(AuthorizationPolicy {
        name: name.parse().unwrap(),
        scope: PolicyScope::Namespace,
        action: PolicyAction::Deny,
        dry_run: false,
        only_ports: None,
        rules: vec![PolicyRule { index: 0, clauses: vec![vec![one]] }],
    }))
}

fn store() -> Arc<Store> {
    let store = Arc::new(Store::new());
    store.apply(vec![
        MeshChange::Policies,
        MeshChange::Workload(pod("web")),
        MeshChange::Workload(pod("db")),
    ]);
    store
}

fn enter(gate: &Gate, pod_name: &str, account: Option<&str>) -> Option<Admitted> {
    gate.admit_now(&pod(pod_name), visitor(account)).verdict.ok().map(|(_, admitted)| admitted)
}

/// Lets the gate's task do all it has to do.
async fn settle() {
    for _ in 0..200 {
        yield_now().await;
    }
}

async fn evicted(admitted: &mut Admitted) -> Option<String> {
    tokio::select! {
        biased;
        denied = admitted.hold(pending::<()>()) => denied.err().map(|denial| denial.rule().to_string()),
        () = ready(()) => None,
    }
}

/// Runs a test with a gate and the store that it follows, in simulated time.
fn at_gate(work: impl AsyncFnOnce(Arc<Store>, Gate)) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let store = store();
        let gate = Gate::start(Arc::clone(&store));
        settle().await;
        work(store, gate).await;
    });
}

#[test]
fn who_lost_the_permit_has_to_go_and_nobody_else() {
    at_gate(async |store, gate| {
        let mut teller = enter(&gate, "web", Some("teller")).unwrap();
        let mut clerk = enter(&gate, "web", Some("clerk")).unwrap();
        let mut elsewhere = enter(&gate, "db", Some("teller")).unwrap();
        let mut plain = enter(&gate, "web", None).unwrap();
        // Another namespace's business.
        store.apply(vec![deny("bank/p", &["teller"])]);
        settle().await;
        for admitted in [&mut teller, &mut clerk, &mut elsewhere, &mut plain] {
            assert_eq!(evicted(admitted).await, None);
        }
        store.apply(vec![deny("shop/p", &["teller"])]);
        settle().await;
        assert_eq!(evicted(&mut teller).await.as_deref(), Some("deny shop/p#0"));
        assert_eq!(evicted(&mut elsewhere).await.as_deref(), Some("deny shop/p#0"));
        assert_eq!((evicted(&mut clerk).await, evicted(&mut plain).await), (None, None));
        assert!(enter(&gate, "web", Some("teller")).is_none());
        // PeerAuthentication is the pod's: only there plaintext has to go.
        let strict = MtlsRule { strict: true, rule: "PeerAuthentication shop/default".into() };
        let strict = PeerAuthentication { all: strict, ..PeerAuthentication::default() };
        let web = Workload { peer_authentication: strict, ..Workload::clone(&pod("web")) };
        let mut other = enter(&gate, "db", None).unwrap();
        store.apply(vec![MeshChange::Workload(Arc::new(web))]);
        settle().await;
        assert_eq!(evicted(&mut plain).await.as_deref(), Some("PeerAuthentication shop/default"));
        assert_eq!((evicted(&mut clerk).await, evicted(&mut other).await), (None, None));
        // Revoked identities go like everybody else.
        store.apply(vec![MeshChange::Revoked(visitor(Some("clerk")).source.into_iter().collect())]);
        settle().await;
        assert_eq!(evicted(&mut clerk).await.as_deref(), Some("warren/revoked-identity"));
    });
}

#[test]
fn a_change_that_a_newcomer_saw_first_still_counts_for_those_inside() {
    at_gate(async |store, gate| {
        let mut teller = enter(&gate, "web", Some("teller")).unwrap();
        store.apply(vec![deny("shop/p", &["teller"])]);
        // Before the gate's own task runs.
        let mut clerk = enter(&gate, "web", Some("clerk")).unwrap();
        settle().await;
        assert_eq!(evicted(&mut teller).await.as_deref(), Some("deny shop/p#0"));
        assert_eq!(evicted(&mut clerk).await, None);
    });
}

#[test]
fn an_eviction_before_the_work_begins_is_not_missed() {
    at_gate(async |store, gate| {
        let mut teller = enter(&gate, "web", Some("teller")).unwrap();
        store.apply(vec![deny("shop/p", &["teller"])]);
        settle().await;
        assert!(teller.hold(ready(())).await.is_err(), "not a byte may be copied");
    });
}

#[test]
fn a_tunnel_whose_peer_is_trusted_no_longer_takes_its_own_along() {
    at_gate(async |_, gate| {
        let through = |tunnel| {
            let visitor = Visitor { tunnel, ..visitor(Some("teller")) };
            gate.admit_now(&pod("web"), visitor).verdict.unwrap().1
        };
        let (one, other) = (gate.tunnel(), gate.tunnel());
        let mut lost = [through(Some(one)), through(Some(one))];
        let mut kept = [through(Some(other)), through(None)];
        let denial =
            Denial::Distrusted { client: visitor(Some("teller")).source.unwrap(), why: "old root".into() };
        assert_eq!(gate.evict(&pod("web").enrolment.pod_uid, one, &denial), 2);
        for admitted in &mut lost {
            assert_eq!(evicted(admitted).await.as_deref(), Some("warren/distrusted-peer"));
        }
        for admitted in &mut kept {
            assert_eq!(evicted(admitted).await, None);
        }
    });
}

#[test]
fn who_leaves_leaves_nothing() {
    at_gate(async |store, gate| {
        drop(enter(&gate, "web", Some("teller")));
        assert!(gate.inside.borrow().places(&pod("web").enrolment.pod_uid).is_empty());
        let staying = enter(&gate, "db", Some("teller"));
        let gone = ["web", "db"].map(|name| MeshChange::Remove(pod(name).uid.to_string()));
        store.apply(gone.to_vec());
        settle().await;
        assert_eq!(
            format!("{:?}", gate.inside.borrow()).matches("visits").count(),
            1,
            "the empty pod is forgotten"
        );
        drop(staying);
    });
}

#[test]
fn a_pod_made_anew_is_judged_for_itself() {
    at_gate(async |store, gate| {
        let mut teller = enter(&gate, "web", Some("teller")).unwrap();
        // The same name, another pod, which names a policy that denies.
        let again = testing::pod("web", "web-2", &[[10, 0, 2, 3].into()], true);
        let mut naming = Workload::clone(&again);
        naming.authorization_policies = vec!["shop/p".parse().unwrap()];
        let MeshChange::Policy(policy) = deny("shop/p", &["teller"]) else { unreachable!() };
        let selecting =
            AuthorizationPolicy { scope: PolicyScope::Workload, ..AuthorizationPolicy::clone(&policy) };
        store.apply(vec![MeshChange::Policy(Arc::new(selecting)), MeshChange::Workload(Arc::new(naming))]);
        settle().await;
        assert_eq!(
            evicted(&mut teller).await,
            None,
            "who is inside the old one is not the new one's business"
        );
        assert!(gate.admit_now(&again, visitor(Some("teller"))).verdict.is_err());
        assert!(enter(&gate, "web", Some("teller")).is_some(), "nor is the old one's door");
    });
}

#[test]
fn ten_thousand_connections_are_judged_again_in_turns() {
    at_gate(async |store, gate| {
        let mut clerks: Vec<_> = (0..9_000).filter_map(|_| enter(&gate, "web", Some("clerk"))).collect();
        let mut tellers: Vec<_> = (0..1_000).filter_map(|_| enter(&gate, "web", Some("teller"))).collect();
        assert_eq!(clerks.len() + tellers.len(), 10_000);
        store.apply(vec![deny("shop/p", &["teller"])]);
        let mut turns = 0;
        while evicted(tellers.last_mut().unwrap()).await.is_none() {
            turns += 1;
            yield_now().await;
        }
        assert!(turns >= 10_000 / BATCH, "others had {turns} turns");
        assert!(evicted(clerks.first_mut().unwrap()).await.is_none());
    });
}

/// As `web` is when it names a policy.
fn naming(policy: &str) -> MeshChange {
    let authorization_policies = vec![policy.parse().unwrap()];
    MeshChange::Workload(Arc::new(Workload { authorization_policies, ..Workload::clone(&pod("web")) }))
}

#[test]
fn a_policy_that_comes_a_moment_after_its_name_costs_nobody_the_connection() {
    at_gate(async |store, gate| {
        let mut clerk = enter(&gate, "web", Some("clerk")).unwrap();
        let mut teller = enter(&gate, "web", Some("teller")).unwrap();
        store.apply(vec![naming("shop/p")]);
        settle().await;
        assert_eq!((evicted(&mut clerk).await, evicted(&mut teller).await), (None, None));
        // A newcomer waits for it too.
        let newcomer = tokio::task::spawn_local({
            let gate = gate.clone();
            async move { gate.admit(&pod("web"), visitor(Some("clerk"))).await.verdict.map(|(permit, _)| permit) }
        });
        settle().await;
        assert!(!newcomer.is_finished());
        store.apply(vec![deny("shop/p", &["teller"])]);
        assert!(newcomer.await.unwrap().is_ok());
        settle().await;
        assert_eq!(evicted(&mut clerk).await, None);
        assert_eq!(evicted(&mut teller).await.as_deref(), Some("deny shop/p#0"));
    });
}

#[test]
fn a_policy_that_does_not_come_at_all_lets_nobody_in_and_nobody_stay() {
    at_gate(async |store, gate| {
        let mut clerk = enter(&gate, "web", Some("clerk")).unwrap();
        store.apply(vec![naming("shop/p")]);
        let began = Instant::now();
        let judged = gate.admit(&pod("web"), visitor(Some("clerk"))).await;
        assert_eq!(judged.verdict.unwrap_err(), Denial::Missing("shop/p".parse().unwrap()));
        // Changes of something else do not prolong it.
        store.apply(vec![MeshChange::Remove(pod("db").uid.to_string())]);
        let said = clerk.hold(pending::<()>()).await.unwrap_err();
        assert_eq!(said, Denial::Missing("shop/p".parse().unwrap()));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

#[test]
fn a_server_name_is_asked_for_and_remembered() {
    at_gate(async |store, gate| {
        let by_name = |names: &[&str]| {
            let names = names.iter().map(|name| StringMatch::Exact((*name).into()));
            let one = PolicyMatch { server_names: names.collect(), ..PolicyMatch::default() };
            MeshChange::Policy(Arc::new(AuthorizationPolicy {
                name: "shop/p".parse().unwrap(),
                scope: PolicyScope::Namespace,
                action: PolicyAction::Allow,
                dry_run: false,
                only_ports: None,
                rules: vec![PolicyRule { index: 0, clauses: vec![vec![one]] }],
            }))
        };
        let saying = |name: &str| Visitor { server_name: Some(name.into()), ..visitor(Some("teller")) };
        // Before anybody asked for names.
        let mut early = enter(&gate, "web", Some("teller")).unwrap();
        store.apply(vec![by_name(&["a", "b"])]);
        settle().await;
        assert!(evicted(&mut early).await.is_some(), "its name was not read, so it cannot stay");
        let judged = gate.admit_now(&pod("web"), visitor(Some("teller")));
        assert!(judged.verdict.is_err() && judged.wants_server_name);
        let [a, b] = ["a", "b"].map(|name| gate.admit_now(&pod("web"), saying(name)));
        assert!(!a.wants_server_name);
        let [mut a, mut b] = [a, b].map(|judged| judged.verdict.unwrap().1);
        let refused = gate.admit_now(&pod("web"), saying("c"));
        assert!(refused.verdict.is_err() && !refused.wants_server_name);
        store.apply(vec![by_name(&["b"])]);
        settle().await;
        assert!(evicted(&mut a).await.is_some() && evicted(&mut b).await.is_none());
    });
}
