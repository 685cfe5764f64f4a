//! How each sidecar is doing, for people and for the status of resources.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use outrigger_proto::api::v1 as api;
use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::watch;

use super::codec::Delta;
use crate::ca::SpiffeId;

/// How long a sidecar that went away stays in the list.
const KEEP: Duration = Duration::from_secs(10 * 60);
/// Disconnected sidecars in the list, at most. With crash-looping sidecars, the list would grow without end.
const MAX_DISCONNECTED: usize = 10_000;

/// All sidecars that are connected, or were in the last minutes.
#[derive(Debug, Default)]
pub struct Sidecars {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<Arc<str>, Record>,
    streams: u64,
}

/// What is known of one sidecar.
#[derive(Debug)]
pub(super) struct Record {
    pub about: About,
    pub connected_at: SystemTime,
    pub last_seen: SystemTime,
    pub sent_version: u64,
    pub acked_version: u64,
    pub in_flight: Option<InFlight>,
    pub ack_latency: Option<Duration>,
    pub subscriptions: Vec<Arc<str>>,
    pub serves: Vec<Arc<str>>,
    /// The newest `workload` that was made for it, and its version.
    pub workload: Option<(Arc<[wire::InboundPort]>, u64)>,
    rejections: BTreeMap<Arc<str>, Rejection>,
    /// What it has in effect, by name.
    in_effect: HashMap<Arc<str>, u64>,
    stream: u64,
    /// Set while it is connected: tells its stream that another one took its place.
    replaced: Option<watch::Sender<bool>>,
    disconnected: Option<Instant>,
}

/// What a sidecar says of itself, and its certificate of it.
#[derive(Clone, Debug)]
pub struct About {
    pub instance: Arc<str>,
    pub identity: Arc<SpiffeId>,
    /// Empty for a sidecar that only calls.
    pub address: String,
    pub metrics_address: String,
    pub version: String,
    pub certificate_expires_at: Option<SystemTime>,
}

/// A delta that was not answered yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub nonce: String,
    pub sent: Instant,
    version: u64,
    /// Versions of what it brings.
    resources: Vec<(Arc<str>, u64)>,
    removed: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Rejection {
    reason: String,
    at: SystemTime,
}

/// A stream's hold on its record.
#[derive(Debug)]
pub(super) struct Ticket {
    instance: Arc<str>,
    stream: u64,
    pub replaced: watch::Receiver<bool>,
}

/// How sidecars stand to one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// They have this version in effect.
    pub accepted: u32,
    /// Instance and reason of those that refused it.
    pub refused: Vec<(Arc<str>, String)>,
}

impl Sidecars {
    /// A stream begins. One of the same instance that is still open is told to end.
    pub(super) fn open(&self, about: About, held: &HashMap<String, u64>) -> Ticket {
        let (sender, replaced) = watch::channel(false);
        let mut inner = self.lock();
        inner.prune();
        inner.streams += 1;
        let stream = inner.streams;
        let instance = about.instance.clone();
        let now = SystemTime::now();
        let in_effect = held
            .iter()
            .map(|(name, version)| (name.as_str().into(), *version));
        let record = Record {
            about,
            connected_at: now,
            last_seen: now,
            sent_version: 0,
            acked_version: 0,
            in_flight: None,
            ack_latency: None,
            subscriptions: Vec::new(),
            serves: Vec::new(),
            workload: None,
            rejections: BTreeMap::new(),
            in_effect: in_effect.collect(),
            stream,
            replaced: Some(sender),
            disconnected: None,
        };
        let old = inner.records.insert(instance.clone(), record);
        if let Some(old) = old.and_then(|old| old.replaced) {
            old.send_replace(true);
        }
        Ticket {
            instance,
            stream,
            replaced,
        }
    }

    /// A stream ended. False: another one had taken its place.
    pub(super) fn close(&self, ticket: &Ticket) -> bool {
        let closed = self.update(ticket, |record| {
            record.replaced = None;
            record.in_flight = None;
            record.disconnected = Some(Instant::now());
        });
        closed.is_some()
    }

