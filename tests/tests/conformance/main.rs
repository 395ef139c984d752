//! Cases of the Gateway API's conformance suite, with the suite's own fixtures and expectations: its Deployments are pods of the
//! lab with our echo server in them, its routes are read by the controller as they are.

use serde_json::{Value, json};
use warren_tests::shared;

mod cases;
mod expect;
mod fixture;
mod run;
mod slices;
mod status;

use cases::Exchange;
use fixture::Fixture;
use run::{Bench, run_all};

const FIXTURES: &str = "gateway-conformance";
const MESH: &str = "gateway-conformance-mesh";
const CONSUMER: &str = "gateway-conformance-mesh-consumer";
const INFRA: &str = "gateway-conformance-infra";

#[test]
fn mesh_cases_hold() {
    mesh_cases("mesh_cases_hold", &[]);
}

#[test]
fn mesh_cases_hold_by_interest() {
    mesh_cases("mesh_cases_hold_by_interest", &["--subscribe", "interest"]);
}

fn mesh_cases(test: &str, agent_args: &[&str]) {
    let Some(dir) = shared::or_skip(FIXTURES, test) else { return };
    let fixture = Fixture::read(&dir, "mesh/manifests.yaml", &[MESH, CONSUMER]).expect("the fixture");
    let cases = cases::read(include_str!("mesh.yaml")).expect("the cases");
    let manifests = fixture.cases(true).expect("the suite's index");
    assert!(cases.keys().eq(manifests.keys()), "{:?} are not {:?}", cases.keys(), manifests.keys());
    let lab = fixture.lab().expect("the lab");
    agent_args.iter().fold(lab, |lab, arg| lab.agent_arg(arg)).test(|lab| {
        lab.start_mesh()?;
        let bench = Bench {
            lab,
            fixture: &fixture,
            running: &fixture.serve(lab)?,
            client: fixture.pod(lab, MESH, "echo-v1")?,
            url: "http://echo",
            probes: mesh_probes(&fixture),
        };
        run_all(&bench, "mesh cases of the Gateway API's conformance suite", &cases, &manifests)
    });
}

/// Every service, on the ports that routes are for, from everywhere.
fn mesh_probes(fixture: &Fixture) -> Vec<Exchange> {
    let mut probes = Vec::new();
    for from in [MESH, CONSUMER] {
        for (namespace, name) in fixture.services() {
            let url = |port: u16| Some(format!("http://{name}.{namespace}:{port}"));
            let probe =
                |port| Exchange { from: Some(from.to_owned()), url: url(port), ..Exchange::default() };
            probes.extend([80, 7070].map(probe));
        }
    }
    probes
}

#[test]
fn cases_for_gateways_hold_for_a_service() {
    let Some(dir) = shared::or_skip(FIXTURES, "cases_for_gateways_hold_for_a_service") else { return };
    let fixture = Fixture::read(&dir, "base/manifests.yaml", &[INFRA]).unwrap();
    let cases = cases::read(include_str!("services.yaml")).unwrap();
    let mut manifests = fixture.cases(false).unwrap();
    manifests.retain(|name, _| cases.contains_key(name));
    let lab = fixture.lab().unwrap();
    let lab = lab.pod("client", |pod| pod.on("n1").namespace(INFRA)).service("front", |front| {
        front.namespace(INFRA).port("http", 80, 3000).select("app", "infra-backend-v1")
    });
    lab.test(|lab| {
        let behind = fixture.pods(lab, INFRA, "infra-backend-v1");
        for objects in manifests.values_mut() {
            attach(objects);
            slices::fill(objects, &behind);
        }
        lab.start_mesh()?;
        let bench = Bench {
            lab,
            fixture: &fixture,
            running: &fixture.serve(lab)?,
            client: lab.pod("client"),
            url: "http://front",
            probes: vec![Exchange::default()],
        };
        run_all(&bench, "cases for gateways, with a Service in the gateway's place", &cases, &manifests)
    });
}

/// Routes of a gateway become those of the service; gateways go.
fn attach(objects: &mut Vec<Value>) {
    objects.retain(|object| object["kind"] != "Gateway");
    for route in objects.iter_mut().filter(|object| run::is_route(object)) {
        route["spec"]["parentRefs"] = json!([{ "group": "", "kind": "Service", "name": "front" }]);
    }
}
