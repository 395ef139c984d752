//! Every kind of client and server sees the addresses that it would see without a mesh.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use warren_tests::checks;
use warren_tests::lab::{Lab, LabBuilder, Mesh, Pod, Proc, run_checks};

const STYLES: [&str; 4] = ["blocking", "nonblocking", "epoll", "go"];
/// A dual-stack, an IPv4 and an IPv6 listener.
const DUAL: u16 = 9000;
const V4: u16 = 9004;
const V6: u16 = 9006;
/// Who is called: a pod of the other node, of the same node, and two that are not in the mesh.
const SERVERS: [&str; 4] = ["far", "near", "outside", "stranger"];

fn shop() -> LabBuilder {
    let service = |name: &'static str, app: &'static str| {
        move |lab: LabBuilder| {
            lab.service(name, |service| {
                service
                    .namespace(if app == "outside" { "default" } else { "shop" })
                    .port("tcp", 80, DUAL)
                    .select("app", app)
            })
        }
    };
    let lab = Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Enabled)
        .pod("client", |pod| pod.on("n1").namespace("shop").service_account("client"))
        .pod("near", |pod| pod.on("n1").namespace("shop").label("app", "near"))
        .pod("far", |pod| pod.on("n2").namespace("shop").label("app", "far"))
        .pod("stranger", |pod| pod.on("n1"))
        .pod("outside", |pod| pod.on("n2").label("app", "outside"));
    let lab = service("remote", "far")(lab);
    let lab = service("local", "near")(lab);
    service("plain", "outside")(lab)
}

#[test]
fn applications_see_what_they_would_see_without_a_mesh() {
    shop().test(|lab| {
        lab.start_mesh()?;
        let _servers =
            SERVERS.iter().flat_map(|name| serve_everywhere(&lab.pod(name))).collect::<Result<Vec<_>>>()?;
        run_checks(
            lab,
            checks![
                every_style_to_every_pod,
                services_by_address,
                services_by_name,
                clients_that_choose_their_own_port,
                clients_bound_to_a_device,
                multipath_clients,
                sockets_that_are_connected_twice,
                curl_and_its_friends,
            ],
        )
    });
}

fn serve_everywhere(pod: &Pod) -> Vec<Result<Proc>> {
    [("dual", DUAL), ("v4", V4), ("v6", V6)]
        .iter()
        .map(|(family, port)| pod.serve(["whoami", "--family", family, "--port", &port.to_string()]))
        .collect()
}

fn every_style_to_every_pod(lab: &Lab) -> Result<()> {
    for name in SERVERS {
        let pod = lab.pod(name);
        for style in STYLES {
            for (port, mapped) in [(DUAL, false), (V4, false), (DUAL, true), (V4, true)] {
                let to = SocketAddr::from((pod.ip4(), port));
                let more: &[&str] = if mapped { &["--v4-mapped"] } else { &[] };
                check(lab, &to.to_string(), to, &[&["--style", style], more].concat(), name)?;
            }
            for port in [DUAL, V6] {
                let to = SocketAddr::from((pod.ip6(), port));
                check(lab, &to.to_string(), to, &["--style", style], name)?;
            }
        }
    }
    Ok(())
}

fn services_by_address(lab: &Lab) -> Result<()> {
    for (service, name) in [("remote", "far"), ("local", "near"), ("plain", "outside")] {
        let (vip4, vip6) = lab.vip(service)?;
        let pod = lab.pod(name);
        for style in STYLES {
            let endpoint = SocketAddr::from((pod.ip4(), DUAL));
            check(lab, &format!("{vip4}:80"), endpoint, &["--style", style], name)?;
            check(lab, &format!("{vip4}:80"), endpoint, &["--style", style, "--v4-mapped"], name)?;
            let endpoint = SocketAddr::from((pod.ip6(), DUAL));
            check(lab, &format!("[{vip6}]:80"), endpoint, &["--style", style], name)?;
        }
    }
    Ok(())
}

fn services_by_name(lab: &Lab) -> Result<()> {
    let names = [
        ("remote", "far"),
        ("remote.shop", "far"),
        ("local.shop.svc.cluster.local", "near"),
        ("plain.default", "outside"),
    ];
    for (name, server) in names {
        let seen = connect(lab, &format!("{name}:80"), &["--style", "go"])?;
        let pod = lab.pod(server);
        let asked: SocketAddr = field(&seen, "asked")?.parse()?;
        let ip: IpAddr = if asked.is_ipv4() { pod.ip4().into() } else { pod.ip6().into() };
        verify(lab, &seen, SocketAddr::new(ip, DUAL), server)?;
    }
    Ok(())
}

/// The port that a client binds is the port that the server sees, as some protocols insist.
fn clients_that_choose_their_own_port(lab: &Lab) -> Result<()> {
    let client = lab.pod("client");
    for (number, server) in (40_001_u16..).step_by(10).zip(["far", "near"]) {
        let pod = lab.pod(server);
        let own = format!("{}:{number}", client.ip4());
        let seen = check(
            lab,
            &format!("{}:{DUAL}", pod.ip4()),
            (pod.ip4(), DUAL).into(),
            &["--bind", &own],
            server,
        )?;
        ensure!(field(&seen, "sockname")? == own, "bound to {own}: {seen}");
        let own = format!("[{}]:{number}", client.ip6());
        let seen =
            check(lab, &format!("[{}]:{V6}", pod.ip6()), (pod.ip6(), V6).into(), &["--bind", &own], server)?;
        ensure!(field(&seen, "sockname")? == own, "bound to {own}: {seen}");
    }
    Ok(())
}

