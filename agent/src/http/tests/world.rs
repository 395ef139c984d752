//! What the pipeline's surroundings are in tests.

use super::super::io::OnWorker;
use super::super::limits::IDLE;
use super::super::outlets::{Ask, Cause, NoWay, NotReached, Outlets, Way};
use super::super::pool::{Opened, Phase, Pool, PoolKey, Terms};
use super::super::serve::{Client, serve};
use super::super::visits::Stay;
use crate::balance::{Circuit, Kind, Overflow, Slot};
use crate::limits::{Limits, LimitsConfig, OfPod};
use crate::observe::{FlowFilter, FlowHandle, ObserveConfig, Observer};
use crate::route::http::{ClientView, Ended, HttpTable, Patterns, Refusal};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use warren_common::model::admin::{Direction, Flow};
use warren_common::model::traffic::{Destination, Traffic};
use warren_common::model::{Identity, WorkloadUid};

pub(super) type Reply = Response<BoxBody<Bytes, Infallible>>;
type Future<T> = Pin<Box<dyn std::future::Future<Output = T>>>;
/// What an endpoint does with a connection.
pub(super) type Server = Rc<dyn Fn(DuplexStream) -> Future<()>>;

/// What clients dial.
pub(super) const DIALLED: &str = "10.96.0.1:80";
/// Bytes that an in-memory connection holds each way.
pub(super) const PIPE: usize = 16 << 10;

/// Services are named by the host of their destination, with endpoints that are tried in turn.
pub(super) struct World {
    table: RefCell<Arc<HttpTable>>,
    /// Why there are no rules that can be applied.
    pub(super) broken: RefCell<Option<String>>,
    services: RefCell<BTreeMap<String, Vec<Server>>>,
    /// How long it takes until it is known whether a service is there.
    pub(super) unknown_for: Cell<Duration>,
    /// Which endpoint is the next one's.
    pub(super) turn: Cell<usize>,
    /// Whether endpoints are asked in turn, and not always the same one first.
    pub(super) in_turn: Cell<bool>,
    pub(super) h2_endpoints: Cell<bool>,
    pub(super) opened: Cell<usize>,
    pub(super) ended: RefCell<Vec<Ended>>,
    pub(super) evict: Rc<Notify>,
    pub(super) terms: Cell<Terms>,
    /// Whether connections to endpoints will be cut one day.
    pub(super) ending: Rc<Cell<bool>>,
    /// How many retries there may be at a time.
    pub(super) circuit: RefCell<Circuit>,
    /// How many connections to endpoints may be open.
    pub(super) seats: Arc<Semaphore>,
    /// How many requests may wait for one.
    pub(super) may_wait: Arc<Semaphore>,
    /// Dropped, clients' connections end.
    pub(super) open: RefCell<Option<watch::Sender<()>>>,
    /// The client of a request that waits has gone.
    pub(super) gone: Notify,
    pub(super) pool: Rc<Pool>,
    pub(super) observer: Observer,
    pub(super) limits: Limits,
    pod: WorkloadUid,
}

