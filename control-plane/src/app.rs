//! Puts the control plane together, starts it and stops it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::auth::{AdminOnly, AdminToken};
use crate::api::identity::Identity;
use crate::api::mesh::{self, Mesh};
use crate::api::metrics_http::{self, Source};
use crate::api::resources::ResourceApi;
use crate::api::server::{self, ManagementServices, Port, SidecarServices};
use crate::api::telemetry::{Reports, Telemetry};
use crate::api::tokens::Tokens;
use crate::budget::{Budgets, Leases};
use crate::ca::server_cert::ServerCert;
use crate::ca::{Ca, files, init, load};
use crate::compile::{Compiled, Run, SessionSecret};
use crate::config::Config;
use crate::discovery::{self, Registry, Signals};
use crate::metrics::Metrics;
use crate::push::{self, DataplaneServer, Sidecars, Statuses};
use crate::store::{OpenError, RedbStore, Store};
use crate::{model, tls};

/// How long a stop waits for calls under way.
const STOP: Duration = Duration::from_secs(5);

/// How often a store that is in use is tried again.
const STORE_RETRY: Duration = Duration::from_millis(50);

/// A CA that has less time left is warned of at each start.
const EXPIRES_SOON: Duration = Duration::from_secs(60 * 24 * 3600);

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where sidecars connect; with the real port where the settings say 0.
    pub sidecar_address: SocketAddr,
    /// Where the management API is.
    pub management_address: SocketAddr,
    /// Where metrics are.
    pub metrics_address: SocketAddr,
    servers: JoinSet<anyhow::Result<()>>,
    helpers: JoinSet<()>,
    stop: watch::Sender<bool>,
    watches: CancellationToken,
    budgets: Arc<Budgets>,
}

impl ControlPlane {
    /// Opens or makes what is in the data directory, binds the ports and serves.
    ///
    /// # Errors
    /// One line each: what cannot be read, written, opened or bound.
    pub async fn start(config: &Config) -> anyhow::Result<ControlPlane> {
        let directory = &config.data_dir;
        files::create_dir(directory)
            .with_context(|| format!("cannot create the data directory {}", directory.display()))?;
        let ca = Arc::new(open_ca(config)?);
        let store = open_store(&directory.join("store.redb"), ca.trust_domain()).await?;
        let metrics = Arc::new(Metrics::new()?);

        let sidecar_listener = bind("--sidecar-listen", config.sidecar_listen).await?;
        let management_listener = bind("--management-listen", config.management_listen).await?;
        let metrics_listener = bind("--metrics-listen", config.metrics_listen).await?;
        let sidecar_address = sidecar_listener.local_addr()?;
        let management_address = management_listener.local_addr()?;
        let metrics_address = metrics_listener.local_addr()?;
        let admin = AdminToken::load_or_create(
            &directory.join("admin-token.sha256"),
            &config.admin_context(),
            &reachable(management_address).to_string(),
            &ca,
        )?;

        let (services, changed_services) = mpsc::unbounded_channel();
        let (instances, changed_instances) = mpsc::unbounded_channel();
        let signals = Signals {
            services,
            instances,
        };
        let registry = Arc::new(Registry::new(config.lease, signals));
        let written = discovery::restore(&*store, &registry);
        let versions = directory.join("config-version");
        let (run, state) = Run::new(
            ca.trust_domain(),
            session_secret(&directory.join("session.key"))?,
            store.clone(),
            registry.clone(),
            changed_services,
            versions.clone(),
        )
        .with_context(|| format!("cannot use {}", versions.display()))?;

        let certificate = Arc::new(ServerCert::new(&ca)?);
        let (stop, stopped) = watch::channel(false);
        let sidecars = Arc::new(Sidecars::default());

        let mut helpers = JoinSet::new();
        helpers.spawn(run.run());
        helpers.spawn(registry.clone().keep_expiring());
        helpers.spawn(discovery::keep_workloads(
            store.clone(),
            registry.clone(),
            changed_instances,
            written,
        ));
        helpers.spawn(certificate.clone().keep_fresh(ca.clone()));
        let source = MetricsSource {
            metrics: metrics.clone(),
            ca: ca.clone(),
            certificate: certificate.clone(),
            store: store.clone(),
            state: state.clone(),
            stopped: stopped.clone(),
        };
        helpers.spawn(metrics_http::serve(metrics_listener, Arc::new(source)));

        let port = |listener| -> anyhow::Result<Port> {
            Ok(Port {
                listener,
                tls: tls::server_config(&ca, certificate.clone())?,
                metrics: metrics.clone(),
            })
        };
        let reports = Arc::new(Reports::default());
        let budgets = Arc::new(Budgets::open(store.clone())?);
        let sidecar_services = SidecarServices {
            identity: Identity::new(ca.clone(), store.clone(), metrics.clone()),
            dataplane: DataplaneServer::new(push::Context {
                state: state.clone(),
                registry: registry.clone(),
                sidecars: sidecars.clone(),
                metrics: metrics.clone(),
                shutdown: stopped.clone(),
            }),
            telemetry: Telemetry::new(registry.clone(), metrics.clone(), reports.clone()),
            leases: Leases::new(budgets.clone(), registry, state.clone(), metrics.clone()),
        };
        let watches = CancellationToken::new();
        let statuses = Statuses::new(
            store.clone(),
            sidecars.clone(),
            state.clone(),
            reports.clone(),
            budgets.clone(),
        );
        let management_services = ManagementServices {
            admins: AdminOnly::new(Arc::new(admin), metrics.clone()),
            resources: ResourceApi::new(store.clone(), Arc::new(statuses), watches.clone()),
            mesh: Mesh {
                ca: ca.clone(),
                store: store.clone(),
                sidecars,
                state,
                started_at: SystemTime::now(),
                reports,
            },
            tokens: Tokens::new(store, ca.clone()),
        };
        let mut servers = JoinSet::new();
        let sidecar_server = server::sidecars(
            port(sidecar_listener)?,
            sidecar_services,
            is_true(stopped.clone()),
        );
        servers.spawn(async { Ok(sidecar_server.await?) });
        let management_server = server::management(
            port(management_listener)?,
            management_services,
            is_true(stopped),
        );
        servers.spawn(async { Ok(management_server.await?) });

        tracing::info!(address = %sidecar_address, "serving sidecars");
        tracing::info!(address = %management_address, "serving management");
        tracing::info!(address = %metrics_address, "serving metrics");
        Ok(ControlPlane {
            sidecar_address,
            management_address,
            metrics_address,
            servers,
            helpers,
            stop,
            watches,
            budgets,
        })
    }

