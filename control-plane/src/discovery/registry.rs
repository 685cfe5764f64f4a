//! The sidecars and their announcements.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Announced, Candidate, Sidecar};
use crate::ca::SpiffeId;
use crate::model::EndpointState;

/// All sidecars that are connected, or were until their lease ends.
#[derive(Debug)]
pub struct Registry {
    lease: Duration,
    inner: Mutex<Inner>,
    signals: Signals,
}

/// Whom a registry tells what changed.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Services whose endpoints may have changed, `<namespace>/<name>`.
    pub services: mpsc::UnboundedSender<Arc<str>>,
    /// Instances whose announcements are not what was written down.
    pub instances: mpsc::UnboundedSender<Arc<str>>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Arc<str>, Entry>,
    /// Service to the instances that announce it.
    by_service: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    /// Grows with each new sidecar.
    order: u64,
    sidecar: Sidecar,
    endpoints: Vec<Announced>,
    deadline: Instant,
    connected: bool,
    /// Its lease has ended though its stream is open.
    silent: bool,
}

/// Why a sidecar is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("instance {0} belongs to another identity")]
    OtherIdentity(Arc<str>),
}

impl Registry {
    /// An empty registry.
    pub fn new(lease: Duration, signals: Signals) -> Registry {
        Registry {
            lease,
            inner: Mutex::default(),
            signals,
        }
    }

    /// How long a sidecar may be silent.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// A sidecar opened a stream. What it announced on an earlier one stays until it announces anew.
    ///
    /// # Errors
    /// The instance is known with another identity: somebody else's, which nobody can take.
    pub fn connect(&self, sidecar: Sidecar) -> Result<(), RegistryError> {
        let deadline = Instant::now() + self.lease;
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(&sidecar.instance) else {
            let order = inner.next;
            inner.next += 1;
            let instance = sidecar.instance.clone();
            let entry = Entry {
                order,
                sidecar,
                endpoints: Vec::new(),
                deadline,
                connected: true,
                silent: false,
            };
            inner.entries.insert(instance, entry);
            return Ok(());
        };
        if entry.sidecar.identity != sidecar.identity {
            return Err(RegistryError::OtherIdentity(sidecar.instance));
        }
        let changed = entry.sidecar.address != sidecar.address
            || entry.sidecar.labels != sidecar.labels
            || entry.sidecar.zone != sidecar.zone
            || entry.silent;
        entry.sidecar = sidecar;
        entry.connected = true;
        entry.silent = false;
        entry.deadline = entry.deadline.max(deadline);
        if changed {
            self.changed(&entry.sidecar.instance, &entry.endpoints, &[]);
        }
        Ok(())
    }

    /// Replaces what a sidecar announces. Services that do not exist are kept too: they may come.
    pub fn announce(&self, instance: &str, endpoints: Vec<Announced>) {
        let deadline = Instant::now() + self.lease;
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(entry) = inner.entries.get_mut(instance) else {
            return;
        };
        entry.deadline = entry.deadline.max(deadline);
        let woke = std::mem::take(&mut entry.silent);
        if entry.endpoints == endpoints {
            if woke {
                self.changed(&entry.sidecar.instance, &entry.endpoints, &[]);
            }
            return;
        }
        let old = std::mem::replace(&mut entry.endpoints, endpoints);
        let name = entry.sidecar.instance.clone();
        unindex(&mut inner.by_service, &name, &old);
        for endpoint in &entry.endpoints {
            let instances = inner.by_service.entry(endpoint.service.clone());
            instances.or_default().insert(name.clone());
        }
        self.changed(&name, &old, &entry.endpoints);
        let (order, sidecar) = (entry.order, entry.sidecar.clone());
        self.supersede(inner, order, &sidecar);
    }

    /// Something was heard of a sidecar.
    pub fn touch(&self, instance: &str) {
        let deadline = Instant::now() + self.lease;
        if let Some(entry) = self.lock().entries.get_mut(instance) {
            entry.deadline = entry.deadline.max(deadline);
            if std::mem::take(&mut entry.silent) {
                self.changed(&entry.sidecar.instance, &entry.endpoints, &[]);
            }
        }
    }

    /// A sidecar's stream ended. Its endpoints stay for the rest of its lease: it may be back at once.
    pub fn disconnect(&self, instance: &str) {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(instance) else {
            return;
        };
        entry.connected = false;
        let draining = |endpoint: &Announced| endpoint.state == EndpointState::Draining;
        if entry.silent || entry.endpoints.iter().all(draining) {
            self.remove(&mut inner, instance);
        }
    }

    /// Takes in what was written down before a restart. It stays for `grace` unless its sidecar comes back.
    pub fn restore(&self, sidecar: Sidecar, endpoints: Vec<Announced>, grace: Duration) {
        let instance = sidecar.instance.clone();
        if self.lock().entries.contains_key(&instance) || self.connect(sidecar).is_err() {
            return;
        }
        self.announce(&instance, endpoints);
        if let Some(entry) = self.lock().entries.get_mut(&instance) {
            entry.connected = false;
            entry.deadline = Instant::now() + grace;
        }
    }

