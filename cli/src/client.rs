//! Asks an agent, on its admin socket or through the API server.

use crate::cluster::{AgentPod, ClusterError};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use warren_common::model::admin::AdminError;

/// After so long we say what we wait for ...
const SAY_SO: Duration = Duration::from_secs(2);
/// ... and after so long we give up. (Following has no end.)
const GIVE_UP: Duration = Duration::from_secs(15);

/// After a conversation broke, the port-forward may still say why.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where an agent is asked.
#[derive(Clone)]
pub(crate) enum Agent {
    /// On its own node.
    Socket(PathBuf),
    /// In its pod, through the API server.
    Pod(Box<AgentPod>),
}

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No socket.
    #[error(
        "no agent on this node: {} does not exist\n  is the agent running here? (kubectl -n warren-system get pods \
         -o wide)\n  does it use another --admin-socket? then say so here, or set WARREN_ADMIN_SOCKET",
        .0.display()
    )]
    NoSocket(PathBuf),
    /// A socket without an agent behind it.
    #[error("the agent does not run: nobody listens on {}\n  its log says why it ended", .0.display())]
    NotRunning(PathBuf),
    /// We may not.
    #[error("only root may ask the agent: permission denied on {}\n  try sudo, or kubectl exec into the agent's pod", .0.display())]
    Permission(PathBuf),
    /// Any other trouble with the socket.
    #[error("cannot reach the agent on {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The API server does not let us through.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The port-forward stands, and nobody is behind it.
    #[error(
        "nothing answers on the admin port of pod/{pod}: {why}\n  does the agent run with --admin-address 127.0.0.1:15000 \
         (WARREN_ADMIN_ADDRESS)? deploy/ says so"
    )]
    Forward {
        /// The agent's pod.
        pod: String,
        /// What the kubelet said.
        why: String,
    },
    /// It does not answer.
    #[error("the agent accepted the question and did not answer within {} s; its log may say why", GIVE_UP.as_secs())]
    Timeout,
    /// The conversation broke.
    #[error("the conversation with the agent broke: {0}")]
    Http(#[from] hyper::Error),
    /// The agent says no.
    #[error("the agent refused: {0}")]
    Refused(String),
    /// The agent's answer is not what this version of warren expects.
    #[error("the agent's answer is not understood ({0}); is it another version? see warren status")]
    Answer(#[from] serde_json::Error),
}

/// Runs `work` on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// Asks for `target` and reads the whole answer.
pub(crate) async fn get<T: DeserializeOwned>(agent: &Agent, target: &str) -> Result<T, ClientError> {
    ask(agent, Method::GET, target).await
}

/// The same with another method; whatever is told stands in the target.
pub(crate) async fn ask<T: DeserializeOwned>(
    agent: &Agent,
    method: Method,
    target: &str,
) -> Result<T, ClientError> {
    let answer = async {
        let body = open(agent, method, target).await?.collect().await?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    };
    patiently(answer).await
}

/// Asks for `target`, whose answer is a line of JSON per event.
pub(crate) async fn follow(agent: &Agent, target: &str) -> Result<Lines, ClientError> {
    let body = patiently(open(agent, Method::GET, target)).await?;
    Ok(Lines { body, buffer: Vec::new() })
}

/// Does `work`, and says what for when it takes long.
pub(crate) async fn saying<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => done,
        () = tokio::time::sleep(SAY_SO) => {
            eprintln!("{what} ...");
            work.await
        }
    }
}

async fn patiently<T>(work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let what = format!("waiting for the agent's answer (at most {} s)", GIVE_UP.as_secs());
    let answer = saying(&what, tokio::time::timeout(GIVE_UP, work)).await;
    answer.unwrap_or(Err(ClientError::Timeout))
}

async fn open(agent: &Agent, method: Method, target: &str) -> Result<Incoming, ClientError> {
    match agent {
        Agent::Socket(path) => request(connect(path).await?, method, target).await,
        Agent::Pod(pod) => {
            let (stream, last_words) = pod.connect().await?;
            match request(stream, method, target).await {
                // The port-forward closes what it could not connect, and says why beside it.
                Err(ClientError::Http(broken)) => {
                    let why = tokio::time::timeout(LAST_WORDS, last_words).await.ok().flatten();
                    let why = why.map_or_else(|| broken.to_string(), |why| why.trim().to_owned());
                    Err(ClientError::Forward { pod: pod.name.clone(), why })
                }
                answer => answer,
            }
        }
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::NoSocket(path),
            io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
            io::ErrorKind::PermissionDenied => ClientError::Permission(path),
            _ => ClientError::Connect { path, source },
        }
    })
}

async fn request<S>(stream: S, method: Method, target: &str) -> Result<Incoming, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() =
        target.parse().map_err(|_| ClientError::Refused(format!("{target:?} is no path")))?;
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("warren"));
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body();
    if status == StatusCode::OK {
        return Ok(body);
    }
    let text = body.collect().await?.to_bytes();
    let said = serde_json::from_slice(&text).map(|AdminError { error }| error);
    Err(ClientError::Refused(said.unwrap_or_else(|_| format!("status {status}"))))
}

/// The lines of an answer as they come.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next event; nothing when the stream ends, because the agent ended it or is gone.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}
