//! Istio's bookinfo and the founding document's manifests, as they are: each sample gives the traffic that Istio's
//! documentation says.

#[path = "bookinfo/founding.rs"]
mod founding;
#[path = "bookinfo/gateway_api.rs"]
mod gateway_api;
#[path = "bookinfo/samples.rs"]
mod samples;
#[path = "bookinfo/shares.rs"]
mod shares;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use samples::{apply, apply_files, objects};
use serde_json::{Value, json};
use shares::{Counts, count};
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, Proc, object, run_checks};
use warren_tests::shared;

const APP: &str = include_str!("bookinfo/app.py");
const RULES: &str = "networking/destination-rule-all";
const ALL_V1: &str = "networking/virtual-service-all-v1";

/// Pods: name, service, version, node.
const PODS: [(&str, &str, &str, &str); 11] = [
    ("productpage-v1", "productpage", "v1", "n1"),
    ("details-v1", "details", "v1", "n1"),
    ("details-v2", "details", "v2", "n2"),
    ("reviews-v1", "reviews", "v1", "n1"),
    ("reviews-v2", "reviews", "v2", "n2"),
    ("reviews-v2-b", "reviews", "v2", "n1"),
    ("reviews-v3", "reviews", "v3", "n2"),
    ("ratings-v1", "ratings", "v1", "n1"),
    ("ratings-v2", "ratings", "v2", "n2"),
    ("ratings-v2-mysql", "ratings", "v2-mysql", "n1"),
    ("ratings-v2-mysql-vm", "ratings", "v2-mysql-vm", "n2"),
];

