//! What is told of a small mesh: two pods behind a service, one of each version, on two nodes.

use super::*;
use crate::route::Failing;
use crate::store::MeshChange;
use serde_json::{Value, json};
use std::sync::Arc;
use warren_common::model::admin::{
    RoutesQuestion, RulesKind, Transport, Verdict, Why, WhyMark, WhyOutcome, WhyQuestion, WhyStep,
};
use warren_common::model::traffic::Traffic;
use warren_common::model::{
    AuthorizationPolicy, Enrolment, Health, Identity, Labels, PeerAuthentication, Placement, PortMapping,
    Service, ServiceName, TunnelProtocol, Workload, WorkloadKind, WorkloadUid,
};

fn service_name(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: format!("{name}.shop.svc.cluster.local").into() }
}

fn service(name: &str, address: &str, ports: &Value) -> Service {
    serde_json::from_value(json!({
        "name": name, "key": service_name(name), "addresses": [address], "publish_not_ready": false, "ports": ports,
    }))
    .unwrap()
}

fn pod(name: &str, node: &str, address: &str, labels: &[(&str, &str)]) -> Workload {
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let mapping = |service_port, target_port| PortMapping { service_port, target_port };
    let behind = labels.contains_key("version");
    let served = [(service_name("web"), vec![mapping(80, 8080), mapping(5432, 5432)])];
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into()),
        name: name.into(),
        namespace: "shop".into(),
        addresses: vec![address.parse().unwrap()],
        identity: Identity::new("cluster.local", "shop", name).unwrap(),
        node: node.into(),
        host_network: false,
        tunnel: TunnelProtocol::Hbone,
        health: Health::Healthy,
        owner: name.into(),
        kind: WorkloadKind::Pod,
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        cluster: "Kubernetes".into(),
        services: Arc::new(served.into_iter().filter(|_| behind).collect()),
        labels: Arc::new(labels),
        enrolment: Enrolment { pod_uid: name.into(), enrolled: true, ..Enrolment::default() },
        peer_authentication: PeerAuthentication::default(),
        authorization_policies: Vec::new(),
        placement: Placement::default(),
    }
}

fn to(subset: &str, weight: u32) -> Value {
    json!({"to": {"service": {"service": service_name("web"), "port": 80, "subset": subset}}, "weight": weight})
}

fn rule(name: &str, wanted: &Value, forward: &Value) -> Value {
    json!({"name": name, "matches": [wanted], "action": {"forward": forward}})
}

fn path(text: &str) -> Value {
    json!({"path": {"prefix": text}})
}

fn rules() -> Vec<Value> {
    let always = 1_000_000;
    vec![
        rule(
            "jason",
            &json!({"headers": [{"name": "user", "value": {"exact": "jason"}}], "path": {"prefix": "/shop/"}}),
            &json!({"backends": [to("v2", 1)], "rewrite": {"path": {"prefix": "/cart/"}}}),
        ),
        json!({"name": "old", "matches": [path("/old")],
            "action": {"redirect": {"status": 301, "port": "of_request", "path": {"full": "/new"}}}}),
        json!({"name": "made", "matches": [path("/made")], "action": {"reply": {"status": 299}}}),
        rule(
            "fault",
            &path("/fault"),
            &json!({"backends": [to("v1", 1)],
            "fault": {"abort": {"http_status": 418, "per_million": always}}}),
        ),
        rule("none", &path("/none"), &json!({"backends": [to("v9", 1)]})),
        rule(
            "gone",
            &path("/gone"),
            &json!({"backends": [{"to": {"broken": {"wanted": "x", "why": "it is not there"}}, "weight": 1}]}),
        ),
        rule("split", &path("/split"), &json!({"backends": [to("v1", 20), to("v2", 80)]})),
        rule("odd", &path("/odd"), &json!({"backends": [to("v3", 1)]})),
        json!({"name": "web", "matches": [{"clients": {"labels": {"app": "other"}}, "path": {"prefix": "/mine"}}],
            "action": {"reply": {"status": 298}}}),
        rule("rest", &path("/shop"), &json!({"backends": [to("v1", 1)], "timeout_ms": 2000})),
    ]
}

