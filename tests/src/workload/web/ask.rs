//! `ask`: requests, and what came back, as one line of JSON: a list with an object for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use super::{grpc, headers_json};

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// `http://` in HTTP/1.1, each request on a connection of its own; `grpc://` calls the method that the path
    /// names, on one connection of each client
    url: Uri,
    /// The method
    #[arg(long, default_value = "GET")]
    method: Method,
    /// `Name: value`; `Host` takes the place of the URL's
    #[arg(short = 'H', value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// So many requests
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// So many clients at a time
    #[arg(long, default_value_t = 1)]
    parallel: usize,
    /// How long one may take
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':').context("no colon")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let answers = runtime.block_on(async {
        let (options, taken) = (Arc::new(options.clone()), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..options.parallel {
            clients.spawn(client(options.clone(), taken.clone()));
        }
        clients.join_all().await.concat()
    });
    super::super::report(&json!(answers));
    Ok(())
}

/// Makes requests until all are taken.
async fn client(options: Arc<Options>, taken: Arc<AtomicUsize>) -> Vec<Value> {
    let limit = Duration::from_millis(options.timeout_ms);
    let mut answers = Vec::new();
    let mut channel = None;
    while taken.fetch_add(1, Ordering::Relaxed) < options.count {
        let asked = async {
            match options.url.scheme_str() {
                Some("http") => by_http(&options).await,
                Some("grpc") => by_grpc(&options, &mut channel).await,
                _ => bail!("neither http:// nor grpc://"),
            }
        };
        let answer = match tokio::time::timeout(limit, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => json!({ "error": format!("{error:#}") }),
            Err(_) => json!({ "error": format!("no answer in {limit:?}") }),
        };
        answers.push(answer);
    }
    answers
}

async fn by_http(options: &Options) -> Result<Value> {
    let authority = options.url.authority().context("the URL has no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.context("connect")?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let target = options.url.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(&options.method).uri(target).body(Empty::<Bytes>::new())?;
    let headers = request.headers_mut();
    headers.insert(http::header::HOST, authority.as_str().parse()?);
    for (name, value) in &options.headers {
        headers.insert(name, value.clone());
    }
    let response = sender.send_request(request).await.context("request")?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.context("body")?.to_bytes();
    drop(sender);
    // Nothing more comes of it.
    connection.abort();
    Ok(answer(head.status.as_u16(), &head.headers, &String::from_utf8_lossy(&body)))
}

async fn by_grpc(options: &Options, channel: &mut Option<Channel>) -> Result<Value> {
    let channel = match channel {
        Some(channel) => channel.clone(),
        None => {
            let authority = options.url.authority().context("the URL has no host")?;
            let opened = Endpoint::from_shared(format!("http://{authority}"))?.connect().await?;
            channel.insert(opened).clone()
        }
    };
    let metadata = MetadataMap::from_headers(options.headers.iter().cloned().collect());
    let method = options.url.path_and_query().cloned().context("the URL has no path")?;
    let (code, metadata, text) = match grpc::call(channel, method, metadata).await {
        Ok((metadata, text)) => (0, metadata, text),
        Err(status) => (status.code() as i32, status.metadata().clone(), status.message().to_owned()),
    };
    let mut answer = answer(200, &metadata.into_headers(), &text);
    answer["grpc"] = json!(code);
    Ok(answer)
}

/// What an echo server saw is read; other bodies stay text.
fn answer(status: u16, headers: &HeaderMap, body: &str) -> Value {
    let seen = serde_json::from_str(body).unwrap_or_else(|_| json!(body));
    json!({ "status": status, "headers": headers_json(headers), "seen": seen })
}
