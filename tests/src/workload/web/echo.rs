//! `echo-requests`: what the suite's echo servers do. The answer to a request is a JSON object of what was seen of it, and
//! of who saw it; `/status/NNN` has that status, `?delay=2s` (or ms) comes later, the request header
//! `x-echo-set-header: a:b,c:d` makes response headers, and `?uuid=X&succeedAfter=N&responseCode=NNN` is answered with that
//! status N times for each X. gRPC gets the same object as its text.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpStream;
use tonic::body::Body;

use super::super::serve::{Family, listen};
use super::{grpc, headers_json};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Ports for HTTP/1.1, HTTP/2 without TLS and gRPC, told apart by the client's first bytes
    #[arg(long = "port")]
    ports: Vec<u16>,
    /// Ports on which bytes are sent back as they come
    #[arg(long = "tcp")]
    tcp: Vec<u16>,
    /// The pod's name
    #[arg(long)]
    pod: String,
    /// The pod's namespace
    #[arg(long)]
    namespace: String,
    /// The pod's service
    #[arg(long, default_value = "")]
    service: String,
}

struct Server {
    options: Options,
    /// How often each `uuid` was answered with a failure.
    failed: Mutex<HashMap<String, u32>>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let open = |port: &u16| -> Result<TcpListener> {
        let listener = listen(Family::Dual, *port)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let ports = options.ports.iter().map(open).collect::<Result<Vec<_>>>()?;
    let tcp = options.tcp.iter().map(open).collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let me = Arc::new(Server { options: options.clone(), failed: Mutex::default() });
        for listener in ports {
            let (listener, me) = (tokio::net::TcpListener::from_std(listener)?, me.clone());
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(requests(stream, me.clone()));
                }
            });
        }
        for listener in tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(bytes(stream));
                }
            });
        }
        super::super::report(&json!({ "listening": [options.ports, options.tcp] }));
        std::future::pending::<Result<()>>().await
    })
}

/// What a client does to its connection is its own business.
async fn bytes(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn requests(stream: TcpStream, me: Arc<Server>) {
    let _ = stream.set_nodelay(true);
    let port = stream.local_addr().map(|at| at.port()).unwrap_or_default();
    let service = service_fn(|request| {
        let me = me.clone();
        async move { Ok::<_, Infallible>(answer(request, &me, port).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, me: &Server, port: u16) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned();
    let seen = seen(&request, &target, &me.options, port).to_string();
    // The suite looks for this line where a request is mirrored to.
    super::super::say(&format!("Echoing back request made to {target} to client"));
    let content = request.headers().get(CONTENT_TYPE);
    if content.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return grpc::answer(request, seen).await;
    }
    let wanted = request.headers().get("x-echo-set-header").cloned();
    let query = request.uri().query().unwrap_or_default();
    if let Some(delay) = parameter(query, "delay").and_then(duration) {
        tokio::time::sleep(delay).await;
    }
    let named = request.uri().path().strip_prefix("/status/").and_then(|code| code.parse().ok());
    let status = me.failure(query).or(named);
    // A body that does not come to its end has nobody who waits for an answer.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Body::new(Full::from(seen)));
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for pair in wanted.iter().filter_map(|wanted| wanted.to_str().ok()).flat_map(|wanted| wanted.split(',')) {
        let Some((name, value)) = pair.split_once(':') else { continue };
        if let (Ok(name), Ok(value)) = (name.trim().parse::<HeaderName>(), value.trim().parse()) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

fn seen(request: &Request<Incoming>, target: &str, me: &Options, port: u16) -> serde_json::Value {
    let named = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    let host = named.or(request.uri().authority().map(|authority| authority.as_str()));
    json!({
        "path": target,
        "host": host,
        "method": request.method().as_str(),
        "proto": format!("{:?}", request.version()),
        "headers": headers_json(request.headers()),
        "httpPort": port,
        "namespace": me.namespace,
        "service": me.service,
        "pod": me.pod,
    })
}

impl Server {
    fn failure(&self, query: &str) -> Option<StatusCode> {
        let code = parameter(query, "responseCode")?.parse().ok()?;
        let wanted: u32 = parameter(query, "succeedAfter")?.parse().ok()?;
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failed.entry(parameter(query, "uuid")?.to_owned()).or_default();
        *count += 1;
        (*count <= wanted).then_some(code)
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => Some(Duration::from_millis(number.parse().ok()?)),
        None => Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?)),
    }
}
