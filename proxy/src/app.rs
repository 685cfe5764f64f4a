//! Puts the sidecar together: what starts in which order, and how it ends.
//!
//! 1. Who am I: an earlier run's certificate, or the join token. Without either there is nothing to start.
//! 2. All listeners are bound: a port that is in use ends the program before it has done anything.
//! 3. Workers take requests at once, and answer `not-ready` until identity and configuration are there.
//! 4. The control thread (this one) gets the identity, follows the control plane, serves metrics and the admin port.
//! 5. SIGTERM or SIGINT drains; a second one ends the program at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, ProxiedListener, full_name};
use crate::control::lookup::Lookups;
use crate::control::{self, LookupQueue, Served};
use crate::drain::{Drain, Drained};
use crate::identity::SpiffeId;
use crate::identity::keeper::Keeper;
use crate::policy::Snapshot;
use crate::runtime::{self, Bindings, ProxyProtocol, TcpBinding};
use crate::shared::{Shared, Status};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::logging::LogLevel;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Traces;
use crate::{admin, inference, memory, resilience, telemetry};

/// For the access log's last lines and the last traces, at the end.
const FLUSH: Duration = Duration::from_secs(1);

/// Runs the sidecar to its end.
///
/// # Errors
/// What keeps it from starting: no identity to be had, an address that cannot be bound, a log level that is none.
pub fn run(config: Config) -> anyhow::Result<ExitCode> {
    let log_level = telemetry::logging::init(&config.log_level, config.log_format)?;
    let keeper = Keeper::open(
        config.control_plane.clone(),
        config.join.as_ref(),
        config.data_dir.clone(),
    )?;
    let access_log = AccessLog::new(config.access_log, config.access_log_format)
        .context("cannot start the access log")?;
    let (lookups, queue) = Lookups::new();
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::from_pointee(Snapshot::default()),
        tls: ArcSwapOption::empty(),
        lookups,
        metrics: Arc::new(Metrics::new()),
        access_log,
        traces: Traces::default(),
        drain: Drain::new(),
        status: Status::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread's runtime")?;
    let code = runtime.block_on(serve(config, keeper, shared.clone(), queue, log_level))?;
    if !shared.access_log.flush(FLUSH) {
        warn!("the last lines of the access log may be lost");
    }
    Ok(code)
}

async fn serve(
    config: Config,
    keeper: Keeper,
    shared: Arc<Shared>,
    queue: LookupQueue,
    log_level: LogLevel,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let admin_listener = admin::bind(config.admin_listen).await?;
    let metrics_listener = admin::bind(config.metrics_listen).await?;
    let metrics_address = metrics_listener.local_addr()?;
    info!(
        "admin on {}, metrics on {metrics_address}",
        admin_listener.local_addr()?
    );
    let id = keeper.id().clone();
    let bindings = bindings(&config, &id);
    let called = bindings.tcp.iter().map(|tcp| tcp.service.clone()).collect();
    let workers = runtime::spawn(shared.clone(), bindings, config.workers)?;
    let bound = workers.bound();
    info!(
        %id,
        "outbound on {}, inbound {}",
        shown(bound.outbound),
        bound.inbound.map_or_else(|| "off".into(), |address| format!("on {address}")),
    );

    let own_listeners = [bound.outbound, bound.inbound]
        .into_iter()
        .flatten()
        .chain(bound.tcp.iter().copied())
        .chain([admin_listener.local_addr()?, metrics_address])
        .collect();
    let settings = control::Settings {
        control_plane: config.control_plane,
        instance: uuid::Uuid::new_v4().to_string(),
        inbound_listen: bound.inbound,
        inbound_advertise: config.inbound_advertise,
        metrics_listen: metrics_address,
        labels: config.labels,
        zone: config.zone.into(),
        served: config
            .serve
            .iter()
            .map(|serve| Served::new(serve, id.namespace()))
            .collect(),
        called,
        data_dir: config.data_dir,
        dns_servers: config.dns_servers,
        own_listeners,
    };
    tokio::spawn(admin::serve(
        shared.clone(),
        log_level,
        admin_listener,
        metrics_listener,
    ));
    tokio::spawn(resilience::sweep::run(shared.clone()));
    tokio::spawn(resilience::checks::run(shared.clone()));
    tokio::spawn(inference::engine::scrape::run(shared.clone()));
    let (identity_sender, identity) = watch::channel(None);
    tokio::spawn(memory::give_back_start(identity.clone()));
    let mut keeper = tokio::spawn(keeper.run(shared.clone(), identity_sender));
    let mut control = tokio::spawn(control::run(shared.clone(), settings, id, identity, queue));

    let code = tokio::select! {
        signal = signals.next() => {
            info!("{signal}: draining, at most {:?}", config.drain_timeout);
            drain(&shared, &mut signals, config.drain_timeout).await
        }
        // The admin port asked for it: drained, the sidecar waits to be ended.
        () = shared.drain.started() => {
            info!("draining as asked, at most {:?}", config.drain_timeout);
            let code = drain(&shared, &mut signals, config.drain_timeout).await;
            if code == ExitCode::SUCCESS {
                signals.next().await;
            }
            code
        }
        ended = &mut keeper => {
            match ended {
                Ok(error) => error!("{error}"),
                Err(error) => error!("the identity's task failed: {error}"),
            }
            ExitCode::FAILURE
        }
        // It runs for ever, unless it panicked; a sidecar whose configuration stands still must not look healthy.
        ended = &mut control => {
            if let Err(error) = ended {
                error!("the control plane's task failed: {error}");
            }
            ExitCode::FAILURE
        }
    };
    keeper.abort();
    control.abort();
    tokio::task::spawn_blocking(move || workers.join()).await?;
    if !shared.traces.finish(FLUSH).await {
        warn!("the last traces may be lost");
    }
    Ok(code)
}

/// Drains to the end or to the second signal.
async fn drain(shared: &Shared, signals: &mut Signals, timeout: Duration) -> ExitCode {
    tokio::select! {
        drained = shared.drain.run(timeout) => {
            match drained {
                Drained::Idle => info!("drained"),
                Drained::Expired(left) => warn!("the drain's time is over; cutting {left} still under way"),
            }
            ExitCode::SUCCESS
        }
        signal = signals.next() => {
            warn!("{signal} again: ending at once");
            ExitCode::FAILURE
        }
    }
}

fn bindings(config: &Config, id: &SpiffeId) -> Bindings {
    let tcp = config.tcp.iter().map(|tcp| TcpBinding {
        service: full_name(
            tcp.namespace.as_deref().unwrap_or(id.namespace()),
            &tcp.service,
        ),
        port: tcp.port,
        listen: tcp.listen,
    });
    let proxied = |listener| config.proxy_protocol.contains(&listener);
    Bindings {
        tls: config.tls_listen,
        proxy_protocol: ProxyProtocol {
            outbound: proxied(ProxiedListener::Outbound),
            inbound: proxied(ProxiedListener::Inbound),
            tcp: proxied(ProxiedListener::Tcp),
        },
        outbound: Some(config.outbound_listen),
        inbound: (!config.serve.is_empty()).then_some(config.inbound_listen),
        tcp: tcp.collect(),
    }
}

fn shown(address: Option<std::net::SocketAddr>) -> String {
    address.map_or_else(|| "nothing".into(), |address| address.to_string())
}

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