fn clients_bound_to_a_device(lab: &Lab) -> Result<()> {
    for server in SERVERS {
        let pod = lab.pod(server);
        for style in STYLES {
            let more = ["--style", style, "--bind-device", "eth0"];
            check(lab, &format!("{}:{DUAL}", pod.ip4()), (pod.ip4(), DUAL).into(), &more, server)?;
            check(lab, &format!("[{}]:{DUAL}", pod.ip6()), (pod.ip6(), DUAL).into(), &more, server)?;
        }
    }
    Ok(())
}

fn multipath_clients(lab: &Lab) -> Result<()> {
    if !std::path::Path::new("/proc/sys/net/mptcp").exists() {
        use std::io::Write as _;
        writeln!(std::io::stdout(), "    SKIPPED: multipath clients: this kernel has no MPTCP")?;
        return Ok(());
    }
    for server in SERVERS {
        let pod = lab.pod(server);
        for style in STYLES {
            let more = ["--style", style, "--mptcp"];
            check(lab, &format!("{}:{DUAL}", pod.ip4()), (pod.ip4(), DUAL).into(), &more, server)?;
            check(lab, &format!("[{}]:{DUAL}", pod.ip6()), (pod.ip6(), DUAL).into(), &more, server)?;
        }
    }
    Ok(())
}

/// connect, dissolve with AF_UNSPEC, connect elsewhere: the second destination counts, captured or not.
fn sockets_that_are_connected_twice(lab: &Lab) -> Result<()> {
    for first in SERVERS {
        let first = format!("{}:{V4}", lab.pod(first).ip4());
        for server in SERVERS {
            let pod = lab.pod(server);
            let to = format!("{}:{DUAL}", pod.ip4());
            check(lab, &to, (pod.ip4(), DUAL).into(), &["--first", &first], server)?;
        }
    }
    let _own = lab.pod("client").serve(["whoami", "--port", "9000"])?;
    let first = format!("{}:{V4}", lab.pod("far").ip4());
    let seen = connect(lab, "127.0.0.1:9000", &["--first", &first])?;
    ensure!(seen["peername"] == "127.0.0.1:9000", "loopback after a captured connection: {seen}");
    ensure!(field(&seen, "sockname")?.starts_with("127.0.0.1:"), "{seen}");
    Ok(())
}

/// A program that nobody wrote for this lab, by name and over both families.
fn curl_and_its_friends(lab: &Lab) -> Result<()> {
    let client = lab.pod("client");
    for name in SERVERS {
        let _server = lab.pod(name).serve(["http", "--port", "8080", "--label", name])?;
        let (ip4, ip6) = (lab.pod(name).ip4(), lab.pod(name).ip6());
        for (url, own) in [
            (format!("http://{ip4}:8080/"), client.ip4().to_string()),
            (format!("http://[{ip6}]:8080/"), client.ip6().to_string()),
        ] {
            // Two requests: the second reuses the connection.
            let text = client
                .command("curl")
                .args([
                    "-sS",
                    "--max-time",
                    "5",
                    "-w",
                    "%{local_ip} %{remote_ip}:%{remote_port}\n",
                    &url,
                    &url,
                ])
                .stdout()?;
            ensure!(text.matches(&format!("server={name}")).count() == 2, "{url}: {text}");
            ensure!(text.contains(&own) && text.contains(":8080"), "{url}: {text}");
        }
    }
    Ok(())
}

fn connect(lab: &Lab, to: &str, more: &[&str]) -> Result<Value> {
    let command = lab.pod("client").workload(["connect", "--to", to]).args(more).resolve_names();
    command.json()
}

/// Connects and verifies what both sides saw.
fn check(lab: &Lab, to: &str, endpoint: SocketAddr, more: &[&str], server: &str) -> Result<Value> {
    let seen = connect(lab, to, more)?;
    verify(lab, &seen, endpoint, server).with_context(|| format!("{more:?} to {server} by {to}"))?;
    Ok(seen)
}

fn verify(lab: &Lab, seen: &Value, endpoint: SocketAddr, server: &str) -> Result<()> {
    ensure!(seen["ok"] == true, "failed: {seen}");
    ensure!(seen["peername"] == seen["asked"], "the client doesn't see what it dialled: {seen}");
    let client = lab.pod("client");
    let asked: SocketAddr = field(seen, "asked")?.parse()?;
    let own: SocketAddr = field(seen, "sockname")?.parse()?;
    let expected: IpAddr = if endpoint.is_ipv4() { client.ip4().into() } else { client.ip6().into() };
    ensure!(own.is_ipv4() == asked.is_ipv4(), "the client's address is of another family: {seen}");
    ensure!(own.ip().to_canonical() == expected, "the client doesn't see its own address: {seen}");

    let text = field(seen, "text")?;
    let told = |name: &str| -> Result<SocketAddr> {
        let value = text.split_whitespace().find_map(|pair| pair.strip_prefix(name));
        let address: SocketAddr = value.with_context(|| format!("no {name} in {seen}"))?.parse()?;
        Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
    };
    let (peer, accepted, local) = (told("peer=")?, told("accept=")?, told("local=")?);
    ensure!(peer == accepted, "accept() and getpeername() differ: {seen}");
    ensure!(local == endpoint, "the server doesn't see its own address: {seen}");
    ensure!(peer.ip() == expected, "the server doesn't see the client's address: {seen}");
    // A pod outside the mesh sees the agent's socket: the client's address, with a port of its own.
    let in_mesh = lab.pod(server).namespace() == "shop";
    ensure!(!in_mesh || peer.port() == own.port(), "the server doesn't see the client's port: {seen}");
    Ok(())
}

fn field<'a>(seen: &'a Value, name: &str) -> Result<&'a str> {
    seen[name].as_str().with_context(|| format!("no {name}: {seen}"))
}
