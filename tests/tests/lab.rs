//! The lab tests itself, without the mesh: what the other suites take for granted.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use warren_tests::lab::{Lab, LabBuilder, Mesh, PodSpec, ServiceSpec, cannot_run, poll_until};

fn two_nodes() -> LabBuilder {
    Lab::builder()
        .nodes(["n1", "n2"])
        .namespace("shop", Mesh::Absent)
        .pod("client", |pod| pod.on("n1").namespace("shop"))
        .pod("web-1", |pod| pod.on("n1").namespace("shop").label("app", "web"))
        .pod("web-2", |pod| pod.on("n2").namespace("shop").label("app", "web"))
        .pod("far", |pod| pod.on("n2"))
        .service("web", |service| service.namespace("shop").port("http", 80, 8080).select("app", "web"))
}

#[test]
fn pods_reach_each_other_by_every_address() {
    two_nodes().test(|lab| {
        let client = lab.pod("client");
        for name in ["web-1", "web-2", "far"] {
            let pod = lab.pod(name);
            let _server = pod.serve(["whoami", "--port", "9000"])?;
            for to in [format!("{}:9000", pod.ip4()), format!("[{}]:9000", pod.ip6())] {
                for style in ["blocking", "nonblocking", "epoll", "go"] {
                    let seen = client.workload(["connect", "--to", &to, "--style", style]).json()?;
                    ensure!(seen["ok"] == true && seen["peername"] == to, "{style} to {name}: {seen}");
                    let own =
                        if to.starts_with('[') { client.ip6().to_string() } else { client.ip4().to_string() };
                    ensure!(
                        seen["text"].as_str().unwrap_or("").contains(&own),
                        "{name} doesn't see {own}: {seen}"
                    );
                }
            }
            let mapped = ["connect", "--v4-mapped", "--to", &format!("{}:9000", pod.ip4())];
            let seen = client.workload(mapped).json()?;
            ensure!(seen["ok"] == true, "mapped: {seen}");
        }
        Ok(())
    });
}

#[test]
fn a_service_spreads_over_its_ready_pods() {
    two_nodes().test(|lab| {
        let client = lab.pod("client");
        let (vip4, vip6) = lab.vip("web")?;
        let _servers = ["web-1", "web-2"]
            .map(|name| lab.pod(name).serve(["http", "--port", "8080", "--label", name]))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        for url in [format!("http://{vip4}/"), format!("http://[{vip6}]/")] {
            let mut seen = [false; 2];
            for _ in 0..40 {
                let text = client.command("curl").args(["-sS", "--max-time", "5", &url]).stdout()?;
                seen[usize::from(text.contains("server=web-2"))] = true;
            }
            ensure!(seen == [true, true], "{url} reaches one pod only");
        }
        // The service's own pod, through the service, and the node itself.
        for _ in 0..4 {
            let url = format!("http://{vip4}/");
            lab.pod("web-1").command("curl").args(["-sS", "--max-time", "5", &url]).stdout()?;
            lab.node("n2").command("curl").args(["-sS", "--max-time", "5", &url]).stdout()?;
            lab.node("n1").kubelet_command("curl").args(["-sS", "--max-time", "5", &url]).stdout()?;
        }
        lab.set_ready("web-1", false)?;
        for _ in 0..10 {
            let text = client.command("curl").args(["-sS", "http://web.shop/"]).resolve_names().stdout()?;
            ensure!(text.contains("server=web-2"), "a pod that isn't ready got a request: {text}");
        }
        lab.set_ready("web-2", false)?;
        let refused = client.workload(["connect", "--to", &format!("{vip4}:80")]).json()?;
        ensure!(refused["error"] == "ECONNREFUSED", "a service without endpoints: {refused}");
        Ok(())
    });
}

#[test]
fn names_resolve_as_in_the_pods_namespace() {
    two_nodes().test(|lab| {
        let vip = lab.vip("shop/web")?.0.to_string();
        let resolve = |pod: &str, name: &str| {
            lab.pod(pod).command("getent").args(["ahostsv4", name]).resolve_names().run()
        };
        for name in ["web", "web.shop", "web.shop.svc.cluster.local"] {
            ensure!(resolve("client", name)?.stdout.starts_with(&vip), "{name} in its own namespace");
        }
        ensure!(resolve("far", "web.shop")?.stdout.starts_with(&vip), "web.shop in another namespace");
        ensure!(!resolve("far", "web")?.stdout.starts_with(&vip), "web in another namespace");
        Ok(())
    });
}