    /// Changes the record of a stream, unless another one took its place.
    pub(super) fn update<T>(
        &self,
        ticket: &Ticket,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Option<T> {
        let mut inner = self.lock();
        let record = inner.records.get_mut(&ticket.instance)?;
        (record.stream == ticket.stream).then(|| change(record))
    }

    /// Sidecars with an open stream.
    pub fn connected(&self) -> usize {
        let inner = self.lock();
        let connected = inner
            .records
            .values()
            .filter(|it| it.disconnected.is_none());
        connected.count()
    }

    /// All sidecars, by identity and instance.
    pub fn list(&self) -> Vec<api::Sidecar> {
        let mut inner = self.lock();
        inner.prune();
        let mut sidecars: Vec<api::Sidecar> = inner.records.values().map(Record::to_api).collect();
        drop(inner);
        sidecars.sort_by(|one, other| {
            (&one.identity, &one.instance).cmp(&(&other.identity, &other.instance))
        });
        sidecars
    }

    /// How the connected sidecars stand to a resource of the given version.
    pub fn standing(&self, resource: &str, version: u64) -> Standing {
        let mut standing = Standing::default();
        let inner = self.lock();
        for (instance, record) in &inner.records {
            if record.disconnected.is_some() {
                continue;
            }
            if let Some(rejection) = record.rejections.get(resource) {
                standing
                    .refused
                    .push((instance.clone(), rejection.reason.clone()));
            } else if record.in_effect.get(resource) == Some(&version) {
                standing.accepted += 1;
            }
        }
        drop(inner);
        standing.refused.sort();
        standing
    }

    /// How connected sidecars stand to what they serve. `is_current`: whether a port is as it is to be; `None`: it does not
    /// matter, nor do sidecars that serve no others.
    pub fn serving(&self, is_current: impl Fn(&wire::InboundPort) -> Option<bool>) -> Standing {
        const WORKLOAD: &str = "workload";
        let mut standing = Standing::default();
        let inner = self.lock();
        for (instance, record) in &inner.records {
            let Some((ports, version)) = &record.workload else {
                continue;
            };
            let mut ports = ports.iter().filter_map(&is_current).peekable();
            if record.disconnected.is_some() || ports.peek().is_none() {
                continue;
            }
            if let Some(rejection) = record.rejections.get(WORKLOAD) {
                standing
                    .refused
                    .push((instance.clone(), rejection.reason.clone()));
            } else if record.in_effect.get(WORKLOAD) == Some(version) && ports.all(|it| it) {
                standing.accepted += 1;
            }
        }
        drop(inner);
        standing.refused.sort();
        standing
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn prune(&mut self) {
        self.records
            .retain(|_, record| record.disconnected.is_none_or(|at| at.elapsed() < KEEP));
        let mut gone: Vec<(Instant, Arc<str>)> = self
            .records
            .iter()
            .filter_map(|(instance, record)| Some((record.disconnected?, instance.clone())))
            .collect();
        if gone.len() > MAX_DISCONNECTED {
            gone.sort_unstable();
            for (_, instance) in &gone[..gone.len() - MAX_DISCONNECTED] {
                self.records.remove(instance);
            }
        }
    }
}

impl Record {
    /// A delta is on its way.
    pub fn sent(&mut self, delta: &Delta) {
        self.sent_version = delta.version;
        let resources = delta
            .resources
            .iter()
            .map(|it| (it.name.clone(), it.version));
        self.in_flight = Some(InFlight {
            nonce: delta.nonce.clone(),
            sent: Instant::now(),
            version: delta.version,
            resources: resources.collect(),
            removed: delta.removed.clone(),
        });
    }

    /// The sidecar lacks nothing of this version: it counts as sent and acknowledged.
    pub fn up_to_date(&mut self, version: u64) {
        self.sent_version = version;
        self.acked_version = version;
    }

    /// Whether the delta in flight has this nonce.
    pub fn expects(&self, nonce: &str) -> bool {
        self.in_flight.as_ref().is_some_and(|it| it.nonce == nonce)
    }

    /// The delta in flight was answered: these of its resources were refused. Returns how long that took.
    pub fn answered(&mut self, refusals: &[(Arc<str>, String)]) -> Option<Duration> {
        let in_flight = self.in_flight.take()?;
        let took = in_flight.sent.elapsed();
        self.ack_latency = Some(took);
        self.acked_version = in_flight.version;
        for name in &in_flight.removed {
            self.rejections.remove(name);
            self.in_effect.remove(name);
        }
        for (name, version) in in_flight.resources {
            match refusals.iter().find(|(refused, _)| *refused == name) {
                Some((_, reason)) => {
                    let at = SystemTime::now();
                    let reason = reason.clone();
                    self.rejections.insert(name, Rejection { reason, at });
                }
                None => {
                    self.rejections.remove(&name);
                    self.in_effect.insert(name, version);
                }
            }
        }
        Some(took)
    }

    /// The sidecar does not want these any more.
    pub fn forget(&mut self, names: &[String]) {
        for name in names {
            self.rejections.remove(name.as_str());
            self.in_effect.remove(name.as_str());
        }
    }

    fn sync(&self) -> api::SidecarSync {
        if self.disconnected.is_some() {
            api::SidecarSync::Disconnected
        } else if !self.rejections.is_empty() {
            api::SidecarSync::Rejected
        } else if self.in_flight.is_some() || self.sent_version == 0 {
            api::SidecarSync::Pending
        } else {
            api::SidecarSync::Synced
        }
    }

    fn to_api(&self) -> api::Sidecar {
        let texts = |names: &[Arc<str>]| names.iter().map(|name| name.to_string()).collect();
        let rejections = self.rejections.iter().map(|(name, it)| api::Rejection {
            resource: name.to_string(),
            reason: it.reason.clone(),
            at: Some(it.at.into()),
        });
        api::Sidecar {
            instance: self.about.instance.to_string(),
            identity: self.about.identity.to_string(),
            address: self.about.address.clone(),
            version: self.about.version.clone(),
            connected: self.disconnected.is_none(),
            connected_at: Some(self.connected_at.into()),
            last_seen: Some(self.last_seen.into()),
            sync: self.sync().into(),
            sent_version: self.sent_version,
            acked_version: self.acked_version,
            rejections: rejections.collect(),
            subscriptions: texts(&self.subscriptions),
            serves: texts(&self.serves),
            ack_latency: self.ack_latency.and_then(|it| it.try_into().ok()),
            certificate_expires_at: self.about.certificate_expires_at.map(Into::into),
            metrics_address: self.about.metrics_address.clone(),
        }
    }
}