#[test]
fn samples_of_istio_mean_what_istio_says() {
    if shared::or_skip("samples/bookinfo", "samples_of_istio_mean_what_istio_says").is_none() {
        return;
    }
    let mut lab = Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("default", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1"))
        .pod("far-client", |pod| pod.on("n2"));
    for (name, app, version, node) in PODS {
        lab = lab.pod(name, |pod| pod.on(node).label("app", app).label("version", version));
    }
    for app in ["productpage", "details", "reviews", "ratings"] {
        lab = lab.service(app, |service| service.port("http", 9080, 9080).select("app", app));
    }
    // One service of each version, as `platform/kube/bookinfo-versions.yaml` has them.
    for (app, version) in [
        ("productpage", "v1"),
        ("details", "v1"),
        ("reviews", "v1"),
        ("reviews", "v2"),
        ("reviews", "v3"),
        ("ratings", "v1"),
    ] {
        lab = lab.service(&format!("{app}-{version}"), |service| {
            service.port("http", 9080, 9080).select("app", app).select("version", version)
        });
    }
    lab = lab.service("my-svc", |service| service.port("http", 9080, 9080).select("app", "reviews"));
    lab = lab.service("marker", |service| service.port("http", 9080, 9080).select("app", "nobody"));
    lab.test(|lab| {
        lab.start_mesh()?;
        let _servers = start(lab)?;
        run_checks(
            lab,
            checks![
                everybody_sees_version_1,
                jason_alone_sees_version_2,
                who_is_not_jason_sees_version_3,
                ratings_are_late_for_jason_alone,
                ratings_fail_for_jason_alone,
                details_always_fail,
                traffic_is_shifted_as_the_weights_say,
                other_versions_of_ratings_and_details,
                a_request_has_as_long_as_its_timeout,
                rules_of_destinations_are_taken_as_they_are,
                gateway_api::routes_do_the_same,
                founding::the_virtual_service_is_taken_as_it_is,
                founding::the_destination_rule_is_taken_as_it_is,
                founding::the_gateway_is_reported,
            ],
        )
    });
}

fn start(lab: &Lab) -> Result<Vec<Proc>> {
    let spawn = |(name, app, version, _): (&str, &str, &str, &str)| {
        lab.pod(name).python(APP).resolve_names().args([app, version]).spawn()
    };
    let mut servers = PODS.into_iter().map(spawn).collect::<Result<Vec<_>>>()?;
    for server in &mut servers {
        server.wait_for("ready", Duration::from_secs(60))?;
    }
    Ok(servers)
}

/// What `http://SERVICE:9080PATH` answers to a user.
fn ask(lab: &Lab, service: &str, path: &str, user: Option<&str>) -> Result<Value> {
    let url = format!("http://{service}:9080{path}");
    let text = shares::answered(lab, &url, user)?;
    serde_json::from_str(&text).with_context(|| format!("{url}: {text:?}"))
}

fn page(lab: &Lab, user: Option<&str>) -> Result<Value> {
    ask(lab, "productpage", "/productpage", user)
}

fn everybody_sees_version_1(lab: &Lab) -> Result<()> {
    apply_files(lab, &[RULES, ALL_V1])?;
    for user in [None, Some("jason"), Some("other")] {
        let page = page(lab, user)?;
        ensure!(page["version"] == "v1" && page["details"]["version"] == "v1", "{page}");
        ensure!(page["reviews"]["version"] == "v1" && page["reviews"]["ratings"].is_null(), "{page}");
    }
    for service in ["productpage", "details", "reviews", "ratings"] {
        ensure!(count(lab, service, None, 40)? == Counts::from([("v1".to_owned(), 40)]), "{service}");
    }
    Ok(())
}

fn jason_alone_sees_version_2(lab: &Lab) -> Result<()> {
    apply_files(lab, &[RULES, ALL_V1, "networking/virtual-service-reviews-test-v2"])?;
    versions_of_reviews(lab, "v2", "v1")?;
    let page = page(lab, Some("jason"))?;
    ensure!(page["reviews"]["version"] == "v2" && page["reviews"]["ratings"]["version"] == "v1", "{page}");
    Ok(())
}

fn who_is_not_jason_sees_version_3(lab: &Lab) -> Result<()> {
    apply_files(lab, &[RULES, "networking/virtual-service-reviews-jason-v2-v3"])?;
    versions_of_reviews(lab, "v2", "v3")
}

/// Exactly these versions, for jason and for anybody else.
fn versions_of_reviews(lab: &Lab, jason: &str, other: &str) -> Result<()> {
    for (user, version) in [(Some("jason"), jason), (Some("Jason"), other), (None, other)] {
        let seen = count(lab, "reviews", user, 40)?;
        ensure!(seen == Counts::from([(version.to_owned(), 40)]), "{user:?}: {seen:?}");
    }
    Ok(())
}

fn ratings_are_late_for_jason_alone(lab: &Lab) -> Result<()> {
    let (jason, delay) =
        ("networking/virtual-service-reviews-test-v2", "networking/virtual-service-ratings-test-delay");
    apply_files(lab, &[RULES, ALL_V1, jason, delay])?;
    let page = page(lab, Some("jason"))?;
    let ratings = &page["reviews"]["ratings"];
    let took = ratings["seconds"].as_f64().unwrap_or_default();
    ensure!(ratings["status"] == 200 && took >= 7.0, "{page}");
    let began = Instant::now();
    ensure!(ask(lab, "ratings", "/ratings/0", Some("other"))?["version"] == "v1");
    ensure!(began.elapsed() < Duration::from_secs(7), "another waited for {:?}", began.elapsed());
    Ok(())
}

fn ratings_fail_for_jason_alone(lab: &Lab) -> Result<()> {
    let (jason, abort) =
        ("networking/virtual-service-reviews-test-v2", "networking/virtual-service-ratings-test-abort");
    apply_files(lab, &[RULES, ALL_V1, jason, abort])?;
    for _ in 0..5 {
        let page = page(lab, Some("jason"))?;
        let ratings = &page["reviews"]["ratings"];
        ensure!(ratings["status"] == 500 && ratings["text"] == "fault filter abort", "{page}");
        ensure!(ask(lab, "ratings", "/ratings/0", None)?["version"] == "v1");
    }
    Ok(())
}

fn details_always_fail(lab: &Lab) -> Result<()> {
    apply_files(lab, &["networking/fault-injection-details-v1"])?;
    for user in [None, Some("jason")] {
        ensure!(page(lab, user)?["details"]["status"] == 555);
    }
    Ok(())
}

fn traffic_is_shifted_as_the_weights_say(lab: &Lab) -> Result<()> {
    for (file, wanted) in [
        ("50-v3", [("v1", 0.5), ("v3", 0.5)].as_slice()),
        ("90-10", &[("v1", 0.9), ("v2", 0.1)]),
        ("80-20", &[("v1", 0.8), ("v2", 0.2)]),
        ("v2-v3", &[("v2", 0.5), ("v3", 0.5)]),
        ("v3", &[("v3", 1.0)]),
    ] {
        apply_files(lab, &[RULES, ALL_V1, &format!("networking/virtual-service-reviews-{file}")])?;
        shares::hold(lab, file, wanted)?;
    }
    Ok(())
}

fn other_versions_of_ratings_and_details(lab: &Lab) -> Result<()> {
    for (file, version) in [("db", "v2"), ("mysql", "v2-mysql"), ("mysql-vm", "v2-mysql-vm")] {
        apply_files(lab, &[RULES, ALL_V1, &format!("networking/virtual-service-ratings-{file}")])?;
        let page = page(lab, None)?;
        let reviews = &page["reviews"];
        ensure!(reviews["version"] == "v3" && reviews["ratings"]["version"] == version, "{file}: {page}");
    }
    apply_files(lab, &[RULES, ALL_V1, "networking/virtual-service-details-v2"])?;
    ensure!(count(lab, "details", None, 20)? == Counts::from([("v2".to_owned(), 20)]));
    Ok(())
}

/// From the documentation's task "Request Timeouts".
fn a_request_has_as_long_as_its_timeout(lab: &Lab) -> Result<()> {
    let service = |name: &str, http: &Value| {
        object("VirtualService", name, &json!({ "hosts": [name], "http": [http] })).to_string()
    };
    let to = |host: &str, subset: &str| json!([{ "destination": { "host": host, "subset": subset } }]);
    let fault = json!({ "delay": { "percentage": { "value": 100 }, "fixedDelay": "2s" } });
    let reviews = service("reviews", &json!({ "route": to("reviews", "v2"), "timeout": "0.5s" }));
    let ratings = service("ratings", &json!({ "fault": fault, "route": to("ratings", "v1") }));
    apply(lab, &[samples::text(&format!("samples/bookinfo/{RULES}.yaml"))?, reviews, ratings])?;
    let page = page(lab, None)?;
    let reviews = &page["reviews"];
    ensure!(reviews["status"] == 504 && reviews["text"] == "upstream request timeout", "{page}");
    let took = reviews["seconds"].as_f64().unwrap_or_default();
    ensure!((0.5..2.0).contains(&took), "{page}");
    Ok(())
}

fn rules_of_destinations_are_taken_as_they_are(lab: &Lab) -> Result<()> {
    for file in ["networking/destination-rule-reviews", "networking/destination-rule-all-mtls"] {
        apply_files(lab, &[file, "networking/virtual-service-reviews-test-v2"])?;
        versions_of_reviews(lab, "v2", "v1")?;
    }
    // What is meant for gateways changes nothing within the mesh.
    apply_files(lab, &["networking/bookinfo-gateway"])?;
    let seen = count(lab, "productpage", None, 10)?;
    ensure!(seen == Counts::from([("v1".to_owned(), 10)]), "{seen:?}");
    for file in [
        "networking/egress-rule-google-apis",
        "networking/bookinfo-gateway",
        "networking/certmanager-gateway",
    ] {
        ensure!(!objects(&samples::text(&format!("samples/bookinfo/{file}.yaml"))?)?.is_empty());
        apply_files(lab, &[file])?;
        // Alone they lead to services of other files; there is nothing else to say against them.
        let remarks = founding::analyzed(lab, &[&format!("samples/bookinfo/{file}.yaml")])?;
        let is_bad =
            |remark: &Value| remark["severity"] == "error" && remark["code"] != "destination-not-found";
        ensure!(!remarks.iter().any(is_bad), "{file}: {remarks:?}");
    }
    Ok(())
}
