//! The stream to the control plane: what the sidecar subscribes to, and how what it receives becomes a
//! [`Snapshot`](crate::policy::Snapshot).
//!
//! ```text
//! control plane ─► session (one stream) ─► state ─► resources (convert: checked one by one)
//! requests ─► lookup ──────┘                 └────► snapshot (built, swapped) ─► cache on disk
//! ```
//!
//! When the control plane is away everything stays as it is, and the stream is tried again for as long as it takes.

mod admission;
mod cache;
pub mod channel;
pub(crate) mod convert;
mod endpoints;
pub(crate) mod explain;
mod leases;
mod located;
pub mod lookup;
mod readiness;
mod resources;
pub(crate) mod retry;
mod session;
mod snapshot;
mod state;
mod subscriptions;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::config::{Serve, full_name};
use crate::dns::{Names, OwnListeners, Resolver};
use crate::identity::keeper::IdentityReceiver;
use crate::identity::{Identity, SpiffeId};
use crate::shared::Shared;
use crate::telemetry::trace::Teller;
use crate::tls;

pub use lookup::LookupQueue;
use retry::{Complaints, Pauses};
use session::{Ended, Session};
use state::State;

/// A stream that lasted so long was a good one: the next failure starts with short pauses again.
const STABLE: Duration = Duration::from_secs(10);

/// What the control side must know of the sidecar.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port`.
    pub control_plane: String,
    /// Unique for each run.
    pub instance: String,
    /// The inbound listener; `None`: nothing is served.
    pub inbound_listen: Option<SocketAddr>,
    /// Where peers reach it, if that is not the address used towards the control plane.
    pub inbound_advertise: Option<SocketAddr>,
    pub metrics_listen: SocketAddr,
    pub labels: BTreeMap<String, String>,
    /// Empty: not known.
    pub zone: Arc<str>,
    pub served: Vec<Served>,
    /// Services that have a TCP listener, `<namespace>/<name>`.
    pub called: Vec<Arc<str>>,
    pub data_dir: Option<PathBuf>,
    /// DNS servers in place of the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// All of the sidecar's listeners: no DNS name may lead back to one.
    pub own_listeners: Vec<SocketAddr>,
}

/// A port of a service that this sidecar stands in front of.
#[derive(Clone, Debug)]
pub struct Served {
    /// `<namespace>/<name>`.
    pub service: Arc<str>,
    pub port: u16,
    pub weight: u32,
    /// Application and probe.
    pub serve: Serve,
}

impl Served {
    /// For a sidecar of this namespace.
    pub fn new(serve: &Serve, own_namespace: &str) -> Served {
        let namespace = serve.namespace.as_deref().unwrap_or(own_namespace);
        Served {
            service: full_name(namespace, &serve.service),
            port: serve.port,
            weight: serve.weight,
            serve: serve.clone(),
        }
    }
}

/// Follows the control plane until the task is dropped.
pub async fn run(
    shared: Arc<Shared>,
    settings: Settings,
    id: SpiffeId,
    mut receiver: IdentityReceiver,
    mut queue: LookupQueue,
) {
    let serve: Vec<Serve> = settings.served.iter().map(|it| it.serve.clone()).collect();
    let ready = readiness::watch(&serve);
    let applications = settings
        .served
        .iter()
        .map(|it| {
            let application = snapshot::Application {
                address: it.serve.application.clone(),
                proxy_protocol: it.serve.proxy_protocol,
            };
            ((it.service.clone(), it.port), application)
        })
        .collect();
    let names = Names::new(
        Resolver::new(settings.dns_servers.clone()).look_up(),
        OwnListeners::new(settings.own_listeners.clone()),
        shared.metrics.clone(),
        queue.resolved.clone(),
    );
    let teller = Teller {
        name: id.account().to_owned(),
        namespace: id.namespace().to_owned(),
        instance: settings.instance.clone(),
        zone: settings.zone.clone(),
    };
    let mut state = State::new(
        id,
        shared.clone(),
        queue.changed.clone(),
        teller,
        applications,
        settings.data_dir.clone(),
        names,
    );
    for service in &settings.called {
        state.pin_service(service);
    }
    state.load_cache();

    let mut pauses = Pauses::default();
    let mut complaints = Complaints::default();
    loop {
        let waiting = wait_for_identity(&mut receiver);
        let Some(identity) = meanwhile(&mut state, &mut queue, waiting).await else {
            // Nobody will make one: the program is about to end.
            return std::future::pending().await;
        };
        let connecting = connect(&settings.control_plane, &identity);
        let trouble = match meanwhile(&mut state, &mut queue, connecting).await {
            Ok(connection) => {
                let session = Session {
                    state: &mut state,
                    queue: &mut queue,
                    settings: &settings,
                    ready: ready.clone(),
                    identity: receiver.clone(),
                };
                let begun = Instant::now();
                let metrics = &shared.metrics;
                let ended = session
                    .run(connection, identity.not_after, || {
                        metrics.control_plane_connected(true);
                        complaints.clear();
                    })
                    .await;
                if begun.elapsed() >= STABLE {
                    pauses.reset();
                }
                if matches!(ended, Ended::Renewed) {
                    continue;
                }
                state.save().await;
                ended.to_string()
            }
            Err(error) => error,
        };
        shared.metrics.control_plane_connected(false);
        if complaints.due() {
            warn!("no connection to the control plane, trying on: {trouble}");
        }
        meanwhile(&mut state, &mut queue, tokio::time::sleep(pauses.next())).await;
    }
}

async fn wait_for_identity(identity: &mut IdentityReceiver) -> Option<Arc<Identity>> {
    identity.wait_for(Option::is_some).await.ok()?.clone()
}

async fn connect(address: &str, identity: &Identity) -> Result<channel::Connection, String> {
    let tls = tls::control_plane_client(identity).map_err(|error| error.to_string())?;
    channel::connect(address, tls)
        .await
        .map_err(|error| error.to_string())
}

/// Waits for something else than a stream. What requests ask for meanwhile is asked of the next stream; a drain need not
/// wait, there is nobody to tell.
async fn meanwhile<T>(
    state: &mut State,
    queue: &mut LookupQueue,
    future: impl Future<Output = T>,
) -> T {
    let mut future = std::pin::pin!(future);
    let drain = state.shared().drain.clone();
    let mut told = false;
    loop {
        tokio::select! {
            done = &mut future => return done,
            Some(name) = queue.wanted.recv() => drop(state.ask(&[name])),
            () = queue.resolved.notified() => state.publish(),
            () = drain.started(), if !told => {
                told = true;
                drain.announced();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