/// Runs a test on a worker's kind of runtime, with time that passes when nobody works.
pub(super) fn run(test: impl std::future::Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// The rules' JSON of one backend.
pub(super) fn to(service: &str) -> Value {
    json!({"to": {"service": {"service": {"namespace": "shop", "hostname": service}, "port": 80}}, "weight": 1})
}

/// A rule that sends everything to `service`, with more of [`Forward`]'s fields.
///
/// [`Forward`]: warren_common::model::traffic::Forward
pub(super) fn forward(service: &str, more: Value) -> Value {
    let mut forward = json!({"backends": [to(service)]});
    if let (Value::Object(forward), Value::Object(more)) = (&mut forward, more) {
        forward.extend(more);
    }
    json!({"name": "all", "action": {"forward": forward}})
}

impl World {
    /// With these rules of a VirtualService.
    pub(super) fn new(rules: &Value) -> Rc<Self> {
        Self::limited(rules, LimitsConfig::DEFAULT)
    }

    /// The same, whose client may have only so much.
    pub(super) fn limited(rules: &Value, limits: LimitsConfig) -> Rc<Self> {
        let world = Self {
            table: RefCell::new(table(rules)),
            broken: RefCell::default(),
            services: RefCell::default(),
            unknown_for: Cell::default(),
            turn: Cell::new(0),
            in_turn: Cell::new(true),
            h2_endpoints: Cell::new(false),
            opened: Cell::new(0),
            ended: RefCell::default(),
            evict: Rc::default(),
            terms: Cell::new(Terms::DEFAULT),
            ending: Rc::default(),
            circuit: RefCell::default(),
            seats: Arc::new(Semaphore::new(1000)),
            may_wait: Arc::new(Semaphore::new(1000)),
            open: RefCell::new(Some(watch::channel(()).0)),
            gone: Notify::new(),
            pool: Pool::new(|_| true),
            observer: Observer::new(ObserveConfig::new("n1".into())),
            limits: Limits::new(limits),
            pod: WorkloadUid("client".into()),
        };
        Rc::new(world)
    }

    /// All requests go to `service`.
    pub(super) fn simple(service: &str) -> Rc<Self> {
        Self::new(&json!([forward(service, json!({}))]))
    }

    pub(super) fn change(&self, rules: &Value) {
        *self.table.borrow_mut() = table(rules);
    }

    /// One more endpoint of a service.
    pub(super) fn endpoint(&self, service: &str, server: Server) {
        self.services.borrow_mut().entry(service.to_owned()).or_default().push(server);
    }

    /// One more endpoint, that answers requests.
    pub(super) fn answers<F>(&self, service: &str, answer: impl Fn(Request<Incoming>) -> F + 'static)
    where
        F: std::future::Future<Output = Reply> + 'static,
    {
        let (answer, h2) = (Rc::new(answer), self.h2_endpoints.get());
        self.endpoint(
            service,
            Rc::new(move |stream| {
                let answer = Rc::clone(&answer);
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, Infallible>(answered.await) }
                });
                Box::pin(async move {
                    let io = TokioIo::new(stream);
                    let _ended = match h2 {
                        true => {
                            let h2 = hyper::server::conn::http2::Builder::new(OnWorker);
                            h2.serve_connection(io, service).await
                        }
                        false => {
                            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                        }
                    };
                })
            }),
        );
    }

    /// A client's connection.
    pub(super) fn connect(self: &Rc<Self>, h2: bool) -> DuplexStream {
        let (client, server) = duplex(PIPE);
        let address = "10.0.1.2:40000".parse().unwrap();
        let world = Rc::clone(self);
        let open = self.open.borrow().as_ref().map(watch::Sender::subscribe).unwrap();
        let stay = Stay { idle: IDLE, open };
        let who = Client { address, dialled: DIALLED.parse().unwrap(), h2 };
        tokio::task::spawn_local(serve(world, who, stay, server));
        client
    }

    /// All that is answered to `request`, by HTTP/1 with a client that then says no more.
    pub(super) async fn say(self: &Rc<Self>, request: &str) -> String {
        let mut client = self.connect(false);
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Records of requests that have ended.
    pub(super) fn records(&self) -> Vec<Flow> {
        self.observer.flows(&FlowFilter::default()).flows
    }

    /// The last record: status, flags, details, attempts.
    pub(super) fn last(&self) -> (u16, String, String, u32) {
        let flow = self.records().pop().unwrap();
        let request = flow.request.unwrap();
        (request.status, flow.flags, request.details.to_string(), request.attempts)
    }
}

fn table(rules: &Value) -> Arc<HttpTable> {
    let traffic: Traffic = serde_json::from_value(json!({
        "service": {"namespace": "shop", "hostname": "web"},
        "tables": [{
            "api": "istio",
            "objects": [{"kind": "VirtualService", "namespace": "shop", "name": "web"}],
            "rules": {"http": rules},
        }],
    }))
    .unwrap();
    let client = ClientView { namespace: "shop", labels: &BTreeMap::new() };
    Arc::new(HttpTable::compile(&traffic, &client, 80, &Patterns::default()).unwrap().unwrap())
}

/// A reply with a text.
pub(super) fn text(status: u16, text: impl Into<String>) -> Reply {
    let body = Full::new(Bytes::from(text.into())).boxed();
    Response::builder().status(status).body(body).unwrap()
}

