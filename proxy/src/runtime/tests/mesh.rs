//! Two sidecars wired as a pair, and applications behind the second one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use crate::address::Address;
use crate::admission::{Breaker, Throttle};
use crate::balance::{Endpoint, EndpointSet, Load, Policy};
use crate::config::LogFormat;
use crate::control::lookup::Lookups;
use crate::drain::Drain;
use crate::policy::filters::{DirectResponse, Filter};
use crate::policy::health::{Check, HealthCheck, ServiceHealth};
use crate::policy::{
    AccessLogMode, Backend, CallerLimits, Causes, ConnectionPool, Detection, Fallback,
    FallbackModel, FallbackTo, Filters, Hedge, HostEntry, InboundPort, Inference, Protocol,
    Recovery, Retry, Rule, Service, ServicePort, Session, SessionSettings, Snapshot, TcpLimits,
    Timeouts, Upstream,
};
use crate::resilience::health::Health;
use crate::resilience::outlier::{self, Outliers};
use crate::resilience::{Backoff, RetryBudget};
use crate::runtime::{Bindings, Bound, TcpBinding, Worker, Workers, spawn};
use crate::shared::{Shared, Status};
use crate::telemetry::Direction;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;
use crate::tls::TlsState;
use crate::tls::test_ca::TestCa;

pub(super) const CALLER: &str = "spiffe://outrigger.local/ns/default/sa/caller";
pub(super) const CHAT: &str = "spiffe://outrigger.local/ns/default/sa/chat";
const SNI: &str = "80.chat.default.outrigger.local";

/// A sidecar on a thread of its own.
pub(super) struct Sidecar {
    pub(super) shared: Arc<Shared>,
    pub(super) bound: Bound,
    log: Log,
    workers: Option<Workers>,
}

fn shared(identity: Option<TlsState>, log: Log) -> Arc<Shared> {
    let (lookups, _) = Lookups::new();
    Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        tls: ArcSwapOption::from_pointee(identity),
        lookups,
        metrics: Arc::new(Metrics::new()),
        access_log: AccessLog::to(AccessLogMode::All, LogFormat::Json, Box::new(log)).unwrap(),
        traces: Traces::default(),
        drain: Drain::new(),
        status: Status::default(),
    })
}

