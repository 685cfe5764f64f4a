//! The control side's own state, apart from any connection: what is subscribed to, what is held, and the snapshot that
//! was made of it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::cache;
use super::convert::Spec;
use super::resources::Resources;
use super::snapshot::{Applications, Builder};
use super::subscriptions::Subscriptions;
use crate::admission::tokens::Hub;
use crate::dns::Names;
use crate::identity::SpiffeId;
use crate::shared::Shared;
use crate::telemetry::trace::Teller;

#[derive(Debug)]
pub(super) struct State {
    id: SpiffeId,
    shared: Arc<Shared>,
    /// Wakes the requests that wait for a lookup.
    changed: watch::Sender<u64>,
    data_dir: Option<PathBuf>,
    resources: Resources,
    builder: Builder,
    subscriptions: Subscriptions,
    /// What the control plane knows by name that it is subscribed to: what was named in this stream's messages. Services
    /// that came along with a host are not among them.
    named: HashSet<String>,
    /// Since when the cache on disk is behind.
    unsaved_since: Option<Instant>,
    /// Who traces are told of.
    teller: Teller,
}

impl State {
    pub(super) fn new(
        id: SpiffeId,
        shared: Arc<Shared>,
        changed: watch::Sender<u64>,
        teller: Teller,
        applications: Applications,
        data_dir: Option<PathBuf>,
        names: Names,
    ) -> State {
        let metrics = shared.metrics.clone();
        let zone = teller.zone.clone();
        let builder = Builder::new(id.trust_domain(), zone, applications, metrics, names);
        State {
            id,
            shared,
            changed,
            resources: Resources::new(data_dir.is_some()),
            data_dir,
            builder,
            subscriptions: Subscriptions::default(),
            named: HashSet::new(),
            unsaved_since: None,
            teller,
        }
    }

    /// Where budgets of tokens ask for leases.
    pub(super) fn budgets(&self) -> Arc<Hub> {
        self.builder.budgets()
    }

    /// Subscribes to a service for as long as the sidecar runs.
    pub(super) fn pin_service(&mut self, name: &str) {
        self.subscriptions.pin(format!("service/{name}"));
    }

    /// Takes the last good configuration from disk, where there is one.
    pub(super) fn load_cache(&mut self) {
        let Some(dir) = &self.data_dir else { return };
        let delta = match cache::load(dir, &self.id) {
            Ok(Some(delta)) => delta,
            Ok(None) => return,
            Err(error) => {
                warn!("ignoring the stored configuration: {error}");
                return;
            }
        };
        let now = Instant::now();
        for resource in &delta.resources {
            if resource.name.starts_with("host/") {
                self.subscriptions.ask(&resource.name, now);
            }
        }
        let version = delta.version;
        for refusal in self.apply(delta) {
            warn!("ignoring stored {}: {}", refusal.name, refusal.reason);
        }
        self.unsaved_since = None;
        info!(version, "started with the stored configuration");
    }

    /// Puts a delta into effect; returns what was refused of it.
    pub(super) fn apply(&mut self, delta: wire::Delta) -> Vec<wire::Refusal> {
        let subscriptions = &self.subscriptions;
        let refusals = self.resources.apply(delta, self.id.trust_domain(), |name| {
            subscriptions.contains(name)
        });
        for refusal in &refusals {
            let kind = refusal.name.split('/').next().unwrap_or_default();
            self.shared.metrics.config_rejected(kind);
        }
        self.publish();
        self.shared.metrics.config_updated();
        self.shared.status.set_config();
        self.unsaved_since.get_or_insert_with(Instant::now);
        refusals
    }

