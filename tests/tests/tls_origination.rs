//! TLS that the client's node speaks where a DestinationRule asks for it: to servers outside of the mesh, and to pods within the
//! mesh's own tunnel; and whom a rule lets answer of those pods.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use warren_tests::checks;
use warren_tests::lab::{Lab, Mesh, poll_until, run_checks};

const SERVER: &str = include_str!("l4_routes/server.py");
const CLIENT: &str = include_str!("l4_routes/client.py");
const HTTPS: &str = include_str!("l4_routes/https.py");
/// A change of the configuration takes effect within a second; a busy machine may be slower.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn tls_is_spoken_to_servers_outside_of_the_mesh() {
    let files = tempfile::tempdir().expect("a folder");
    make_files(files.path()).expect("certificates");
    let folder = files.path().to_string_lossy().into_owned();
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .namespace("outside", Mesh::Absent)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("legacy", |pod| pod.on("n2").namespace("outside").label("app", "legacy"))
        .pod("local", |pod| pod.on("n1").namespace("shop").label("app", "local"))
        .pod("far", |pod| pod.on("n2").namespace("shop").label("app", "far").service_account("far"))
        .service("far", |service| {
            let service = service.namespace("shop").port("tcp-simple", 9000, 9443);
            let service = service.port("tcp-mutual", 9001, 9444).port("tcp-stranger", 9002, 9443);
            service.port("tcp-named", 9003, 9445).port("tcp-unnamed", 9004, 9445).select("app", "far")
        })
        .service("local", |service| {
            let service = service.namespace("shop").port("tcp-denied", 9000, 9443);
            service.port("tcp-open", 9001, 9444).select("app", "local")
        })
        .service("legacy", |service| {
            let service = service.namespace("outside").port("tcp-simple", 9000, 9443);
            let service = service.port("tcp-mutual", 9001, 9444).port("tcp-stranger", 9002, 9443);
            let service = service.port("tcp-anonymous", 9003, 9444).port("tcp-elsewhere", 9004, 9444);
            service.port("http", 80, 9445).select("app", "legacy")
        })
        .agent_arg("--tls-files")
        .agent_arg(&folder)
        .test(|lab| {
            lab.start_mesh()?;
            let server = |pod: &str, program: &str, args: &[&str]| lab.pod(pod).serve_python(program, args);
            let own = format!("{folder}/server.pem");
            let _servers = [
                server("legacy", SERVER, &["legacy", "9443", &own])?,
                server("legacy", SERVER, &["legacy", "9444", &own, &format!("{folder}/ca.pem")])?,
                server("legacy", HTTPS, &["9445", &own])?,
                server("far", SERVER, &["far", "9443", &own])?,
                server("far", SERVER, &["far", "9444", &own, &format!("{folder}/ca.pem")])?,
                server("far", SERVER, &["far", "9445"])?,
                server("local", SERVER, &["local", "9443", &own])?,
                server("local", SERVER, &["local", "9444", &own])?,
            ];
            rules(lab, &folder)?;
            run_checks(
                lab,
                checks![
                    bytes_go_in_tls,
                    tls_is_spoken_within_the_tunnel,
                    only_pods_that_are_named_are_let_answer,
                    the_name_in_tls_spoken_here_is_judged_on_the_same_node,
                    who_is_not_trusted_gets_nothing,
                    files_elsewhere_are_not_read,
                    requests_go_in_tls,
                ],
            )
        });
}

/// A CA, a server's certificate and a client's, and another CA.
fn make_files(folder: &Path) -> Result<()> {
    let ca = |name: &str| -> Result<CertifiedIssuer<'static, KeyPair>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(folder.join(name), ca.pem())?;
        Ok(ca)
    };
    ca("stranger.pem")?;
    let ca = ca("ca.pem")?;
    for (file, name) in [("server.pem", "legacy.example"), ("client.pem", "client.example")] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        // Whoever has its issuer's name is taken for its own issuer.
        params.distinguished_name.push(DnType::CommonName, name);
        let own = params.signed_by(&key, &ca)?;
        std::fs::write(folder.join(file), key.serialize_pem() + &own.pem())?;
    }
    Ok(())
}

