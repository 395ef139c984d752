//! The admin API: HTTP/1.1 with JSON on a unix socket that only its owner can open, and on a loopback port if so told.
//! In a cluster the API server's port-forward leads there: who may use that (`pods/portforward`) may use this.
//!
//! ```text
//!   GET  /v1/routes                          the Gateway API's routes with the status that a cluster's objects get
//!   GET  /v1/ca                              how the CA is, and who is revoked
//!   POST /v1/ca/revoke?identity=spiffe://... nobody may use it any more
//!   POST /v1/ca/undo?identity=spiffe://...   somebody may again
//!   POST /v1/ca/rotate                       a new signing certificate
//!   POST /v1/ca/rotate-root                  a new root
//!   POST /v1/ca/forget                       roots that were dropped vouch for nothing any more
//! ```

use crate::ca::revocations::Revocations;
use crate::ca::rotation::{Kind, Phase};
use crate::ca::{CaError, Keeper, describe, now};
use crate::listen;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use warren_common::model::Identity;
use warren_common::model::admin::{
    AdminError as Said, CaAlarm, CaRoot, CaRotation, CaStatus, RootCertificate,
};
use warren_common::runtime::{DrainWatch, bind_private};

/// People and scripts; more connections than this wait.
const MAX_CONNECTIONS: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the admin API is served. Who reaches it may revoke identities.
#[derive(Clone, Debug, Default)]
pub struct AdminConfig {
    /// A unix socket for its owner alone.
    pub socket: Option<PathBuf>,
    /// A loopback address, for the API server's port-forward.
    pub address: Option<SocketAddr>,
}

/// Why the admin API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The socket.
    #[error("the admin socket {}: {error}", .path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The port.
    #[error("the admin address {address}: {error}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// Anybody could revoke.
    #[error("the admin address {0} is not a loopback address: others could revoke identities")]
    Open(SocketAddr),
}

/// What is asked and told.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) revocations: Arc<Revocations>,
    /// The nodes that have pods of the mesh.
    pub(crate) meshed: Arc<dyn Fn() -> BTreeSet<String> + Send + Sync>,
    /// The Gateway API's routes, each with its status.
    pub(crate) routes: Arc<dyn Fn() -> Vec<Value> + Send + Sync>,
}

