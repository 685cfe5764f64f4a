//! All names in use, each with the task that follows it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::follow::follow;
use super::name::{Name, Trouble};
use super::own::OwnListeners;
use super::{Answer, LookUp};
use crate::telemetry::metrics::Metrics;

/// Names by service and host. Which ones are in use is said anew with each snapshot, between [`begin`](Names::begin) and
/// [`end`](Names::end).
pub(crate) struct Names {
    /// `None`: nothing is looked up.
    look_up: Option<LookUp>,
    changed: Arc<Notify>,
    own: OwnListeners,
    metrics: Arc<Metrics>,
    known: HashMap<(Arc<str>, Arc<str>), Known>,
}

struct Known {
    name: Arc<Name>,
    task: Option<AbortHandle>,
    wanted: bool,
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Names {
    /// `changed` is woken when a snapshot is to be made.
    pub(crate) fn new(
        look_up: LookUp,
        own: OwnListeners,
        metrics: Arc<Metrics>,
        changed: Arc<Notify>,
    ) -> Names {
        Names {
            look_up: Some(look_up),
            changed,
            own,
            metrics,
            known: HashMap::new(),
        }
    }

    /// Names that are not looked up: for those who want to know what a configuration means, and have no requests to send.
    pub(crate) fn unresolved(metrics: Arc<Metrics>) -> Names {
        Names {
            look_up: None,
            changed: Arc::default(),
            own: OwnListeners::default(),
            metrics,
            known: HashMap::new(),
        }
    }

    pub(crate) fn own_listeners(&self) -> &OwnListeners {
        &self.own
    }

    /// From now on, names that nobody wants are not in use.
    pub(crate) fn begin(&mut self) {
        for known in self.known.values_mut() {
            known.wanted = false;
        }
    }

    /// A name in use. A new one begins to be looked up; an IP address is its own answer.
    pub(crate) fn want(&mut self, service: &Arc<str>, host: &Arc<str>) -> Arc<Name> {
        let key = (service.clone(), host.clone());
        let known = self.known.entry(key).or_insert_with(|| {
            let metrics = self.metrics.dns(service);
            let name = Arc::new(Name::new(service.clone(), host.clone(), metrics));
            let task = match (address(host), &self.look_up) {
                (Some(address), _) => {
                    let answer = Answer {
                        addresses: vec![address],
                        ttl: Duration::MAX,
                        unknown: None,
                    };
                    name.update(Ok(answer), &Notify::new());
                    None
                }
                (None, Some(look_up)) => {
                    let following = follow(name.clone(), look_up.clone(), self.changed.clone());
                    Some(tokio::spawn(following).abort_handle())
                }
                (None, None) => {
                    name.update(Err(Trouble::NotLookedUp), &Notify::new());
                    None
                }
            };
            Known {
                name,
                task,
                wanted: true,
            }
        });
        known.wanted = true;
        known.name.clone()
    }

    /// Forgets the names that nobody wanted; returns the others, in order.
    pub(crate) fn end(&mut self) -> Vec<Arc<Name>> {
        self.known.retain(|_, known| known.wanted);
        let mut names: Vec<_> = self
            .known
            .values()
            .map(|known| known.name.clone())
            .collect();
        names.sort_by(|one, other| (&one.service, &one.host).cmp(&(&other.service, &other.host)));
        names
    }
}

/// The host as an IP address, if it is one; in brackets, if it is one of version 6.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("known", &self.known.keys())
            .finish_non_exhaustive()
    }
}