fn traffic(rules: &[Value]) -> Traffic {
    let object = |kind: &str| json!({"kind": kind, "namespace": "shop", "name": "web"});
    let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
    serde_json::from_value(json!({
        "service": service_name("web"),
        "tables": [
            {"clients": {"namespaces": ["bank"]}, "api": "istio", "objects": [object("VirtualService")], "rules": {"http": []}},
            {"ports": [80], "api": "istio", "objects": [object("VirtualService")], "rules": {"http": rules}},
        ],
        "policies": [{"objects": [object("DestinationRule")], "subsets": [subset("v1"), subset("v2"), subset("v9")],
            "policy": {"all": {"outliers": {"consecutive_5xx": 5, "consecutive_gateway": 0, "interval_ms": 10000,
                "base_ejection_ms": 30000, "max_ejection_percent": 100, "min_health_percent": 0}}}}],
    }))
    .unwrap()
}

fn mesh(rules: &[Value]) -> Mesh {
    let ports = json!([
        {"service_port": 80, "target_port": 8080, "target_port_name": null, "app_protocol": "http11"},
        {"service_port": 5432, "target_port": 5432, "target_port_name": null, "app_protocol": "unknown"},
    ]);
    let mut mesh = Mesh::default();
    let pods = [
        pod("client", "n1", "10.0.1.9", &[]),
        pod("other", "n1", "10.0.1.8", &[("app", "other")]),
        pod("near", "n1", "10.0.1.1", &[("version", "v1")]),
        pod("far", "n2", "10.0.2.1", &[("version", "v2")]),
    ];
    mesh.apply([
        MeshChange::Policies,
        MeshChange::Service(Arc::new(service("web", "10.96.0.7", &ports))),
        MeshChange::Traffic(Arc::new(traffic(rules))),
    ]);
    mesh.apply(pods.map(|pod| MeshChange::Workload(Arc::new(pod))));
    mesh
}

fn scene(mesh: &Mesh) -> Scene<'_> {
    Scene { mesh, node: Some("n1"), known: &Nothing, entropy: 0, now: Instant::now() }
}

fn ask(to: &str, headers: &[&str]) -> WhyQuestion {
    let headers = headers.iter().map(|&header| header.to_owned()).collect();
    WhyQuestion { client: "shop/client".into(), to: to.into(), headers, ..WhyQuestion::default() }
}

fn told(mesh: &Mesh, to: &str, headers: &[&str]) -> Why {
    why(&scene(mesh), &ask(to, headers)).unwrap()
}

fn outcome(to: &str) -> WhyOutcome {
    told(&mesh(&rules()), to, &[]).outcome
}

fn step<'a>(why: &'a Why, about: &str) -> &'a WhyStep {
    why.steps.iter().find(|step| step.about == about).unwrap_or_else(|| panic!("no {about}: {why:#?}"))
}

#[test]
fn a_request_is_followed_to_its_endpoint() {
    let told = told(&mesh(&rules()), "http://web/shop/x?a=b", &["user: jason"]);
    assert_eq!(told.asked, "GET http://web/shop/x?a=b");
    let WhyOutcome {
        route, objects, cluster, endpoint, address, transport, verdict, status, certain, ..
    } = &told.outcome;
    assert_eq!((route.as_deref(), objects.as_deref()), (Some("jason"), Some("VirtualService shop/web")));
    assert_eq!(cluster.as_deref(), Some("outbound|80|v2|web.shop.svc.cluster.local"));
    assert_eq!((endpoint.as_deref(), *address), (Some("shop/far"), "10.0.2.1:8080".parse().ok()));
    assert_eq!((*transport, *verdict, *status, *certain), (Transport::Hbone, Verdict::Allowed, None, true));
    assert!(step(&told, "rewrite").text.contains("/cart/x?a=b"));
    assert!(step(&told, "settings").text.contains("subset v2: version=v2"));
    let table = &step(&told, "table").rows;
    assert_eq!((table[0].mark, table[1].mark), (WhyMark::Excluded, WhyMark::Chosen));
    let endpoints = &step(&told, "endpoint").rows;
    assert_eq!((endpoints[0].mark, &*endpoints[0].cells[0]), (WhyMark::Chosen, "shop/far"));
    assert_eq!(
        (endpoints[1].mark, &*endpoints[1].cells[2]),
        (WhyMark::Excluded, "lacks the label version=v2")
    );
}