fn rules(lab: &Lab, folder: &str) -> Result<()> {
    let simple = |roots: &str| json!({ "mode": "SIMPLE", "sni": "legacy.example", "caCertificates": format!("{folder}/{roots}") });
    let mutual = |own: &str| {
        let mut tls = simple("ca.pem");
        (tls["mode"], tls["clientCertificate"], tls["privateKey"]) =
            (json!("MUTUAL"), json!(own), json!(own));
        tls
    };
    // Whatever the request asks for.
    let mut of_request = simple("ca.pem");
    of_request.as_object_mut().context("no settings")?.remove("sni");
    let port = |number: u16, tls: Value| json!({ "port": { "number": number }, "tls": tls });
    let rule = |name: &str, host: &str, policy: &Value| {
        let spec = json!({ "host": host, "trafficPolicy": policy });
        lab.write_object(&format!("{name}.yaml"), "DestinationRule", &format!("shop/{name}"), &spec)
    };
    let ports = json!({ "portLevelSettings": [
        port(9000, simple("ca.pem")),
        port(9001, mutual(&format!("{folder}/client.pem"))),
        port(9002, simple("stranger.pem")),
        port(9003, simple("ca.pem")),
        port(9004, mutual("/etc/hostname")),
        port(80, of_request),
    ] });
    rule("legacy", "legacy.outside.svc.cluster.local", &ports)?;
    rule("local", "local.shop.svc.cluster.local", &json!({ "tls": simple("ca.pem") }))?;
    let named = |account: &str| {
        let name = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        json!({ "mode": "ISTIO_MUTUAL", "subjectAltNames": [name] })
    };
    let ports = json!({ "portLevelSettings": [
        port(9000, simple("ca.pem")),
        port(9001, mutual(&format!("{folder}/client.pem"))),
        port(9002, simple("stranger.pem")),
        port(9003, named("far")),
        port(9004, named("somebody")),
    ] });
    rule("far", "far.shop.svc.cluster.local", &ports)?;
    let deny = json!({
        "selector": { "matchLabels": { "app": "local" } },
        "action": "DENY",
        "rules": [{
            "to": [{ "operation": { "ports": ["9443"] } }],
            "when": [{ "key": "connection.sni", "values": ["legacy.example"] }],
        }],
    });
    lab.write_object("deny.yaml", "AuthorizationPolicy", "shop/deny", &deny)
}

/// Whom a connection leads to; empty: nobody.
fn reached(lab: &Lab, port: &str) -> Result<String> {
    reached_at(lab, "legacy.outside", port)
}

fn reached_at(lab: &Lab, host: &str, port: &str) -> Result<String> {
    let client = lab.pod("client").python(CLIENT).resolve_names().within(Duration::from_secs(120));
    let report = client.args(["count", host, port, "1"]).json()?;
    Ok(report["seen"][0].as_str().context("no name")?.to_owned())
}

fn bytes_go_in_tls(lab: &Lab) -> Result<()> {
    for port in ["9000", "9001"] {
        poll_until(&format!("the server to say its name in TLS by port {port}"), SOON, || {
            (reached(lab, port).ok()? == "legacy").then_some(())
        })?;
    }
    let watch = lab.node("n1").watch_flows()?;
    ensure!(reached(lab, "9000")? == "legacy");
    let flow = watch.expect(&[("/state", "closed"), ("/flags", "-"), ("/direction", "outbound")])?;
    ensure!(flow["route"]["objects"] == "DestinationRule shop/legacy", "{flow}");
    ensure!(
        flow["transport"] == "plaintext" && flow["bytes_received"] == 7,
        "its name and a line's end: {flow}"
    );
    ensure!(flow["error"].is_null(), "it has ended in order: {flow}");
    Ok(())
}

