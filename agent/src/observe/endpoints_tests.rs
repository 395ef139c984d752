use super::super::testing::{call, observer};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn metrics_are_openmetrics_under_both_paths() {
    let (listener, address) = listen().await;
    let observer = observer(8);
    call(&observer).established();
    let server = tokio::spawn(serve_metrics(listener, observer));
    for path in ["/metrics", "/stats/prometheus"] {
        let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(OPENMETRICS) && answer.contains("connection: close"), "{answer}");
        assert!(answer.contains("istio_tcp_connections_opened_total{") && answer.ends_with("# EOF\n"));
    }
    assert!(ask(address, "GET /x HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    server.abort();
}

#[tokio::test]
async fn readiness_says_what_it_waits_for() {
    let (listener, address) = listen().await;
    let readiness = Readiness::default();
    let guard = readiness.wait_for("the first configuration");
    let server = tokio::spawn(serve_readiness(listener, readiness));
    let request = "GET /healthz/ready HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = ask(address, request).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.ends_with("waiting for the first configuration\n"), "{answer}");
    drop(guard);
    assert!(ask(address, request).await.starts_with("HTTP/1.1 200 OK"));
    server.abort();
}

#[tokio::test]
async fn oversized_and_slow_requests_are_refused() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(serve_metrics(listener, observer(8)));
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(9000));
    assert!(ask(address, &request).await.starts_with("HTTP/1.1 431"));
    // A client that never finishes its headers is cut off; time is simulated once it is connected.
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /metrics").await.unwrap();
    tokio::time::pause();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    server.abort();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let (_listener, address) = listen().await;
    let error = bind(address).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("another agent"), "{error}");
}