    /// Drops what was not heard of for longer than its lease.
    pub fn expire(&self, now: Instant) {
        let mut inner = self.lock();
        let due = |(_, entry): &(&Arc<str>, &Entry)| entry.deadline <= now && !entry.silent;
        let due: Vec<Arc<str>> = inner
            .entries
            .iter()
            .filter(due)
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in due {
            let Some(entry) = inner.entries.get_mut(&instance) else {
                continue;
            };
            if entry.connected {
                // Kept: when it is heard of again, its announcement holds again.
                entry.silent = true;
                self.changed(&instance, &entry.endpoints, &[]);
                if !entry.endpoints.is_empty() {
                    tracing::warn!(
                        %instance, identity = %entry.sidecar.identity,
                        "nothing heard of a connected sidecar; its endpoints are out until it speaks"
                    );
                }
            } else {
                self.remove(&mut inner, &instance);
            }
        }
    }

    /// Expires leases for as long as the program runs.
    pub async fn keep_expiring(self: Arc<Self>) {
        // A lease may end so much late.
        let period = (self.lease / 20).clamp(Duration::from_millis(10), Duration::from_millis(250));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.expire(Instant::now());
        }
    }

    /// All live sidecars that announce a service, oldest first.
    pub fn candidates(&self, service: &str) -> Vec<Candidate> {
        let inner = self.lock();
        let Some(instances) = inner.by_service.get(service) else {
            return Vec::new();
        };
        let mut entries: Vec<&Entry> = instances
            .iter()
            .filter_map(|instance| inner.entries.get(instance))
            .filter(|entry| !entry.silent)
            .collect();
        entries.sort_by_key(|entry| entry.order);
        entries
            .into_iter()
            .filter_map(|entry| candidate(entry, service))
            .collect()
    }

    /// What a sidecar announces, and who it is. None: it is gone, or silent.
    pub fn announced(&self, instance: &str) -> Option<(Sidecar, Vec<Announced>)> {
        let inner = self.lock();
        let entry = inner.entries.get(instance).filter(|entry| !entry.silent)?;
        Some((entry.sidecar.clone(), entry.endpoints.clone()))
    }

    /// The identity of a known instance.
    pub fn identity(&self, instance: &str) -> Option<Arc<SpiffeId>> {
        let inner = self.lock();
        let entry = inner.entries.get(instance)?;
        Some(entry.sidecar.identity.clone())
    }

    /// A sidecar that was restarted has the address of the one that it was before: that one is gone.
    fn supersede(&self, inner: &mut Inner, order: u64, sidecar: &Sidecar) {
        let Some(address) = &sidecar.address else {
            return;
        };
        let gone: Vec<Arc<str>> = inner
            .entries
            .values()
            .filter(|entry| entry.order < order && !entry.connected)
            .filter(|entry| entry.sidecar.address.as_ref() == Some(address))
            .filter(|entry| entry.sidecar.identity == sidecar.identity)
            .map(|entry| entry.sidecar.instance.clone())
            .collect();
        for instance in gone {
            self.remove(inner, &instance);
        }
    }

    fn remove(&self, inner: &mut Inner, instance: &str) {
        if let Some(entry) = inner.entries.remove(instance) {
            let instance = &entry.sidecar.instance;
            unindex(&mut inner.by_service, instance, &entry.endpoints);
            self.changed(instance, &entry.endpoints, &[]);
        }
    }

    fn changed(&self, instance: &Arc<str>, old: &[Announced], new: &[Announced]) {
        let services: BTreeSet<&Arc<str>> = old
            .iter()
            .chain(new)
            .map(|endpoint| &endpoint.service)
            .collect();
        if services.is_empty() {
            return;
        }
        for service in services {
            // The receivers end with the program only.
            let _ = self.signals.services.send(service.clone());
        }
        let _ = self.signals.instances.send(instance.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unindex(
    by_service: &mut HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    instance: &str,
    endpoints: &[Announced],
) {
    for endpoint in endpoints {
        if let Some(instances) = by_service.get_mut(&endpoint.service) {
            instances.remove(instance);
            if instances.is_empty() {
                by_service.remove(&endpoint.service);
            }
        }
    }
}

fn candidate(entry: &Entry, service: &str) -> Option<Candidate> {
    let address = entry.sidecar.address.clone()?;
    let ready = entry
        .endpoints
        .iter()
        .filter(|endpoint| *endpoint.service == *service && endpoint.state == EndpointState::Ready);
    let ready_ports: Vec<(u32, u32)> = ready
        .map(|endpoint| (endpoint.port.into(), endpoint.weight))
        .collect();
    (!ready_ports.is_empty()).then(|| Candidate {
        instance: entry.sidecar.instance.clone(),
        identity: entry.sidecar.identity.clone(),
        address,
        labels: entry.sidecar.labels.clone(),
        zone: entry.sidecar.zone.clone(),
        ready_ports,
    })
}