/// A worker without listeners, for tests of parts of the path.
pub(crate) fn idle_worker() -> Rc<Worker> {
    Worker::new(shared(None, Log::default()), Bound::default())
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sidecar {
    pub(super) fn start(identity: Option<TlsState>, bindings: Bindings) -> Sidecar {
        let log = Log::default();
        let shared = shared(identity, log.clone());
        let workers = spawn(Arc::clone(&shared), bindings, 1).unwrap();
        Sidecar {
            shared,
            bound: workers.bound().clone(),
            log,
            workers: Some(workers),
        }
    }

    pub(super) fn set(&self, snapshot: Snapshot) {
        self.shared.status.set_config();
        self.shared.snapshot.store(Arc::new(snapshot));
    }

    /// Lines of the access log, once there are as many.
    pub(super) async fn log_lines(&self, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..500 {
            let bytes = self.log.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            if text.lines().count() >= count && (count == 0 || text.ends_with('\n')) {
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                return lines.collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {count} lines: {}", self.metrics());
    }

    pub(super) fn metrics(&self) -> String {
        self.shared.metrics.render(&self.shared)
    }

    /// Waits until the metrics have a line with all of these parts.
    pub(super) async fn expect_metric(&self, parts: &[&str]) {
        for _ in 0..300 {
            let text = self.metrics();
            let found = |line: &str| parts.iter().all(|part| line.contains(part));
            if text.lines().any(found) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no line with {parts:?} in\n{}", self.metrics());
    }

    pub(super) fn outbound(&self) -> SocketAddr {
        self.bound.outbound.unwrap()
    }

    pub(super) fn inbound(&self) -> SocketAddr {
        self.bound.inbound.unwrap()
    }

    pub(super) fn in_flight(&self) -> u64 {
        let all = self.shared.metrics.all_requests();
        all.iter().map(|each| each.totals().in_flight).sum()
    }

    /// Waits until nothing is under way.
    pub(super) async fn idle(&self) {
        for _ in 0..500 {
            if self.in_flight() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still in flight:\n{}", self.metrics());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
    }
}

/// What the caller's side knows of the one service there is, `default/chat`.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) protocol: Protocol,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retry>,
    pub(super) connect_timeout: Duration,
    pub(super) identities: Vec<&'static str>,
    pub(super) tcp: TcpLimits,
    pub(super) pool: ConnectionPool,
    pub(super) detection: Detection,
    pub(super) policy: Policy,
    pub(super) hedge: Option<Hedge>,
    pub(super) fallbacks: Vec<(Causes, Onto)>,
    pub(super) expose_attempts: bool,
    pub(super) filters: Vec<Filter>,
    pub(super) outliers: Option<outlier::Policy>,
    pub(super) checks: Vec<HealthCheck>,
    pub(super) limits: Option<CallerLimits>,
    pub(super) session: Option<SessionSettings>,
    pub(super) inference: Option<Inference>,
}

/// Where a fallback leads.
#[derive(Clone)]
pub(super) enum Onto {
    /// To a service of this name with these plaintext endpoints.
    Service(&'static str, Vec<SocketAddr>),
    /// The same, for this model, with what the service says of models.
    Model(
        &'static str,
        Vec<SocketAddr>,
        &'static str,
        Option<Inference>,
    ),
    Response(DirectResponse),
}

impl Default for Calls {
    fn default() -> Calls {
        Calls {
            protocol: Protocol::Http,
            timeouts: Timeouts::default(),
            retry: None,
            connect_timeout: Duration::from_secs(2),
            identities: vec![CHAT],
            tcp: TcpLimits::default(),
            pool: ConnectionPool::default(),
            detection: Detection::default(),
            // Tests know the order.
            policy: Policy::RoundRobin,
            hedge: None,
            fallbacks: Vec::new(),
            expose_attempts: false,
            filters: Vec::new(),
            outliers: None,
            checks: Vec::new(),
            limits: None,
            session: None,
            inference: None,
        }
    }
}

pub(crate) fn retry(max_retries: u32) -> Retry {
    Retry {
        max_retries,
        statuses: Vec::new(),
        grpc_codes: Vec::new(),
        methods: vec![http::Method::GET, http::Method::PUT],
        on_reset: false,
        on_timeout: false,
        backoff: Backoff {
            base: Duration::from_millis(1),
            max: Duration::from_millis(10),
        },
        max_body_bytes: 1024,
    }
}

pub(crate) fn endpoint(address: SocketAddr, mtls: bool) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address,
        mtls,
        identity: None,
        ports: Box::default(),
        labels: BTreeMap::new(),
        weight: 1,
        zone: Arc::from(""),
        instance: Arc::from(""),
        load: Arc::new(Load::default()),
        outside: None,
        health: Arc::default(),
    })
}

impl Calls {
    /// The snapshot of a sidecar that calls `default/chat` at these endpoints.
    pub(super) fn snapshot(&self, metrics: &Metrics, endpoints: Vec<Arc<Endpoint>>) -> Snapshot {
        let name: Arc<str> = Arc::from("default/chat");
        let (health, endpoints) = self.health(endpoints);
        let endpoints = Arc::new(EndpointSet::new(
            self.policy,
            Duration::from_secs(10),
            endpoints,
        ));
        let ports = vec![ServicePort {
            port: 80,
            name: Arc::from("http"),
            protocol: self.protocol,
            detection: self.detection,
        }];
        let upstream = Arc::new(Upstream {
            inference: self.inference.clone().map(Arc::new),
            names: Box::default(),
            tls: None,
            has_loop: false,
            limits: self.breaker(metrics, &name, &endpoints),
            service: Arc::clone(&name),
            ports: ports.clone(),
            identities: self
                .identities
                .iter()
                .map(|id| id.parse().unwrap())
                .collect(),
            connect_timeout: self.connect_timeout,
            pool: Arc::new(self.pool.clone()),
            endpoints: Arc::clone(&endpoints),
            health,
        });
        let backends = vec![Backend {
            model_endpoints: Box::default(),
            upstream: Arc::clone(&upstream),
            port: 80,
            protocol: self.protocol,
            weight: 1,
            endpoints,
            server_name: SNI.try_into().unwrap(),
            metrics: metrics.request(Direction::Outbound, &name, "default/all", &name),
        }];
        let session = self.session.clone();
        let rule = Rule {
            session: session.map(|it| Box::new(Session::new(it, &backends, Arc::default()))),
            route: Arc::from("default/all"),
            matches: Vec::new(),
            backends,
            total_weight: 1,
            turns: Arc::default(),
            timeouts: self.timeouts.clone(),
            retry: self.retry.clone(),
            budget: Arc::new(RetryBudget::new(20, 10)),
            recovery: self.recovery(metrics),
            filters: (!self.filters.is_empty()).then(|| {
                Box::new(Filters {
                    steps: self.filters.clone(),
                    metrics: metrics.filters(&name, "default/all"),
                })
            }),
        };
        let service = Arc::new(Service {
            name: Arc::clone(&name),
            ports,
            rules: vec![Arc::new(rule)],
            upstream,
            tcp: self.tcp,
        });
        let mut snapshot = Snapshot {
            version: 1,
            ..Snapshot::default()
        };
        for host in ["chat", "chat:80", "chat.default"] {
            snapshot.hosts.insert(
                host.into(),
                HostEntry::Service {
                    service: Arc::clone(&service),
                    port: 80,
                },
            );
        }
        snapshot.hosts.insert("nobody".into(), HostEntry::Absent);
        snapshot.services.insert(name, service);
        snapshot
    }
}

impl Calls {
    /// The limits, with nothing in use.
    fn breaker(
        &self,
        metrics: &Metrics,
        service: &Arc<str>,
        endpoints: &EndpointSet,
    ) -> Option<Arc<Breaker>> {
        let limits = self.limits.clone()?;
        for endpoint in endpoints.endpoints() {
            let load = &endpoint.load;
            load.set_most_in_flight(limits.endpoint_requests);
            load.set_most_connections(limits.endpoint_connections);
        }
        Some(Arc::new(Breaker {
            throttle: limits
                .throttling
                .map(|(ratio, window)| Arc::new(Throttle::new(ratio, window))),
            limits,
            usage: Arc::default(),
            refusals: metrics.refusals(Direction::Outbound, service),
        }))
    }

    /// Endpoints that are watched together.
    fn health(&self, endpoints: Vec<Arc<Endpoint>>) -> (ServiceHealth, Vec<Arc<Endpoint>>) {
        let outliers = Arc::new(Outliers::default());
        let watched = |endpoint: Arc<Endpoint>| {
            let health = Arc::new(Health::of(&outliers));
            Arc::new(Endpoint {
                health,
                ..Arc::into_inner(endpoint).unwrap()
            })
        };
        // Where nothing is watched, tests may hold the endpoints themselves.
        let endpoints: Vec<_> = match self.outliers {
            Some(_) => endpoints.into_iter().map(watched).collect(),
            None => endpoints,
        };
        let members: Vec<_> = endpoints.iter().map(|it| it.health.clone()).collect();
        outliers.update(self.outliers.clone().map(Arc::new).as_ref(), &[], &members);
        let check = |what: &HealthCheck| Check {
            what: what.clone(),
            protocol: self.protocol,
            server_name: SNI.try_into().unwrap(),
        };
        let health = ServiceHealth {
            outliers,
            checks: self.checks.iter().map(check).collect(),
        };
        (health, endpoints)
    }

    fn recovery(&self, metrics: &Metrics) -> Recovery {
        let fallback = |(on, onto): &(Causes, Onto)| {
            let mut asked = "";
            let (name, to) = match onto {
                Onto::Response(response) => ("response", FallbackTo::Response(response.clone())),
                Onto::Service(name, endpoints) => {
                    let backend = self.backend(metrics, name, endpoints, None);
                    (*name, FallbackTo::Backend(Box::new(backend)))
                }
                Onto::Model(name, endpoints, model, inference) => {
                    asked = model;
                    let backend = self.backend(metrics, name, endpoints, inference.clone());
                    (*name, FallbackTo::Backend(Box::new(backend)))
                }
            };
            Fallback {
                on: *on,
                to,
                name: Arc::from(name),
                mark: name.try_into().unwrap(),
                model: (!asked.is_empty()).then(|| FallbackModel {
                    name: asked.into(),
                    mark: asked.try_into().unwrap(),
                }),
                metrics: metrics.fallback("default/chat", "default/all", name, asked),
            }
        };
        Recovery {
            hedge: self.hedge.clone(),
            continuation: None,
            fallbacks: self.fallbacks.iter().map(fallback).collect(),
            expose_attempts: self.expose_attempts,
        }
    }

    /// Another service that requests to `default/chat` go to.
    fn backend(
        &self,
        metrics: &Metrics,
        name: &str,
        endpoints: &[SocketAddr],
        inference: Option<Inference>,
    ) -> Backend {
        let endpoints = endpoints.iter().map(|at| endpoint(*at, false)).collect();
        let decay = Duration::from_secs(10);
        let endpoints = Arc::new(EndpointSet::new(self.policy, decay, endpoints));
        Backend {
            model_endpoints: Box::default(),
            upstream: Arc::new(Upstream {
                inference: inference.map(Arc::new),
                names: Box::default(),
                tls: None,
                has_loop: false,
                limits: None,
                service: Arc::from(name),
                ports: Vec::new(),
                identities: Vec::new(),
                connect_timeout: self.connect_timeout,
                pool: Arc::new(self.pool.clone()),
                endpoints: Arc::clone(&endpoints),
                health: Default::default(),
            }),
            port: 80,
            protocol: self.protocol,
            weight: 1,
            endpoints,
            server_name: SNI.try_into().unwrap(),
            metrics: metrics.request(Direction::Outbound, "default/chat", "default/all", name),
        }
    }
}

/// The snapshot of a sidecar that serves `default/chat`.
pub(super) fn serving(application: impl Into<Address>, protocol: Protocol) -> Snapshot {
    serving_with(application, protocol, ConnectionPool::default())
}

/// As [`serving`], with this pool.
pub(super) fn serving_with(
    application: impl Into<Address>,
    protocol: Protocol,
    pool: ConnectionPool,
) -> Snapshot {
    let mut snapshot = Snapshot {
        version: 1,
        ..Snapshot::default()
    };
    snapshot.inbound.insert(
        SNI.into(),
        Arc::new(InboundPort {
            signals: None,
            inference: None,
            gate: None,
            rate_limits: None,
            service: Arc::from("default/chat"),
            port: 80,
            protocol,
            application: application.into(),
            stream_idle_timeout: None,
            proxy_protocol: None,
            tcp: TcpLimits::default(),
            detection: Detection::default(),
            pool: Arc::new(pool),
        }),
    );
    snapshot
}

pub(super) fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(super) fn tls(ca: &TestCa, id: &str) -> TlsState {
    TlsState::new(&ca.identity(id)).unwrap()
}

pub(super) fn calling(ca: &TestCa) -> Sidecar {
    let bindings = Bindings {
        outbound: Some(any()),
        tcp: vec![TcpBinding {
            service: Arc::from("default/chat"),
            port: 80,
            listen: any(),
        }],
        ..Bindings::default()
    };
    Sidecar::start(Some(tls(ca, CALLER)), bindings)
}

pub(super) fn server(ca: &TestCa, id: &str) -> Sidecar {
    let bindings = Bindings {
        inbound: Some(any()),
        ..Bindings::default()
    };
    Sidecar::start(Some(tls(ca, id)), bindings)
}

/// A caller's sidecar and a server's.
pub(super) struct Pair {
    pub(super) ca: TestCa,
    pub(super) caller: Sidecar,
    pub(super) server: Sidecar,
}

impl Pair {
    pub(super) fn new(calls: Calls, application: SocketAddr) -> Pair {
        let ca = TestCa::new();
        let caller = calling(&ca);
        let server = server(&ca, CHAT);
        let mut snapshot = serving(application, calls.protocol);
        for port in snapshot.inbound.values_mut() {
            let port = Arc::get_mut(port).unwrap();
            port.inference = calls.inference.clone().map(Arc::new);
            port.signals = port.inference.as_ref().map(|_| Arc::default());
        }
        server.set(snapshot);
        let endpoints = vec![endpoint(server.inbound(), true)];
        caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
        Pair { ca, caller, server }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.caller.outbound()
    }
}

/// A caller's sidecar with plaintext endpoints.
pub(super) fn plain(calls: Calls, endpoints: &[SocketAddr]) -> Sidecar {
    let caller = calling(&TestCa::new());
    let endpoints = endpoints.iter().map(|at| endpoint(*at, false)).collect();
    caller.set(calls.snapshot(&caller.shared.metrics, endpoints));
    caller
}

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) fn text(body: &str) -> Answer {
    Response::new(Full::new(Bytes::from(body.to_owned())))
}

/// An application that answers with whole responses, over HTTP/1.1 and h2c.
pub(super) async fn application<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    sockets(move |stream| {
        let answer = answer.clone();
        async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// An application that does as it likes with its connections.
pub(super) async fn sockets<F, S>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// An address that refuses connections.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(any()).await.unwrap();
    listener.local_addr().unwrap()
}