#[test]
fn what_the_mesh_answers_itself_is_told_as_a_client_sees_it() {
    for (url, route, status, flag) in [
        ("http://web/old?q", Some("old"), 301, None),
        ("http://web.shop/made", Some("made"), 299, None),
        ("http://web/fault", Some("fault"), 418, Some("FI")),
        ("http://web/none", Some("none"), 503, Some("UH")),
        ("http://web/gone", Some("gone"), 503, Some("NC")),
        ("http://web/odd", Some("odd"), 503, Some("NC")),
        ("http://web/mine", None, 404, Some("NR")),
        ("http://web/nobody", None, 404, Some("NR")),
    ] {
        let outcome = outcome(url);
        assert_eq!((outcome.route.as_deref(), outcome.status), (route, Some(status)), "{url}");
        assert_eq!(outcome.flag.as_deref(), flag, "{url}");
    }
    assert_eq!(outcome("http://10.96.0.7/old?q").location.as_deref(), Some("http://10.96.0.7/new?q"));
    let grpc = why(&scene(&mesh(&rules())), &ask("grpc://web:80/x.Y/Z", &[])).unwrap();
    assert!(grpc.asked.starts_with("POST ") && grpc.outcome.status == Some(200), "{grpc:?}");
    assert!(grpc.outcome.text.contains("grpc-status 12"), "{grpc:?}");
}

#[test]
fn the_largest_share_is_followed_and_chance_is_said() {
    let told = told(&mesh(&rules()), "http://web/split", &[]);
    assert_eq!(told.outcome.endpoint.as_deref(), Some("shop/far"));
    assert!(!told.outcome.certain);
    let marks: Vec<_> = step(&told, "backend").rows.iter().map(|row| (row.mark, &*row.cells[0])).collect();
    assert_eq!(marks, [(WhyMark::Possible, "20%"), (WhyMark::Chosen, "80%")]);
}

#[test]
fn connections_that_are_no_requests_go_past_the_rules() {
    let mesh = mesh(&rules());
    let db = told(&mesh, "web:5432", &[]);
    assert_eq!(db.outcome.address.map(|address| address.port()), Some(5432));
    assert!(!db.outcome.certain, "there are two: {db:?}");
    assert!(told(&mesh, "web:99", &[]).outcome.text.contains("only 80, 5432"));
    let direct = told(&mesh, "10.0.1.1:1234", &[]);
    assert_eq!(direct.outcome.transport, Transport::SameNode);
    assert_eq!(told(&mesh, "tcp://192.0.2.1:443", &[]).outcome.transport, Transport::Plaintext);
    let stranger = told(&mesh, "http://webb/", &[]);
    assert!(step(&stranger, "service").text.ends_with("is web meant?"), "{stranger:?}");
    // What is declared as HTTP is answered in HTTP.
    assert_eq!(told(&mesh, "tcp://web:80", &[]).outcome.status, Some(400));
}