impl Admin {
    /// Serves until the drain. Needs a tokio runtime.
    pub(crate) fn spawn(&self, config: &AdminConfig, drain: &DrainWatch) -> Result<(), AdminError> {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        if let Some(path) = &config.socket {
            let failed = |error| AdminError::Socket { path: path.clone(), error };
            let (listener, file) = bind_private(path).map_err(failed)?;
            let (admin, places, mut drain) = (self.clone(), places.clone(), drain.clone());
            tokio::spawn(async move {
                let _file = file;
                loop {
                    tokio::select! {
                        accepted = listener.accept() => match accepted {
                            Ok((stream, _)) => admin.serve(stream, &places).await,
                            Err(error) => pause(&error).await,
                        },
                        () = drain.started() => return,
                    }
                }
            });
        }
        if let Some(address) = config.address {
            if !address.ip().is_loopback() {
                return Err(AdminError::Open(address));
            }
            let listener = listen::bind(address).map_err(|error| AdminError::Address { address, error })?;
            let (admin, mut drain) = (self.clone(), drain.clone());
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        accepted = listener.accept() => match accepted {
                            Ok((stream, _)) => admin.serve(stream, &places).await,
                            Err(error) => pause(&error).await,
                        },
                        () = drain.started() => return,
                    }
                }
            });
        }
        Ok(())
    }

    /// Answers a connection beside the others, once there is a place for it.
    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        places: &Arc<Semaphore>,
    ) {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let admin = self.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let admin = admin.clone();
                async move { Ok::<_, Infallible>(admin.respond(request.method(), request.uri()).await) }
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // How it ends matters to nobody but its client.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
            drop(place);
        });
    }

    async fn respond(&self, method: &Method, uri: &http::Uri) -> Response<Full<Bytes>> {
        match (method, uri.path()) {
            (&Method::GET, "/v1/routes") => json(StatusCode::OK, &(self.routes)()),
            (&Method::GET, "/v1/ca") => json(StatusCode::OK, &self.status().await),
            (&Method::POST, path @ ("/v1/ca/revoke" | "/v1/ca/undo")) => {
                let identity = match identity(uri.query().unwrap_or_default()) {
                    Ok(identity) => identity,
                    Err(why) => return error(StatusCode::BAD_REQUEST, why),
                };
                let revoke = path == "/v1/ca/revoke";
                match self.revocations.set(&identity, revoke).await {
                    Ok(changed) => {
                        tracing::warn!(%identity, revoke, changed, "told to change who is revoked");
                        json(StatusCode::OK, &self.status().await)
                    }
                    Err(why) => error(
                        StatusCode::SERVICE_UNAVAILABLE,
                        format!("nothing was changed: {why}; try again"),
                    ),
                }
            }
            (&Method::POST, path @ ("/v1/ca/rotate" | "/v1/ca/rotate-root" | "/v1/ca/forget")) => {
                tracing::warn!(path, "told to change the CA");
                let done = match path {
                    "/v1/ca/rotate" => self.keeper.rotate(Kind::Signer, now()).await,
                    "/v1/ca/rotate-root" => self.keeper.rotate(Kind::Root, now()).await,
                    _ => self.keeper.forget(now()).await,
                };
                match done {
                    Ok(()) => json(StatusCode::OK, &self.status().await),
                    Err(why @ (CaError::Busy(_) | CaError::PluggedIn(_))) => {
                        error(StatusCode::CONFLICT, format!("nothing was changed: {why}"))
                    }
                    Err(why) => error(StatusCode::SERVICE_UNAVAILABLE, format!("nothing was changed: {why}")),
                }
            }
            (
                _,
                "/v1/routes" | "/v1/ca" | "/v1/ca/revoke" | "/v1/ca/undo" | "/v1/ca/rotate"
                | "/v1/ca/rotate-root" | "/v1/ca/forget",
            ) => error(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this path")),
            (_, path) => {
                let there = "GET /v1/{routes,ca}, POST /v1/ca/{revoke,undo,rotate,rotate-root,forget}";
                error(StatusCode::NOT_FOUND, format!("there is no {path:?} here; there is {there}"))
            }
        }
    }

    async fn status(&self) -> CaStatus {
        let ca = self.keeper.current();
        let progress = self.keeper.progress(&(self.meshed)()).await;
        let (root, signing) = ca.ages();
        let (trusted, retired) = ca.roots();
        let list = |ders: &[_], state: &str| {
            let roots = ders.iter().filter_map(describe);
            let roots = roots.map(|(subject, serial, not_after)| CaRoot {
                certificate: RootCertificate { subject, serial, not_after: rfc3339(not_after) },
                state: state.to_owned(),
            });
            roots.collect::<Vec<_>>()
        };
        let position = ca.position;
        let kind = match position.kind {
            Kind::Signer => "signer",
            Kind::Root => "root",
        };
        let alarms = ca.alarms(now().unix_timestamp()).into_iter();
        CaStatus {
            root_not_after: rfc3339(root.to),
            signing_not_after: rfc3339(signing.to),
            plugged_in: ca.plugged_in.clone(),
            roots: [list(&trusted, "trusted"), list(&retired, "retired")].concat(),
            rotation: CaRotation {
                phase: position.phase.as_str().to_owned(),
                kind: kind.to_owned(),
                since: rfc3339(position.since),
                until: (position.phase != Phase::Steady).then(|| rfc3339(position.until)),
                signer: ca.trust.signer.clone(),
                nodes: progress.nodes,
                with_roots: progress.with_bundle,
                renewed: progress.renewed,
                behind: progress.behind,
            },
            alarms: alarms
                .map(|alarm| CaAlarm {
                    what: alarm.text,
                    todo: alarm.todo.to_owned(),
                    urgent: alarm.is_urgent,
                })
                .collect(),
            revoked: self.revocations.list().iter().cloned().collect(),
        }
    }
}

/// Out of descriptors, usually: don't spin.
async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "admin connection not accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Identities hold no character that a query would have to escape.
fn identity(query: &str) -> Result<Identity, String> {
    let text = query.strip_prefix("identity=").ok_or("say which: ?identity=spiffe://...")?;
    text.parse().map_err(|error: warren_common::model::IdentityError| error.to_string())
}

fn rfc3339(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{seconds} s after 1970"))
}

fn error(status: StatusCode, error: String) -> Response<Full<Bytes>> {
    json(status, &Said { error })
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    // Texts and lists of texts: writing them can't fail.
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
