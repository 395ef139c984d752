use super::super::testing::{call, observer, service, workload};
use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use warren_common::model::Workload;
use warren_common::model::admin::FlowState;
use warren_common::model::admin::{ControllerStatus, FlowEvent, Flows, Kubelet, ServiceView};
use warren_common::runtime::{DrainTrigger, drain};

struct View;

/// Behind no service: the model's map of services has no JSON form yet.
fn bare_workload() -> Arc<Workload> {
    Arc::new(Workload { services: Arc::default(), ..(*workload("web")).clone() })
}

impl AdminView for View {
    fn status(&self) -> Status {
        Status {
            node: "node-a".into(),
            version: "1".into(),
            uptime_s: 1,
            ready: true,
            waiting_for: vec![],
            controller: ControllerStatus::default(),
            pods: vec![],
            workloads: 1,
            services: 1,
            open_flows: 0,
            kernel: BTreeMap::new(),
            tunnels: 0,
            kubelet: Kubelet::default(),
        }
    }

    fn workloads(&self) -> Workloads {
        Workloads { workloads: vec![bare_workload()] }
    }

    fn services(&self) -> Services {
        Services { services: vec![ServiceView { service: Arc::new(service()), endpoints: vec![] }] }
    }

    fn why(&self, question: &WhyQuestion) -> Result<Why, String> {
        if question.client != "shop/web-1" {
            return Err(format!("there is no pod {}", question.client));
        }
        let outcome = serde_json::json!({
            "client": question.client, "asked": question.to, "steps": [],
            "outcome": {"text": question.headers.join(","), "certain": true, "transport": "none", "verdict": "none"},
        });
        Ok(serde_json::from_value(outcome).unwrap())
    }

    fn routes(&self, question: &RoutesQuestion) -> Result<Routes, String> {
        assert_eq!(question.limit, 3);
        Ok(Routes::default())
    }

    fn policies(&self) -> Policies {
        Policies { known: true, policies: vec![], pods: vec![] }
    }

    fn certificates(&self) -> Certificates {
        Certificates { certificates: vec![], roots: vec![] }
    }
}

struct Served {
    directory: TempDir,
    observer: Observer,
    drain: DrainTrigger,
    server: JoinHandle<io::Result<()>>,
}

impl Served {
    /// Serves on `run/admin.sock` below a directory of its own, and waits until it answers.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (trigger, watch) = drain();
        let observer = observer(8);
        let path = directory.path().join("run/admin.sock");
        let server = tokio::spawn(serve_admin(path.clone(), observer.clone(), Arc::new(View), watch));
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        Self { directory, observer, drain: trigger, server }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("run/admin.sock")
    }

    async fn get(&self, target: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn everything_is_json() {
    let served = Served::start().await;
    drop(call(&served.observer));
    let (code, body) = served.get("/v1/status").await;
    assert_eq!((code, &*serde_json::from_str::<Status>(&body).unwrap().node), (200, "node-a"));
    let (_, body) = served.get("/v1/flows").await;
    assert_eq!(serde_json::from_str::<Flows>(&body).unwrap().flows.len(), 1);
    let (_, body) = served.get("/v1/flows?failed=true&last=3").await;
    assert_eq!(serde_json::from_str::<Flows>(&body).unwrap().flows.len(), 0);
    let (_, body) = served.get("/v1/workloads").await;
    assert_eq!(serde_json::from_str::<Workloads>(&body).unwrap().workloads[0], bare_workload());
    let (_, body) = served.get("/v1/services").await;
    assert_eq!(*serde_json::from_str::<Services>(&body).unwrap().services[0].service, service());
    let (_, body) = served.get("/v1/certs").await;
    assert!(serde_json::from_str::<Certificates>(&body).is_ok());
    let (_, body) = served.get("/v1/flows?status=5xx&path=/x*").await;
    assert_eq!(serde_json::from_str::<Flows>(&body).unwrap().flows.len(), 0, "a connection is no request");
    let (_, body) = served.get("/v1/why?client=shop/web-1&to=http://web/&header=a%3A%20b").await;
    assert_eq!(serde_json::from_str::<Why>(&body).unwrap().outcome.text, "a: b");
    let (_, body) = served.get("/v1/routes?limit=3").await;
    assert_eq!(serde_json::from_str::<Routes>(&body).unwrap(), Routes::default());
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let served = Served::start().await;
    for (target, code, hint) in [
        ("/v1/nope", 404, "/v1/status"),
        ("/v1/flows?follw=true", 400, "follow"),
        ("/v1/flows?last=x", 400, "number"),
        ("/v1/flows?status=many", 400, "5xx"),
        ("/v1/why?pod=x", 400, "client"),
        ("/v1/why?client=shop/nobody&to=x:1", 400, "nobody"),
        ("/v1/routes?limit=x", 400, "number"),
    ] {
        let (found, body) = served.get(target).await;
        let said: warren_common::model::admin::AdminError = serde_json::from_str(&body).unwrap();
        assert_eq!(found, code);
        assert!(said.error.contains(hint), "{}", said.error);
    }
}

#[tokio::test]
async fn only_the_owner_may_open_it_and_a_stale_one_is_replaced() {
    let served = Served::start().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&served.path()), mode(served.path().parent().unwrap())), (0o600, 0o700));
    // A successor takes the path over; the end of the first leaves the successor's socket alone.
    let (_trigger, watch) = drain();
    let before = fs::metadata(served.path()).unwrap().ino();
    let second = tokio::spawn(serve_admin(served.path(), observer(8), Arc::new(View), watch));
    while fs::metadata(served.path()).unwrap().ino() == before {
        tokio::task::yield_now().await;
    }
    served.drain.start(Duration::from_secs(5)).await;
    served.server.await.unwrap().unwrap();
    assert!(UnixStream::connect(served.directory.path().join("run/admin.sock")).await.is_ok());
    second.abort();
}

/// Asks to follow and reads past the headers.
async fn follow(served: &Served, target: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(served.path()).await.unwrap();
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        lines.read_line(&mut line).await.unwrap();
    }
    lines
}

#[tokio::test]
async fn followers_get_a_line_per_event_until_they_go() {
    let served = Served::start().await;
    let mut lines = follow(&served, "/v1/flows?follow=true&open=true").await;
    assert_eq!(served.observer.followers().len(), 1);
    call(&served.observer).established();
    for state in [FlowState::Open, FlowState::Closed] {
        let (mut size, mut line, mut end) = (String::new(), String::new(), String::new());
        lines.read_line(&mut size).await.unwrap();
        lines.read_line(&mut line).await.unwrap();
        lines.read_line(&mut end).await.unwrap();
        assert_eq!((usize::from_str_radix(size.trim(), 16).unwrap(), &*end), (line.len(), "\r\n"));
        let FlowEvent::Flow(flow) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        assert_eq!(flow.state, state);
    }
    drop(lines);
    while served.observer.followers().len() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_drain_ends_followers_and_removes_the_socket() {
    let served = Served::start().await;
    let path = served.path();
    let mut lines = follow(&served, "/v1/flows?follow=true").await;
    assert!(served.drain.start(Duration::from_secs(5)).await);
    let mut rest = Vec::new();
    // Cut off or ended, it must end.
    let _ = lines.read_to_end(&mut rest).await;
    served.server.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_loopback_port_answers_the_same_until_the_drain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, watch) = drain();
    let server = tokio::spawn(serve_admin_on(listener, observer(8), Arc::new(View), watch));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("node-a"), "{answer}");
    trigger.start(Duration::from_secs(5)).await;
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
