//! The admin API: HTTP/1.1 with JSON on a unix socket that only root can open, and on a loopback port if so told.

use super::flows::Observer;
use super::http::{Accept, Answer, Limits, answer, error, json, serve};
use super::stream::FlowFilter;
use super::wanted::RequestFilter;
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use warren_common::model::admin::{
    Certificates, Policies, Routes, RoutesQuestion, Services, Status, Why, WhyQuestion, Workloads, parameters,
};
use warren_common::runtime::{DrainWatch, bind_private};

const LIMITS: Limits = Limits {
    connections: 64,
    header_timeout: Duration::from_secs(10),
    header_bytes: 16 * 1024,
    lifetime: None,
};

/// What the admin socket shows, beside the flows that the observer knows.
pub trait AdminView: Send + Sync + 'static {
    /// How the agent is.
    fn status(&self) -> Status;
    /// Known workloads, ordered by namespace and name.
    fn workloads(&self) -> Workloads;
    /// Known services, ordered by namespace and name.
    fn services(&self) -> Services;
    /// Policies, ordered by namespace and name.
    fn policies(&self) -> Policies;
    /// Certificates of this node.
    fn certificates(&self) -> Certificates;
    /// Where a pod of this node would get, and why. May take a while.
    ///
    /// # Errors
    /// Why that can't be said, and what to do next.
    fn why(&self, question: &WhyQuestion) -> Result<Why, String>;
    /// What is in force for the pods of this node. May take a while.
    ///
    /// # Errors
    /// Why that can't be said, and what to do next.
    fn routes(&self, question: &RoutesQuestion) -> Result<Routes, String>;
}

/// Serves the admin API on `path` until the drain begins, then removes the socket.
///
/// A socket that an earlier agent left (or that an agent about to end still serves) is replaced in one step;
/// missing directories are made, for the owner only.
///
/// # Errors
/// When the socket can't be made.
pub async fn serve_admin(
    path: PathBuf,
    observer: Observer,
    view: Arc<dyn AdminView>,
    drain: DrainWatch,
) -> io::Result<()> {
    let (listener, _guard) = bind_private(&path)?;
    answer_until(listener, observer, view, drain).await;
    Ok(())
}

/// Serves the same on a TCP port until the drain begins. The caller has made sure that it is a loopback port of the
/// agent's own network namespace: who reaches it is not asked who they are.
pub async fn serve_admin_on(
    listener: TcpListener,
    observer: Observer,
    view: Arc<dyn AdminView>,
    drain: DrainWatch,
) {
    answer_until(listener, observer, view, drain).await;
}

async fn answer_until(
    listener: impl Accept,
    observer: Observer,
    view: Arc<dyn AdminView>,
    mut drain: DrainWatch,
) {
    tokio::select! {
        never = serve(listener, LIMITS, move |request| route(&request, &observer, &view)) => match never {},
        () = drain.started() => {}
    }
}

const PATHS: &str =
    "/v1/status, /v1/flows, /v1/workloads, /v1/services, /v1/policies, /v1/certs, /v1/why, /v1/routes";

/// What takes a while is done one at a time, on a thread of its own: neither traffic nor the control runtime waits for it.
static SLOW: Semaphore = Semaphore::const_new(1);

async fn slowly<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Response<Answer> {
    let _turn = SLOW.acquire().await;
    match tokio::task::spawn_blocking(move || work().map(|value| json(StatusCode::OK, &value))).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(said)) => error(StatusCode::BAD_REQUEST, said),
        Err(failed) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be made: {failed}"))
        }
    }
}

fn route<B>(
    request: &Request<B>,
    observer: &Observer,
    view: &Arc<dyn AdminView>,
) -> impl Future<Output = Response<Answer>> + Send + use<B> {
    let query = request.uri().query().unwrap_or_default();
    let slow: Option<Pin<Box<dyn Future<Output = Response<Answer>> + Send>>> = match request.uri().path() {
        _ if request.method() != Method::GET => None,
        "/v1/why" => {
            let (asked, view) = (WhyQuestion::from_query(query), Arc::clone(view));
            Some(Box::pin(slowly(move || view.why(&asked?))))
        }
        "/v1/routes" => {
            let (asked, view) = (RoutesQuestion::from_query(query), Arc::clone(view));
            Some(Box::pin(slowly(move || view.routes(&asked?))))
        }
        _ => None,
    };
    slow.unwrap_or_else(|| Box::pin(std::future::ready(at_once(request, observer, &**view))))
}

fn at_once<B>(request: &Request<B>, observer: &Observer, view: &dyn AdminView) -> Response<Answer> {
    if request.method() != Method::GET {
        let said = format!("{} is not supported here; use GET", request.method());
        return error(StatusCode::METHOD_NOT_ALLOWED, said);
    }
    let ok = StatusCode::OK;
    match request.uri().path() {
        "/v1/status" => json(ok, &view.status()),
        "/v1/workloads" => json(ok, &view.workloads()),
        "/v1/services" => json(ok, &view.services()),
        "/v1/policies" => json(ok, &view.policies()),
        "/v1/certs" => json(ok, &view.certificates()),
        "/v1/flows" => match FlowQuery::parse(request.uri().query().unwrap_or_default()) {
            Ok(FlowQuery { follow: false, filter }) => json(ok, &observer.flows(&filter)),
            Ok(FlowQuery { follow: true, filter }) => {
                let events = Answer::Events(Box::new(observer.subscribe(filter)));
                answer(ok, "application/x-ndjson", events)
            }
            Err(said) => error(StatusCode::BAD_REQUEST, said),
        },
        path => error(StatusCode::NOT_FOUND, format!("there is no {path:?} here; there is {PATHS}")),
    }
}

/// The parameters of `/v1/flows`.
#[derive(Debug, Default)]
struct FlowQuery {
    follow: bool,
    filter: FlowFilter,
}

impl FlowQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in parameters(query)? {
            let flag = || value.parse().map_err(|_| format!("{name}={value:?} must be true or false"));
            match name {
                "follow" => parsed.follow = flag()?,
                "open" => parsed.filter.open = flag()?,
                "failed" => parsed.filter.failed = flag()?,
                "namespace" => parsed.filter.namespace = Some(value),
                "pod" => parsed.filter.pod = Some(value),
                "status" => {
                    RequestFilter::check_status(&value)?;
                    parsed.filter.request.status = Some(value);
                }
                "path" => parsed.filter.request.path = Some(value),
                "method" => parsed.filter.request.method = Some(value),
                "route" => parsed.filter.request.route = Some(value),
                "last" => {
                    let last = value.parse().map_err(|_| format!("last={value:?} must be a number"))?;
                    parsed.filter.last = Some(last);
                }
                _ => {
                    let known = "follow, open, failed, namespace, pod, status, path, method, route, last";
                    return Err(format!("{name:?} is not a parameter of /v1/flows; it takes {known}"));
                }
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