fn tls_is_spoken_within_the_tunnel(lab: &Lab) -> Result<()> {
    for port in ["9000", "9001"] {
        poll_until(&format!("the pod to say its name in TLS by port {port}"), SOON, || {
            (reached_at(lab, "far.shop", port).ok()? == "far").then_some(())
        })?;
        let watch = lab.node("n1").watch_flows()?;
        ensure!(reached_at(lab, "far.shop", port)? == "far");
        let flow = watch.expect(&[("/state", "closed"), ("/flags", "-"), ("/direction", "outbound")])?;
        ensure!(flow["transport"] == "hbone" && flow["error"].is_null(), "{flow}");
        let identity = flow["destination"]["identity"].as_str().unwrap_or_default();
        ensure!(identity.ends_with("/sa/far"), "the tunnel has proven who it is: {flow}");
    }
    let watch = lab.node("n1").watch_flows()?;
    ensure!(reached_at(lab, "far.shop", "9002")?.is_empty(), "by another CA's root");
    let flow = watch.expect(&[("/state", "closed"), ("/flags", "UF")])?;
    ensure!(flow["error"].as_str().unwrap_or_default().contains("invalid peer certificate"), "{flow}");
    Ok(())
}

fn only_pods_that_are_named_are_let_answer(lab: &Lab) -> Result<()> {
    ensure!(reached_at(lab, "far.shop", "9003")? == "far");
    let watch = lab.node("n1").watch_flows()?;
    ensure!(reached_at(lab, "far.shop", "9004")?.is_empty());
    let flow = watch.expect(&[("/state", "closed"), ("/flags", "IDENTITY_ERROR")])?;
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error.contains("/sa/far, which subjectAltNames do not name"), "{flow}");
    Ok(())
}

/// The pod's door judges the name that its application will see: the client itself speaks no TLS.
fn the_name_in_tls_spoken_here_is_judged_on_the_same_node(lab: &Lab) -> Result<()> {
    let reached = |port: &str| reached_at(lab, "local.shop", port);
    poll_until("the server to say its name in TLS", SOON, || {
        (reached("9001").ok()? == "local").then_some(())
    })?;
    poll_until("the policy to be in force", SOON, || reached("9000").ok()?.is_empty().then_some(()))?;
    let watch = lab.node("n1").watch_flows()?;
    ensure!(reached("9000")?.is_empty());
    watch.expect(&[("/state", "closed"), ("/flags", "DENY"), ("/direction", "inbound")])?;
    ensure!(reached("9001")? == "local");
    Ok(())
}

fn who_is_not_trusted_gets_nothing(lab: &Lab) -> Result<()> {
    let watch = lab.node("n1").watch_flows()?;
    ensure!(reached(lab, "9002")?.is_empty(), "by another CA's root");
    let flow = watch.expect(&[("/state", "closed"), ("/flags", "UF")])?;
    let error = flow["error"].as_str().unwrap_or_default();
    ensure!(error.contains("legacy.example") && error.contains("invalid peer certificate"), "{flow}");
    ensure!(reached(lab, "9003")?.is_empty(), "without a certificate of the client's");
    Ok(())
}

fn files_elsewhere_are_not_read(lab: &Lab) -> Result<()> {
    let watch = lab.node("n1").watch_flows()?;
    ensure!(reached(lab, "9004")?.is_empty());
    let flow = watch.expect(&[("/state", "closed"), ("/flags", "UF")])?;
    ensure!(flow["error"].as_str().unwrap_or_default().contains("--tls-files"), "{flow}");
    Ok(())
}

fn requests_go_in_tls(lab: &Lab) -> Result<()> {
    let asked = |host: &str, more: &[&str]| -> Result<String> {
        let header = format!("Host: {host}");
        lab.pod("client").curl(["-H", &header, "http://legacy.outside/who"]).args(more).stdout()
    };
    let status = |host: &str| asked(host, &["-o", "/dev/null", "-w", "%{http_code}"]);
    let text = asked("legacy.example", &[])?;
    let seen: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(seen["sni"] == "legacy.example" && seen["host"] == "legacy.example", "{seen}");
    ensure!(seen["alpn"] == "http/1.1", "{seen}");
    let watch = lab.node("n1").watch_flows()?;
    ensure!(status("other.example")? == "503", "the certificate has another name");
    let flow = watch.wait_for("a request that failed", |flow| flow["request"]["status"] == 503)?;
    ensure!(flow["flags"].as_str().unwrap_or_default().contains("UF"), "{flow}");
    ensure!(flow["error"].as_str().unwrap_or_default().contains("other.example"), "{flow}");
    ensure!(status("legacy.example")? == "200");
    Ok(())
}