#[test]
fn routes_of_connections_are_followed() {
    let to = |subset: &str, weight: u32| json!({"to": {"service": {"service": service_name("web"), "port": 5432, "subset": subset}}, "weight": weight});
    let with = |api: &str, tls: Value, tcp: Value| {
        let mut all = serde_json::to_value(traffic(&rules())).unwrap();
        let object = json!({"kind": "TCPRoute", "namespace": "shop", "name": "db"});
        all["tables"].as_array_mut().unwrap().push(
            json!({"ports": [5432], "api": api, "objects": [object], "rules": {"tls": tls, "tcp": tcp}}),
        );
        let mut mesh = mesh(&rules());
        mesh.apply([MeshChange::Traffic(Arc::new(serde_json::from_value(all).unwrap()))]);
        mesh
    };
    let named = json!([{"name": "sni", "matches": [{"server_names": ["web"]}], "backends": [to("v2", 1)]}]);
    let mesh = with("istio", named.clone(), json!([{"name": "db", "backends": [to("v1", 9), to("v2", 1)]}]));
    let of = |mesh: &Mesh, url: &str| {
        let WhyOutcome { route, endpoint, flag, certain, .. } = told(mesh, url, &[]).outcome;
        (route, endpoint, flag, certain)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(of(&mesh, "web:5432"), (text("db"), text("shop/near"), None, false));
    assert_eq!(of(&mesh, "tls://web:5432"), (text("sni"), text("shop/far"), None, true));
    assert_eq!(of(&mesh, "tls://web.shop:5432").0, text("db"), "no rule of TLS has this name");
    let whole = told(&mesh, "web:5432", &[]).outcome;
    assert_eq!(whole.cluster.as_deref(), Some("outbound|5432|v1|web.shop.svc.cluster.local"));
    assert_eq!(whole.objects.as_deref(), Some("TCPRoute shop/db"));
    let gateway = with("gateway", named, json!([{"name": "db", "backends": [to("v3", 1)]}]));
    assert_eq!(of(&gateway, "web:5432"), (text("db"), None, text("NC"), true));
    let none = with("gateway", json!([]), json!([]));
    assert_eq!(of(&none, "web:5432"), (None, None, text("NR"), true));
}

#[test]
fn a_destination_rule_alone_is_enough_where_the_port_says_http() {
    let mesh = mesh(&[]);
    let web = told(&mesh, "http://web/", &[]);
    assert!(step(&web, "settings").text.contains("outliers out after 5 errors"), "{web:?}");
    assert_eq!(web.outcome.cluster.as_deref(), Some("outbound|80||web.shop.svc.cluster.local"));
    let db = told(&mesh, "http://web:5432/", &[]);
    assert!(step(&db, "protocol").text.starts_with("carried as bytes"), "{db:?}");
    assert_eq!(db.outcome.cluster.as_deref(), Some("outbound|5432||web.shop.svc.cluster.local"));
}

#[test]
fn who_is_not_captured_is_told_so() {
    let mut mesh = mesh(&rules());
    let mut plain = pod("client", "n1", "10.0.1.9", &[]);
    plain.enrolment.exclude_outbound_ports = vec![5432];
    plain.enrolment.exclude_outbound_cidrs = vec![("192.0.2.0".parse().unwrap(), 24)];
    mesh.apply([MeshChange::Workload(Arc::new(plain.clone()))]);
    for to in ["web:5432", "192.0.2.9:80", "127.0.0.1:1", "10.0.1.9:80"] {
        assert_eq!(told(&mesh, to, &[]).outcome.text, "leaves as it is", "{to}");
    }
    plain.enrolment.enrolled = false;
    mesh.apply([MeshChange::Workload(Arc::new(plain))]);
    assert!(told(&mesh, "http://web/", &[]).outcome.text.contains("nothing of this pod is captured"));
}

#[test]
fn nothing_holds_for_a_service_entry_without_addresses() {
    let key = ServiceName { namespace: "shop".into(), hostname: "api.example.com".into() };
    let entry = |addresses: &[&str]| -> Service {
        let ports = json!([{"service_port": 80, "target_port": 80, "target_port_name": null, "app_protocol": "http11"}]);
        serde_json::from_value(json!({"name": key.hostname, "key": key, "addresses": addresses,
            "publish_not_ready": false, "ports": ports}))
        .unwrap()
    };
    let mut all = traffic(&[json!({"name": "made", "matches": [], "action": {"reply": {"status": 299}}})]);
    all.service = key.clone();
    let mut mesh = mesh(&[]);
    let listed = Workload {
        services: Arc::new([(key.clone(), vec![PortMapping { service_port: 80, target_port: 80 }])].into()),
        ..pod("listed", "", "192.0.2.1", &[])
    };
    mesh.apply([
        MeshChange::Workload(Arc::new(listed)),
        MeshChange::Service(Arc::new(entry(&[]))),
        MeshChange::Traffic(Arc::new(all)),
    ]);
    let plain = told(&mesh, "http://api.example.com/", &[]);
    assert!(step(&plain, "service").text.ends_with("a ServiceEntry without addresses"));
    assert_eq!((plain.outcome.transport, plain.outcome.status), (Transport::Plaintext, None));
    assert_eq!(plain.outcome.text, "leaves as it is");
    mesh.apply([MeshChange::Service(Arc::new(entry(&["192.0.2.9"])))]);
    assert_eq!(told(&mesh, "http://api.example.com/", &[]).outcome.status, Some(299));
}

#[test]
fn policies_of_the_server_are_asked() {
    let mut mesh = mesh(&rules());
    let policy: AuthorizationPolicy = serde_json::from_value(json!({
        "name": "shop/no-clients", "scope": "namespace", "action": "deny",
        "rules": [{"index": 0, "clauses": [[{"principals": [{"exact": "cluster.local/ns/shop/sa/client"}]}]]}],
    }))
    .unwrap();
    mesh.apply([MeshChange::Policy(Arc::new(policy))]);
    let told = told(&mesh, "http://web/shop/", &[]);
    assert_eq!((told.outcome.verdict, told.outcome.flag.as_deref()), (Verdict::Denied, Some("DENY")));
    assert!(told.outcome.text.starts_with("refused by shop/near"), "{told:?}");
}

/// Near is left out by outlier detection, far has work to do.
struct Ejected;

impl Known for Ejected {
    fn seen(&self, _: &Workload, _: &ServiceName, _: u16, _: Option<&Arc<str>>) -> Seen {
        let uid = |name: &str| WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into());
        Seen { out: [uid("near")].into(), active: [(uid("far"), 3)].into(), ..Seen::default() }
    }

    fn failing(&self) -> Failing {
        Failing::default()
    }

    fn last(&self, _: &Workload, _: &ServiceName) -> Option<WorkloadUid> {
        None
    }
}