/// A client of HTTP/2.
pub(super) async fn h2<B>(stream: DuplexStream) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + 'static,
{
    let (send, connection) =
        hyper::client::conn::http2::handshake(OnWorker, TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(connection);
    send
}

/// A request with a body.
pub(super) fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    let uri = format!("http://web{path}");
    Request::post(uri).body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

/// All of a request's body.
pub(super) async fn body(request: Request<Incoming>) -> String {
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Outlets for World {
    type Place = Server;
    type Seat = OwnedSemaphorePermit;

    fn rules(&self, _: &str, _: &FlowHandle) -> Result<Arc<HttpTable>, String> {
        match &*self.broken.borrow() {
            Some(why) => Err(why.clone()),
            None => Ok(Arc::clone(&self.table.borrow())),
        }
    }

    async fn known(&self, _: &Destination) {
        if !self.unknown_for.get().is_zero() {
            tokio::time::sleep(self.unknown_for.get()).await;
        }
    }

    fn pick(&self, to: &Destination, ask: &Ask<'_>) -> Result<Way<Server>, NoWay> {
        let Destination::Service { service, .. } = to else {
            unreachable!("the pipeline knows what is broken")
        };
        let services = self.services.borrow();
        let nobody = || NoWay { refusal: Refusal::no_endpoint(), why: "nobody is there".to_owned() };
        let all = services.get(&*service.hostname).ok_or_else(nobody)?;
        let uid = |index: usize| WorkloadUid(format!("{}-{index}", service.hostname).into());
        let start = self.turn.get();
        self.turn.set(start + usize::from(self.in_turn.get()));
        let order: Vec<_> = (0..all.len()).map(|n| (start + n) % all.len()).collect();
        let index = order
            .iter()
            .find(|index| !ask.tried.contains(&uid(**index)))
            .or(order.first())
            .ok_or_else(nobody)?;
        Ok(Way {
            key: PoolKey {
                source: WorkloadUid("client".into()),
                source_pod_uid: "".into(),
                source_identity: Identity::new("cluster.local", "shop", "client").unwrap(),
                endpoint: Some(uid(*index)),
                pod_uid: "".into(),
                identity: None,
                address: format!("10.0.2.{index}:80").parse().unwrap(),
                name: None,
                tls: None,
                h2: self.h2_endpoints.get(),
                cluster: None,
            },
            terms: self.terms.get(),
            cluster: format!("outbound|80||{}", service.hostname).into(),
            set_cookie: None,
            place: Rc::clone(&all[*index]),
        })
    }

    async fn seat(&self, _: &Way<Server>) -> Result<OwnedSemaphorePermit, NotReached> {
        let overflow = || NotReached { why: "too many wait".into(), cause: Cause::Overload };
        let _waits = Arc::clone(&self.may_wait).try_acquire_owned().map_err(|_| overflow())?;
        Ok(Arc::clone(&self.seats).acquire_owned().await.unwrap())
    }

    async fn open(
        &self,
        way: &Way<Server>,
        seat: OwnedSemaphorePermit,
        _: &FlowHandle,
    ) -> Result<Opened, NotReached> {
        self.opened.set(self.opened.get() + 1);
        let (client, server) = duplex(PIPE);
        tokio::task::spawn_local((way.place)(server));
        let evict = Rc::clone(&self.evict);
        let phase = watch::Sender::new(Phase::Busy);
        let mut told = phase.subscribe();
        let evicted = Box::pin(async move {
            let held = async move {
                let _seat = seat;
                if told.wait_for(|phase| *phase == Phase::Over).await.is_err() {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                () = evict.notified() => {}
                () = async { held.await; pending().await } => {}
            }
        });
        let ending = Rc::clone(&self.ending);
        let is_ending = Box::new(move || ending.get());
        Ok(Opened { io: Box::new(client), evicted, phase, is_ending })
    }

    fn ended(&self, _: &Server, ended: Ended) {
        self.ended.borrow_mut().push(ended);
    }

    fn retry(&self, _: &Server) -> Result<Option<Slot>, Overflow> {
        self.circuit.borrow().take(Kind::Retry).map(Some)
    }

    fn limits(&self) -> OfPod<'_> {
        self.limits.of(&self.pod)
    }

    async fn client_gone(&self) {
        self.gone.notified().await;
    }

    fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    fn begin(&self) -> FlowHandle {
        self.observer.begin_request(Direction::Outbound, None, None)
    }

    fn describe(&self, _: &FlowHandle, _: &Way<Server>) {}

    fn connected(&self, _: &FlowHandle, _: &Way<Server>) {}
}

/// A server that never says anything.
pub(super) fn silent() -> Server {
    Rc::new(|stream| {
        Box::pin(async move {
            let _held = stream;
            pending::<()>().await;
        })
    })
}

/// A server that reads one request's head and then does what it is told with the connection.
pub(super) fn script<F>(act: impl Fn(String, DuplexStream) -> F + 'static) -> Server
where
    F: std::future::Future<Output = ()> + 'static,
{
    let act = Rc::new(act);
    Rc::new(move |mut stream| {
        let act = Rc::clone(&act);
        Box::pin(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            act(String::from_utf8(head).unwrap(), stream).await;
        })
    })
}