    /// Waits until a part ends by itself, which no part should: half a control plane would look alive and push nothing.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = self.servers.join_next() => match ended {
                Some(Ok(Err(error))) => error,
                Some(Err(error)) => error.into(),
                Some(Ok(Ok(()))) | None => anyhow::anyhow!("a server ended by itself"),
            },
            ended = self.helpers.join_next() => match ended {
                Some(Err(error)) => error.into(),
                Some(Ok(())) | None => anyhow::anyhow!("a part of the control plane ended by itself"),
            },
        }
    }

    /// Stops: no new connections, streams are told, calls under way get a few seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.watches.cancel();
        let all = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP, all).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
        self.servers.shutdown().await;
        let budgets = self.budgets;
        let closed = tokio::task::spawn_blocking(move || budgets.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "cannot write down exactly what is leased; a part of the windows under way is lost");
        }
        self.helpers.shutdown().await;
    }
}

fn open_ca(config: &Config) -> anyhow::Result<Ca> {
    let directory = config.data_dir.join("ca");
    if directory.join("ca.crt").exists() {
        if config.ca_cert.is_some() {
            tracing::warn!(path = %directory.display(), "there is a CA already; --ca-cert is not used");
        }
    } else {
        let trust_domain = config.trust_domain.as_deref();
        let trust_domain = trust_domain.unwrap_or(model::DEFAULT_TRUST_DOMAIN);
        init::init(&directory, trust_domain, &config.ca_source())?;
        tracing::info!(path = %directory.display(), trust_domain, "made the CA");
        if directory.join("root.key").exists() {
            tracing::warn!(
                path = %directory.join("root.key").display(),
                "take the root's key offline; it is needed again to replace the intermediate"
            );
        }
    }
    let ca = load::load(
        &directory,
        config.trust_domain.as_deref(),
        config.certificate_lifetime,
    )?;
    if ca.expires_at() < SystemTime::now() + EXPIRES_SOON {
        let at = jiff::Timestamp::try_from(ca.expires_at()).map(|at| at.to_string());
        tracing::warn!(
            at = at.unwrap_or_default(),
            "the CA's certificate ends soon; nothing it signed is valid after that"
        );
    }
    tracing::info!(
        fingerprint = ca.fingerprint(),
        trust_domain = ca.trust_domain(),
        "loaded the CA"
    );
    Ok(ca)
}

/// Opens the store; one that another process holds is waited for, because a control plane that is replaced may still be
/// finishing its last calls.
/// The secret of sticky sessions, made at the first start.
fn session_secret(path: &Path) -> anyhow::Result<SessionSecret> {
    let secret = match std::fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            let found = bytes.len();
            anyhow::anyhow!("{} has {found} bytes; 32 are a key", path.display())
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret: [u8; 32] = rand::random();
            files::write_atomic(path, &secret, files::SECRET)
                .with_context(|| format!("cannot write {}", path.display()))?;
            secret
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    Ok(SessionSecret::new(&secret))
}

async fn open_store(path: &Path, trust_domain: &str) -> anyhow::Result<Arc<dyn Store>> {
    let give_up = tokio::time::Instant::now() + STOP + Duration::from_secs(1);
    let mut said = false;
    loop {
        let (path, trust_domain) = (path.to_path_buf(), trust_domain.to_owned());
        let opened =
            tokio::task::spawn_blocking(move || RedbStore::open(&path, &trust_domain)).await?;
        match opened {
            Ok(store) => return Ok(Arc::new(store)),
            Err(OpenError::InUse(path)) if tokio::time::Instant::now() < give_up => {
                if !said {
                    said = true;
                    tracing::warn!(path = %path.display(), "waiting for the process that uses the store");
                }
                tokio::time::sleep(STORE_RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                anyhow::anyhow!("{flag}: {address} is in use by another program")
            }
            _ => anyhow::anyhow!("{flag}: cannot listen on {address}: {error}"),
        })
}

/// An address to connect to, for one that is listened on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn is_true(mut receiver: watch::Receiver<bool>) {
    // An error says that the program is gone.
    let _ = receiver.wait_for(|it| *it).await;
}

struct MetricsSource {
    metrics: Arc<Metrics>,
    ca: Arc<Ca>,
    certificate: Arc<ServerCert>,
    store: Arc<dyn Store>,
    state: watch::Receiver<Arc<Compiled>>,
    stopped: watch::Receiver<bool>,
}

impl Source for MetricsSource {
    fn metrics(&self) -> String {
        self.metrics
            .set_expiries(self.ca.expires_at(), self.certificate.not_after());
        let version = self.state.borrow().version;
        self.metrics
            .config_version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
        for (kind, count) in mesh::count(&*self.store) {
            self.metrics
                .resources
                .with_label_values(&[kind.as_str()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.metrics.render()
    }

    fn not_ready(&self) -> Option<String> {
        (*self.stopped.borrow()).then(|| "stopping".to_owned())
    }
}