    /// Makes the next snapshot of what is held, and of what is known of DNS names.
    pub(super) fn publish(&mut self) {
        let snapshot = self.builder.build(&self.resources);
        self.shared
            .traces
            .follow(snapshot.mesh.tracing.as_ref(), &self.teller);
        self.shared.snapshot.store(Arc::new(snapshot));
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Requests ask for these. Returns what to tell the control plane, if anything.
    pub(super) fn ask(&mut self, names: &[Box<str>]) -> Option<wire::Subscribe> {
        let now = Instant::now();
        let mut message = wire::Subscribe::default();
        for name in names {
            if self.subscriptions.ask(name, now) {
                message.names.push(name.to_string());
            }
        }
        let victims = self.subscriptions.evict(&self.shared.snapshot.load());
        self.drop_names(victims, &mut message);
        self.named.extend(message.names.iter().cloned());
        (message != wire::Subscribe::default()).then_some(message)
    }

    /// Forgets what was not used for long. Returns what to tell the control plane, if anything.
    pub(super) fn sweep(&mut self) -> Option<wire::Subscribe> {
        let victims = self
            .subscriptions
            .sweep(&self.shared.snapshot.load(), Instant::now());
        let mut message = wire::Subscribe::default();
        self.drop_names(victims, &mut message);
        (message != wire::Subscribe::default()).then_some(message)
    }

    /// Drops names and what only they led to.
    ///
    /// What the control plane sent along by itself it also takes back by itself (`removed`). What it knows by name, from
    /// this sidecar's own messages, is unsubscribed here, and both sides forget it.
    fn drop_names(&mut self, names: Vec<String>, message: &mut wire::Subscribe) {
        if names.is_empty() {
            return;
        }
        message.names.retain(|name| !names.contains(name));
        self.resources.forget(names.iter().map(String::as_str));
        let reachable = self.reachable();
        let mut dropped: Vec<String> = self
            .named
            .iter()
            .filter(|name| name.starts_with("service/") || name.starts_with("endpoints/"))
            .filter(|name| !reachable.contains(*name) && !self.subscriptions.contains(name))
            .cloned()
            .collect();
        dropped.extend(names.into_iter().filter(|name| self.named.contains(name)));
        self.resources.forget(dropped.iter().map(String::as_str));
        for name in &dropped {
            self.named.remove(name);
        }
        message.unsubscribe.extend(dropped);
        self.publish();
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// Services and endpoints that the subscriptions lead to.
    fn reachable(&self) -> HashSet<String> {
        let mut names = HashSet::new();
        let services = self.subscriptions.names().filter_map(|name| {
            match &self.resources.held.get(name)?.spec {
                Spec::Host(host) => Some(host.service.clone()),
                Spec::Service(service) => Some(service.name.clone()),
                _ => None,
            }
        });
        for service in services {
            let rules = self.resources.service(&service).map(|spec| &spec.rules);
            let backends = rules
                .into_iter()
                .flatten()
                .flat_map(|rule| rule.destinations());
            let all = backends.map(|backend| &backend.service).chain([&service]);
            for name in all {
                names.insert(format!("service/{name}"));
                names.insert(format!("endpoints/{name}"));
            }
        }
        names
    }

    /// A stream begins: the versions held, which count as subscriptions, and what else is wanted.
    pub(super) fn resume(&mut self) -> (std::collections::HashMap<String, u64>, wire::Subscribe) {
        let held = self.resources.versions();
        let others = self.subscriptions.names();
        let names: Vec<String> = others
            .filter(|name| !held.contains_key(*name))
            .cloned()
            .collect();
        self.named = held.keys().chain(&names).cloned().collect();
        let subscribe = wire::Subscribe {
            names,
            ..wire::Subscribe::default()
        };
        (held, subscribe)
    }

    /// Whether the inbound side knows what to do with requests for this port.
    pub(super) fn serves(&self, service: &str, port: u16) -> bool {
        let sni = super::convert::sni(service, port, self.id.trust_domain());
        self.shared.snapshot.load().inbound.contains_key(&*sni)
    }

    /// When the cache on disk is to be written. `None`: it is up to date.
    pub(super) fn save_at(&self) -> Option<Instant> {
        self.data_dir.as_ref()?;
        self.unsaved_since.map(|since| since + SAVE_AFTER)
    }

    /// Writes the cache, if it is behind. Encoded here, written by another thread.
    pub(super) async fn save(&mut self) {
        let Some(dir) = self.data_dir.clone() else {
            return;
        };
        if self.unsaved_since.take().is_none() {
            return;
        }
        let encoded = self
            .resources
            .held
            .values()
            .filter_map(|held| held.encoded.as_deref());
        let content = cache::encode(&self.id, self.resources.version, encoded);
        let shown = dir.display().to_string();
        let written = tokio::task::spawn_blocking(move || cache::save(&dir, &content)).await;
        if let Ok(Err(error)) = written {
            warn!("cannot store the configuration in {shown}: {error}");
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// Changes of this long are written together.
const SAVE_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests;