#[test]
fn who_is_left_out_is_not_chosen() {
    let all = json!({"name": "all", "action": {"forward": {"backends": [
        {"to": {"service": {"service": service_name("web"), "port": 80}}, "weight": 1}]}}});
    let mesh = mesh(&[all]);
    let told = why(&Scene { known: &Ejected, ..scene(&mesh) }, &ask("http://web/", &[])).unwrap();
    assert_eq!(told.outcome.endpoint.as_deref(), Some("shop/far"));
    let rows: Vec<_> = step(&told, "endpoint").rows.iter().map(|row| &*row.cells[2]).collect();
    assert_eq!(rows, ["ready, 3 requests under way", "left out by outlier detection"]);
}

#[test]
fn questions_that_cannot_be_answered_say_what_to_do() {
    let mesh = mesh(&rules());
    let error = |client: &str, to: &str| {
        let question = WhyQuestion { client: client.into(), ..ask(to, &[]) };
        why(&scene(&mesh), &question).unwrap_err().to_string()
    };
    assert_eq!(error("shop/clent", "http://web/"), "there is no pod shop/clent; is it shop/client?");
    assert!(error("shop/far", "http://web/").contains("--node n2"));
    for (to, said) in [
        ("web/path", "http://web/path"),
        ("web", "no port"),
        ("ftp://web", "its scheme"),
        ("http://", "nowhere to go"),
        ("http://user@web/", "no host"),
    ] {
        let error = error("shop/client", to);
        assert!(error.contains(said), "{to}: {error}");
    }
    let header = why(&scene(&mesh), &ask("http://web/", &["user jason"])).unwrap_err();
    assert!(header.to_string().contains("'Name: value'"), "{header}");
    let method = WhyQuestion { method: "G T".into(), ..ask("http://web/", &[]) };
    assert!(why(&scene(&mesh), &method).unwrap_err().to_string().contains("no method"));
}

#[test]
fn ten_thousand_rules_are_told_in_a_few_lines() {
    let many = (0..10_000).map(|n| {
        json!({"name": format!("r{n}"), "matches": [{"path": {"exact": format!("/{n}")}}], "action": {"reply": {"status": 200}}})
    });
    let mesh = mesh(&many.collect::<Vec<_>>());
    let told = told(&mesh, "http://web/9999", &[]);
    let rules = step(&told, "rules");
    assert!(rules.rows.len() < 100 && rules.text.contains("number 10000 of 10000"), "{}", rules.text);
    assert_eq!(rules.rows.last().map(|row| (row.mark, &*row.cells[0])), Some((WhyMark::Chosen, "r9999")));
    let listed = routes(&scene(&mesh), &RoutesQuestion { limit: 10, ..RoutesQuestion::default() }).unwrap();
    let http = listed.routes.iter().find(|of| of.kind == RulesKind::Http).unwrap();
    assert_eq!((http.rules.len(), http.left_out), (10, 9990));
}