#[test]
fn workloads_check_every_byte() {
    two_nodes().test(|lab| {
        let (client, far) = (lab.pod("client"), lab.pod("far"));
        let _exchange = far.serve(["exchange", "--port", "9001"])?;
        let _token = far.serve(["token", "--port", "9002", "--port", "9003"])?;
        let _echo = far.serve(["echo", "--port", "9004"])?;
        let _half = far.serve(["half-close", "--port", "9005"])?;
        let _first = far.serve(["server-first", "--port", "9006"])?;
        let _rst = far.serve(["rst", "--port", "9007"])?;
        let to = |port: u16| format!("{}:{port}", far.ip4());

        let bulk = ["bulk", "--to", &to(9001), "--connections", "50", "--bytes", "16777216"];
        let bulk = client.workload(bulk).json()?;
        ensure!(bulk["ok"] == true, "{bulk}");
        let storm = ["storm", "--to", &to(9002), "--also", &to(9003), "--count", "4000", "--threads", "8"];
        let storm = client.workload(storm).json()?;
        ensure!(storm["ok"] == true && storm["good"] == 4000, "{storm}");

        let hold = ["hold", "--to", &to(9004), "--count", "200"];
        let mut hold = client.workload(hold).with_stdin().spawn()?;
        hold.wait_for("\"open\":200", Duration::from_secs(10))?;
        let held = hold.report(Duration::from_secs(10))?;
        ensure!(held["ok"] == true, "{held}");
        let mut stream = client.workload(["stream", "--to", &to(9004)]).with_stdin().spawn()?;
        stream.wait_for("streaming", Duration::from_secs(10))?;
        lab.set_ready("web-1", false)?;
        let streamed = stream.report(Duration::from_secs(10))?;
        ensure!(streamed["lost_bytes"] == 0 && streamed["failed_connects"] == 0, "{streamed}");

        let half = client.workload(["connect", "--to", &to(9005), "--send-bytes", "1000000"]).json()?;
        ensure!(half["text"].as_str().unwrap_or("").contains(" 1000000"), "{half}");
        let first = ["connect", "--to", &to(9006), "--read-line", "--send", "hello", "--style", "epoll"];
        let first = client.workload(first).json()?;
        ensure!(first["line"] == "220 warren ready" && first["text"] == "hello", "{first}");
        let rst = client.workload(["connect", "--to", &to(9007), "--send", "x", "--keep-open"]).json()?;
        ensure!(rst["error"] == "ECONNRESET", "{rst}");
        let closed = client.workload(["connect", "--to", &to(9099), "--style", "go"]).json()?;
        ensure!(closed["error"] == "ECONNREFUSED" && closed["stage"] == "connect", "{closed}");
        Ok(())
    });
}

#[test]
fn the_cluster_changes_live() {
    two_nodes().test(|lab| {
        let manifest = |file: &str| std::fs::read_to_string(lab.dir().join("manifests").join(file));
        ensure!(!manifest("namespace-shop.yaml")?.contains("warren.dev/mesh"));
        lab.enrol("shop", true)?;
        ensure!(manifest("namespace-shop.yaml")?.contains("warren.dev/mesh: enabled"));
        lab.label_pod("web-1", "version", Some("v1"))?;
        ensure!(manifest("pod-shop-web-1.yaml")?.contains("version: v1"));
        lab.add_service(&ServiceSpec::new("late").port("tcp", 90, 9000).select("app", "late"))?;
        let late = lab.add_pod(&PodSpec::new("late").on("n2").label("app", "late"))?;
        let _server = late.serve(["echo", "--port", "9000"])?;
        let to = format!("{}:90", lab.vip("late")?.0);
        let seen = lab.pod("client").workload(["connect", "--to", &to, "--send", "hello"]).json()?;
        ensure!(seen["text"] == "hello", "{seen}");
        ensure!(manifest("endpointslice-default-late-ipv4.yaml")?.contains(&late.ip4().to_string()));
        let group = late.place().cgroup().to_path_buf();
        lab.delete_pod("late")?;
        ensure!(!group.exists() && manifest("pod-default-late.yaml").is_err());
        ensure!(!manifest("endpointslice-default-late-ipv4.yaml")?.contains(&late.ip4().to_string()));
        lab.add_pod(&PodSpec::new("late").on("n2").number(late.ip4().octets()[3]))?;
        ensure!(lab.pod("late").ip4() == late.ip4() && lab.pod("late").uid() != late.uid());
        Ok(())
    });
}

