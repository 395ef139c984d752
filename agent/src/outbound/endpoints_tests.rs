use super::*;
use crate::store::MeshChange;
use ::http::HeaderMap;
use warren_common::model::traffic::{
    Balancer, ConnectionPool, Outliers, RouteApi, ScopedPolicy, SimpleBalancer, TrafficPolicy, Warmup,
};
use warren_common::model::{
    AppProtocol, Enrolment, Health as Ready, Identity, PeerAuthentication, Placement, PortMapping,
    ServiceOrigin, ServicePort, Steering, TunnelProtocol, WorkloadKind,
};

const DIALLED: [u8; 4] = [10, 96, 0, 1];

struct World {
    mesh: Mesh,
    generation: u64,
    client: Arc<Workload>,
    service: Arc<Service>,
    balances: Balances,
}

fn name() -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: "web.shop.svc".into() }
}

fn pod(name: &str, last: u8, services: &[ServiceName]) -> Arc<Workload> {
    let ports = vec![PortMapping { service_port: 80, target_port: 8080 }];
    Arc::new(Workload {
        uid: WorkloadUid(name.into()),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![[10, 0, 0, last].into()],
        identity: Identity::new("cluster.local", "shop", name).unwrap(),
        node: "n1".into(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: Ready::Healthy,
        owner: name.into(),
        kind: WorkloadKind::Pod,
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        cluster: "c".into(),
        services: Arc::new(services.iter().map(|name| (name.clone(), ports.clone())).collect()),
        labels: Arc::default(),
        enrolment: Enrolment::default(),
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    })
}

impl World {
    /// Two endpoints, a and b, under this policy.
    fn new(policy: TrafficPolicy) -> Self {
        let service = Arc::new(Service {
            name: "web".into(),
            key: name(),
            addresses: vec![],
            ports: vec![ServicePort {
                service_port: 80,
                target_port: 8080,
                target_port_name: None,
                app_protocol: AppProtocol::Http11,
            }],
            publish_not_ready: false,
            steering: Steering::default(),
            origin: ServiceOrigin::default(),
        });
        let scoped = ScopedPolicy { clients: Default::default(), objects: vec![], policy, subsets: vec![] };
        let traffic = Traffic { service: name(), tables: vec![], policies: vec![scoped], refused: None };
        let mut world = Self {
            mesh: Mesh::default(),
            generation: 0,
            client: pod("client", 9, &[]),
            service: Arc::clone(&service),
            balances: Balances::default(),
        };
        world.apply(MeshChange::Service(service));
        world.apply(MeshChange::Traffic(Arc::new(traffic)));
        world.add("a", 1);
        world.add("b", 2);
        world
    }

    fn apply(&mut self, change: MeshChange) {
        self.mesh.apply([change]);
        self.generation += 1;
    }

    fn add(&mut self, endpoint: &str, last: u8) {
        self.apply(MeshChange::Workload(pod(endpoint, last, &[name()])));
    }

    fn pick_as(&self, dialled: [u8; 4]) -> Result<Picked, NoWay> {
        let headers = HeaderMap::new();
        let view = crate::route::http::RequestView {
            method: "GET",
            scheme: "http",
            authority: "web",
            path: "/",
            query: None,
            headers: &headers,
        };
        let ask = http::Ask {
            request: &view,
            authority: "web",
            entropy: 1,
            tried: &[],
            h2: false,
            grpc: false,
            api: RouteApi::Istio,
        };
        self.pick_for(dialled, Load::Request(&ask)).map_err(|unpicked| unpicked.no_way(RouteApi::Istio))
    }

    fn pick_for(&self, dialled: [u8; 4], load: Load<'_>) -> Result<Picked, Unpicked> {
        match self.choose(dialled, load)? {
            Chosen::One(picked) => Ok(picked),
            Chosen::Any(..) => panic!("the policy says how"),
        }
    }

    fn choose(&self, dialled: [u8; 4], load: Load<'_>) -> Result<Chosen, Unpicked> {
        let wanted = Wanted {
            mesh: &self.mesh,
            generation: self.generation,
            client: &self.client,
            service: &self.service,
            port: 80,
            subset: None,
            address: [10, 0, 0, 9].into(),
            dialled: (dialled, 8080).into(),
            own: false,
        };
        self.balances.pick(&wanted, load)
    }

    fn pick(&self) -> Result<Picked, NoWay> {
        self.pick_as(DIALLED)
    }

    /// How many of 300 requests go there.
    fn share(&self, endpoint: &str) -> usize {
        let picked = (0..300).map(|_| self.pick().unwrap().endpoint.workload.name.to_string());
        picked.filter(|name| name == endpoint).count()
    }
}

fn policy(all: PortPolicy) -> TrafficPolicy {
    TrafficPolicy { all, ..TrafficPolicy::default() }
}

fn balanced(balancer: Balancer) -> TrafficPolicy {
    policy(PortPolicy { balancer: Some(balancer), ..PortPolicy::default() })
}

fn pooled(pool: ConnectionPool) -> TrafficPolicy {
    policy(PortPolicy { pool: Some(pool), ..PortPolicy::default() })
}

#[test]
fn requests_and_retries_have_limits() {
    let pool = ConnectionPool { max_requests: Some(2), max_retries: Some(1), ..ConnectionPool::default() };
    let world = World::new(pooled(pool.clone()));
    let (first, _second) = (world.pick().unwrap().place, world.pick().unwrap().place);
    let refused = world.pick().err().unwrap();
    assert_eq!((refused.refusal.status, refused.refusal.flag), (503, "UO"));
    assert!(refused.why.contains("2 requests"), "{}", refused.why);
    let retry = first.take(Kind::Retry).unwrap();
    assert!(first.take(Kind::Retry).is_err());
    drop((retry, first));
    let third = world.pick().unwrap().place;
    assert!(third.take(Kind::Retry).is_ok());
    // A budget instead: a half of what is active, and two always.
    let budget = TrafficPolicy {
        retry_budget_percent: Some(50),
        retry_budget_min: Some(2),
        ..pooled(ConnectionPool { max_requests: None, ..pool })
    };
    let world = World::new(budget);
    for (active, expected) in [(1, 2), (4, 2), (8, 4)] {
        let places: Vec<_> = (0..active).map(|_| world.pick().unwrap().place).collect();
        let retries: Vec<_> = std::iter::from_fn(|| places[0].take(Kind::Retry).ok()).take(100).collect();
        assert_eq!(retries.len(), expected, "{active} active");
    }
}

#[test]
fn whoever_comes_later_begins_with_less() {
    let warmup = Warmup { duration_ms: 3_600_000, minimum_percent: 10.0, aggression: 1.0 };
    for simple in [SimpleBalancer::RoundRobin, SimpleBalancer::LeastRequest] {
        let balancer = Balancer { simple, warmup: Some(warmup), ..Balancer::default() };
        let mut world = World::new(balanced(balancer));
        let b = world.share("b");
        assert!((100..200).contains(&b), "{b}: who was there first is old");
        world.add("c", 3);
        // A tenth beside two wholes are 14 of 300.
        let c = world.share("c");
        assert!((1..50).contains(&c), "{simple:?} {c}");
        world.apply(MeshChange::Remove("a".into()));
        let c = world.share("c");
        assert!((1..80).contains(&c), "{simple:?} {c}: it stays new when others change");
    }
}

#[test]
fn who_is_left_out_is_known() {
    let outliers = Outliers {
        consecutive_5xx: 2,
        consecutive_gateway: 0,
        consecutive_local: None,
        interval_ms: 10_000,
        base_ejection_ms: 600_000,
        max_ejection_percent: 100,
        min_health_percent: 0,
    };
    let world = World::new(policy(PortPolicy { outliers: Some(outliers), ..PortPolicy::default() }));
    assert!(world.balances.left_out().is_empty() && world.balances.ejections().is_empty());
    let mut failures = 0;
    while world.balances.left_out().is_empty() {
        let picked = world.pick().unwrap();
        if &*picked.endpoint.workload.name == "b" {
            picked.place.ended(Ended::Response { status: 503, grpc: None });
            failures += 1;
        }
    }
    assert_eq!((failures, world.share("b")), (2, 0));
    let [left_out] = &*world.balances.left_out() else { panic!("one") };
    assert_eq!((&*left_out.endpoint.0, &left_out.service), ("b", &name()));
    assert_eq!(left_out.why, "consecutive_5xx for shop/client");
    assert_eq!(world.balances.ejections(), [("consecutive_5xx", 1)]);
}

#[test]
fn passthrough_keeps_to_what_was_dialled() {
    let simple = SimpleBalancer::Passthrough;
    let world = World::new(balanced(Balancer { simple, ..Balancer::default() }));
    for _ in 0..20 {
        assert_eq!(&*world.pick_as([10, 0, 0, 2]).unwrap().endpoint.workload.name, "b");
    }
    assert!((1..300).contains(&world.share("a")), "the service's own address leads to any");
}

/// A ServiceEntry with `resolution: NONE`: whatever is dialled is reached, as its rule says.
#[test]
fn what_is_passed_through_has_the_limits_of_its_rule() {
    let pool = ConnectionPool {
        max_connections: Some(1),
        idle_timeout_ms: Some(5),
        connect_timeout_ms: Some(7),
        ..ConnectionPool::default()
    };
    let mut world = World::new(pooled(pool));
    let mut service = Service::clone(&world.service);
    service.steering.mode = Mode::Passthrough;
    world.service = Arc::new(service);
    let dial = |world: &World| match world.choose([203, 0, 113, 1], Load::Connection(&[])) {
        Ok(Chosen::Any(_, Some(place))) => Ok(place),
        Ok(_) => panic!("a place without an endpoint"),
        Err(error) => Err(error),
    };
    let place = dial(&world).unwrap();
    assert_eq!(place.pool().unwrap().connect_timeout_ms, Some(7));
    assert_ne!(place.span(), Span::default());
    assert!(matches!(dial(&world), Err(Unpicked::Overflow(_))), "there is one");
    place.connected(false);
    drop(place);
    assert!(dial(&world).is_ok());
    world.apply(MeshChange::TrafficGone(name().to_string()));
    assert!(matches!(world.choose(DIALLED, Load::Connection(&[])), Ok(Chosen::Any(_, None))));
}

fn left_out_at_once() -> TrafficPolicy {
    let outliers = Outliers {
        consecutive_5xx: 1,
        consecutive_gateway: 0,
        consecutive_local: None,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        max_ejection_percent: 50,
        min_health_percent: 0,
    };
    policy(PortPolicy { outliers: Some(outliers), ..PortPolicy::default() })
}

#[test]
fn an_endpoint_that_settles_fails_once_if_at_all_and_not_by_our_own_limit() {
    use crate::inbound::Refusal;
    use crate::limits::{Excess, Limits, LimitsConfig};
    use crate::outbound::OutboundError;
    use crate::outbound::tried::{Guess, Tried};
    let out = |world: &World| world.balances.left_out().len();
    let place = |world: &World| {
        let picked = world.pick_for(DIALLED, Load::Connection(&[WorkloadUid("b".into())])).unwrap();
        Some(Box::new(picked.place))
    };
    let unsettled = || OutboundError::Local(Refusal::NotEnrolled("a".into()));
    let world = World::new(left_out_at_once());
    for _ in 0..10 {
        Tried::new(unsettled(), place(&world), None);
    }
    let exceeded = Limits::new(LimitsConfig::DEFAULT).exceeded(&WorkloadUid("client".into()), Excess::Idle);
    Tried::new(OutboundError::Local(Refusal::Limit(exceeded)), place(&world), None).give_up(None);
    assert_eq!(out(&world), 0);
    // On a guess nothing is said until it is right.
    let guess = Guess::default();
    Tried::new(unsettled(), place(&world), Some(&guess)).give_up(Some(&guess));
    assert_eq!(out(&world), 0);
    guess.counts();
    assert_eq!(out(&world), 1);
    let world = World::new(left_out_at_once());
    Tried::new(unsettled(), place(&world), None).give_up(None);
    assert_eq!(out(&world), 1);
}

#[test]
fn a_guess_takes_its_place_when_it_is_right() {
    let pool = ConnectionPool { max_connections: Some(1), ..ConnectionPool::default() };
    let world = World::new(pooled(pool));
    let (mut first, mut second) = (
        world.pick_for(DIALLED, Load::Guess(&[])).unwrap(),
        world.pick_for(DIALLED, Load::Guess(&[])).unwrap(),
    );
    first.place.enter().unwrap();
    assert!(second.place.enter().is_err(), "there is one");
    first.place.leave();
    second.place.enter().unwrap();
    assert!(matches!(world.pick_for(DIALLED, Load::Connection(&[])), Err(Unpicked::Overflow(_))));
}

#[test]
fn nothing_goes_where_what_is_said_of_the_traffic_is_not_understood() {
    let mut world = World::new(TrafficPolicy::default());
    let refused = Some("from the future".into());
    let stand_in = Traffic { service: name(), tables: vec![], policies: vec![], refused };
    // Of what was understood the last version stays.
    world.apply(MeshChange::TrafficRefused(Arc::new(stand_in.clone())));
    assert!(world.mesh.traffic(&name()).unwrap().refused.is_none());
    world.apply(MeshChange::TrafficGone(name().to_string()));
    world.apply(MeshChange::TrafficRefused(Arc::new(stand_in)));
    let error = world.pick_for(DIALLED, Load::Connection(&[])).err().unwrap().to_string();
    assert!(error.contains("from the future"), "{error}");
    let no_way = world.pick().err().unwrap();
    assert!(no_way.why.contains("from the future"), "{}", no_way.why);
}

#[test]
fn connections_have_places_as_long_as_they_last_and_are_left_out_by_their_failures() {
    let pool = ConnectionPool {
        max_connections: Some(2),
        max_requests: Some(1),
        idle_timeout_ms: Some(5),
        ..ConnectionPool::default()
    };
    let world = World::new(pooled(pool));
    let connect = |world: &World, failed: &[WorkloadUid]| world.pick_for(DIALLED, Load::Connection(failed));
    let (first, second) = (connect(&world, &[]).unwrap(), connect(&world, &[]).unwrap());
    assert!(
        matches!(connect(&world, &[]), Err(Unpicked::Overflow(_))),
        "requests are not counted, these are"
    );
    assert_ne!(first.place.span(), Span::default());
    drop(second);
    assert!(connect(&world, &[]).is_ok());
    let never = World::new(pooled(ConnectionPool { idle_timeout_ms: Some(0), ..ConnectionPool::default() }));
    assert_eq!(connect(&never, &[]).unwrap().place.span(), Span::default(), "0: it may be idle for ever");

    let outliers = Outliers {
        consecutive_5xx: 3,
        consecutive_gateway: 0,
        consecutive_local: None,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        max_ejection_percent: 50,
        min_health_percent: 0,
    };
    let world = World::new(policy(PortPolicy { outliers: Some(outliers), ..PortPolicy::default() }));
    let a = WorkloadUid("a".into());
    for _ in 0..3 {
        // Who has failed for it already is not picked again.
        let picked = connect(&world, &[WorkloadUid("b".into())]).unwrap();
        assert_eq!(picked.endpoint.workload.uid, a);
        picked.place.connected(false);
    }
    assert!((0..50).all(|_| connect(&world, &[]).unwrap().endpoint.workload.uid != a));
}

#[test]
fn who_dials_an_endpoint_of_a_service_without_an_address_gets_it() {
    let pool = ConnectionPool { max_connections: Some(2), ..ConnectionPool::default() };
    let world = World::new(pooled(pool));
    for (dialled, expected) in [([10, 0, 0, 1], "a"), ([10, 0, 0, 2], "b")] {
        for _ in 0..20 {
            assert_eq!(&*world.pick_as(dialled).unwrap().endpoint.workload.name, expected);
        }
    }
    assert!((1..300).contains(&world.share("a")), "nobody was chosen");
    // Another one is another database: it does not stand in for one that has gone.
    let wanted = Wanted {
        mesh: &world.mesh,
        generation: world.generation,
        client: &world.client,
        service: &world.service,
        port: 80,
        subset: None,
        address: [10, 0, 0, 9].into(),
        dialled: ([10, 0, 0, 77], 8080).into(),
        own: true,
    };
    let gone = world.balances.pick(&wanted, Load::Connection(&[]));
    assert!(matches!(gone, Err(Unpicked::Gone(_))), "it is no endpoint any more");
    // One limit for all of them, as for any service.
    let taken = |last| world.pick_for([10, 0, 0, last], Load::Connection(&[]));
    let _both = (taken(1).unwrap(), taken(2).unwrap());
    assert!(matches!(taken(1), Err(Unpicked::Overflow(_))));
}