#[test]
fn routes_are_told_by_who_they_are_for() {
    let mesh = mesh(&rules());
    let all = routes(&scene(&mesh), &RoutesQuestion::default()).unwrap().routes;
    let of: Vec<_> = all.iter().map(|of| (of.port, of.kind, of.clients.join(" "), of.rules.len())).collect();
    let others = "shop/client shop/near".to_owned();
    assert_eq!(
        of,
        [
            (80, RulesKind::Http, others.clone(), 9),
            (80, RulesKind::Http, "shop/other".into(), 10),
            (5432, RulesKind::None, "shop/client shop/near shop/other".into(), 0),
        ]
    );
    assert!(!all[0].every_client && all[2].every_client);
    let jason = &all[0].rules[0];
    assert_eq!((&*jason.name, &*jason.when[0]), ("jason", "path prefix /shop/, header user \"jason\""));
    assert_eq!(jason.backends[0].to, "web.shop.svc.cluster.local:80 subset v2");
    assert_eq!(jason.extras, ["rewrite prefix /cart/"]);
    let split: Vec<_> = all[0].rules[6].backends.iter().map(|backend| backend.percent).collect();
    assert_eq!(split, [20.0, 80.0]);
    let policy = all[0].policy.as_ref().unwrap();
    assert!(policy.says[0].starts_with("outliers out after 5 errors"), "{policy:?}");
    assert_eq!(policy.subsets.iter().map(|subset| subset.endpoints).collect::<Vec<_>>(), [1, 1, 0]);
    let remarks = all[0].remarks.join("; ");
    for said in [
        "1 of its rules are for other clients",
        "x leads nowhere",
        "the subset v3 of",
        "subset v9 has no endpoint",
    ] {
        assert!(remarks.contains(said), "{remarks}");
    }
    let one = |service: &str, client: Option<&str>| {
        let client = client.map(str::to_owned);
        let question = RoutesQuestion { service: Some(service.into()), client, ..RoutesQuestion::default() };
        routes(&scene(&mesh), &question).map(|told| told.routes.len())
    };
    assert_eq!((one("web", None), one("web.shop", None), one("we", None)), (Ok(3), Ok(3), Ok(0)));
    assert_eq!(one("web", Some("shop/other")), Ok(2));
    assert!(one("web", Some("shop/far")).is_err());
}

#[test]
fn a_service_that_nobody_knows_is_said_with_those_that_may_be_meant() {
    let mesh = mesh(&rules());
    let unknown = |service: &str, namespace: Option<&str>| {
        let namespace = namespace.map(str::to_owned);
        let question =
            RoutesQuestion { service: Some(service.into()), namespace, ..RoutesQuestion::default() };
        routes(&scene(&mesh), &question).unwrap().unknown
    };
    let known = [("web", None), ("web.shop", None), ("web", Some("shop"))];
    assert!(known.iter().all(|(service, namespace)| unknown(service, *namespace).is_none()));
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(unknown("webb", None), said("there is no service webb; is web meant?"));
    assert_eq!(
        unknown("web", Some("bank")),
        said("there is no service web in the namespace bank; is web.shop meant?")
    );
    let none = "there is no service other-name; `warren services` shows those that are known";
    assert_eq!(unknown("other-name", None), said(none));
    assert_eq!(routes(&scene(&mesh), &RoutesQuestion::default()).unwrap().unknown, None);
}

/// The mesh of [`mesh`], where `web` has no address.
fn without_address(rules: &[Value]) -> Mesh {
    let mut mesh = mesh(rules);
    let web = Service::clone(mesh.service(&service_name("web")).unwrap());
    mesh.apply([MeshChange::Service(Arc::new(Service { addresses: vec![], ..web }))]);
    mesh
}

#[test]
fn who_dials_a_pod_of_a_headless_service_is_told_its_rules() {
    let forward =
        json!({"backends": [{"to": {"service": {"service": service_name("web"), "port": 80}}, "weight": 1}]});
    let of = |to: Value| without_address(&[json!({"name": "all", "action": {"forward": to}})]);
    let headless = of(forward);
    for (to, pod) in [("http://10.0.2.1:8080/", "shop/far"), ("http://10.0.1.1:8080/", "shop/near")] {
        let told = told(&headless, to, &[]);
        assert_eq!(told.outcome.endpoint.as_deref(), Some(pod), "{told:?}");
        assert_eq!((told.outcome.route.as_deref(), told.outcome.certain), (Some("all"), true));
        assert!(
            step(&told, "service").text.contains("web.shop.svc.cluster.local port 80, which has no address")
        );
        assert!(step(&told, "endpoint").text.contains("the one that was dialled"));
    }
    // A subset is what the rule says.
    let v2 = of(json!({"backends": [to("v2", 1)]}));
    let subset = told(&v2, "http://10.0.1.1:8080/", &[]);
    assert_eq!(subset.outcome.endpoint.as_deref(), Some("shop/far"));
    // Nobody translates ports of pods, and with an address it is passed over.
    let other = told(&headless, "http://10.0.2.1:80/", &[]);
    assert!(other.outcome.route.is_none() && step(&other, "service").text.starts_with("no service"));
    let other = told(&mesh(&rules()), "http://10.0.2.1:8080/made", &[]);
    assert!(other.outcome.route.is_none());
}