#[test]
fn two_labs_live_side_by_side_and_leave_nothing() {
    if cannot_run().is_some() {
        return two_nodes().test(|_| Ok(()));
    }
    let start = Instant::now();
    let one = two_nodes().up().expect("first lab");
    println!("a lab of two nodes and four pods is up after {:?}", start.elapsed());
    let two = two_nodes().up().expect("second lab");
    assert_eq!(one.pod("far").ip4(), two.pod("far").ip4());
    let ids = [one.id().to_owned(), two.id().to_owned()];
    let cgroups = [one.cgroup().to_path_buf(), two.cgroup().to_path_buf()];
    let _only_in_one = one.pod("far").serve(["echo", "--port", "9000"]).expect("server");
    let to = format!("{}:9000", one.pod("far").ip4());
    let ask = |lab: &Lab| lab.pod("client").workload(["connect", "--to", &to]).json().expect("report");
    assert_eq!(ask(&one)["ok"], true);
    assert_eq!(ask(&two)["error"], "ECONNREFUSED", "the labs are connected");
    let start = Instant::now();
    drop(one);
    println!("and gone after {:?}", start.elapsed());
    drop(two);
    for (id, cgroup) in ids.iter().zip(&cgroups) {
        assert_eq!(remains(id, cgroup), Vec::<String>::new());
    }
}

#[test]
fn a_killed_owner_leaves_nothing() -> Result<()> {
    if cannot_run().is_some() {
        two_nodes().test(|_| Ok(()));
        return Ok(());
    }
    let mut owner = Command::new(env!("CARGO_BIN_EXE_warren-workload"))
        .arg("hold-lab")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut id = String::new();
    BufReader::new(owner.stdout.take().context("stdout")?).read_line(&mut id)?;
    let id = id.trim();
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mounted =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|line| line[2] == "cgroup2");
    let cgroup = PathBuf::from(mounted.context("cgroup2")?[1]).join(format!("warren-{id}"));
    assert!(!remains(id, &cgroup).is_empty(), "the lab is up");
    owner.kill()?;
    owner.wait()?;
    poll_until("the janitor", Duration::from_secs(60), || remains(id, &cgroup).is_empty().then_some(()))
        .with_context(|| format!("left: {:?}", remains(id, &cgroup)))
}

#[test]
fn what_starts_while_the_lab_goes_goes_too() -> Result<()> {
    if cannot_run().is_some() {
        two_nodes().test(|_| Ok(()));
        return Ok(());
    }
    let lab = two_nodes().up()?;
    let start = || lab.pod("client").command("sleep").arg("60").spawn();
    let removed = std::thread::scope(|scope| {
        let mut running = vec![start()?];
        let (started, first) = std::sync::mpsc::channel();
        // As the work that Ctrl-C interrupts: it starts one program after another until there is no lab.
        scope.spawn(move || {
            while let Ok(program) = start() {
                running.push(program);
                let _ = started.send(());
            }
        });
        first.recv()?;
        lab.remove_now()
    });
    removed.with_context(|| format!("left: {:?}", remains(lab.id(), lab.cgroup())))?;
    ensure!(remains(lab.id(), lab.cgroup()).is_empty(), "left: {:?}", remains(lab.id(), lab.cgroup()));
    Ok(())
}

/// What is still there of a lab.
fn remains(id: &str, cgroup: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let spaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    left.extend(
        spaces
            .map(|entry| entry.path().display().to_string())
            .filter(|path| path.contains(&format!("/w{id}-"))),
    );
    left.extend(cgroup.exists().then(|| cgroup.display().to_string()));
    let dir = std::env::temp_dir().join(format!("warren-{id}"));
    left.extend(dir.exists().then(|| dir.display().to_string()));
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(&format!("warren-{id}"))).map(str::to_owned));
    left
}
