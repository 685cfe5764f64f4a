//! `status` of resources: how sidecars took them.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_proto::dataplane::v1 as wire;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Sidecars;
use super::sidecars::Standing;
use crate::api::endpoint_health;
use crate::api::resources::StatusSource;
use crate::api::telemetry::Reports;
use crate::budget::Budgets;
use crate::budget::ledger::Usage;
use crate::compile::Compiled;
use crate::model::{Kind, ResourceKey};
use crate::store::Store;

/// Refusals that are named in a status; all are counted.
const MAX_REFUSALS: usize = 20;
/// Keys of a budget that are named in a status; all are counted.
const MAX_KEYS: usize = 10;

/// Looks statuses up. A route has that of the services that it is for: sidecars get it as part of them. A rate limit has that of
/// the sidecars that serve its services.
#[derive(Debug)]
pub struct Statuses {
    store: Arc<dyn Store>,
    sidecars: Arc<Sidecars>,
    state: watch::Receiver<Arc<Compiled>>,
    reports: Arc<Reports>,
    budgets: Arc<Budgets>,
}

impl Statuses {
    pub fn new(
        store: Arc<dyn Store>,
        sidecars: Arc<Sidecars>,
        state: watch::Receiver<Arc<Compiled>>,
        reports: Arc<Reports>,
        budgets: Arc<Budgets>,
    ) -> Statuses {
        Statuses {
            store,
            sidecars,
            state,
            reports,
            budgets,
        }
    }

    fn service(&self, state: &Compiled, name: &str) -> Option<Standing> {
        let resource = &state.service(name)?.compiled.resource;
        Some(self.sidecars.standing(&resource.name, resource.version))
    }
}

impl StatusSource for Statuses {
    fn status(&self, key: &ResourceKey) -> Option<Value> {
        let state = self.state.borrow().clone();
        match key.kind {
            Kind::Mesh => {
                let standing = self.sidecars.standing("mesh", state.mesh.version);
                Some(write(standing))
            }
            Kind::Service => {
                let name = key.qualified_name();
                let mut status = write(self.service(&state, &name)?);
                status["endpoints"] = state.service(&name)?.endpoint_count.into();
                if let Some(unavailable) =
                    endpoint_health::of_service(&self.reports.latest(), &name)
                {
                    status["unavailableEndpoints"] = unavailable;
                }
                Some(status)
            }
            Kind::Route => {
                let route = self.store.get(key)?;
                let mut all = Standing::default();
                for parent in crate::compile::parents(&route) {
                    if let Some(standing) = self.service(&state, &parent) {
                        all.accepted += standing.accepted;
                        all.refused.extend(standing.refused);
                    }
                }
                Some(write(all))
            }
            // Part of what each serving sidecar gets for itself.
            Kind::RateLimit => {
                let targets = crate::compile::targets(&*self.store.get(key)?);
                let is_current = |port: &wire::InboundPort| {
                    targets.contains(port.service.as_str()).then(|| {
                        let service = state.service(&port.service);
                        let now = service.and_then(|it| it.compiled.inbound_port(port.port));
                        now == Some(port)
                    })
                };
                let mut status = write(self.sidecars.serving(is_current));
                let usage = self.budgets.usage(&key.qualified_name());
                if !usage.is_empty() {
                    status["budgets"] = budgets(usage);
                }
                Some(status)
            }
            Kind::Workload => None,
        }
    }
}

/// The most used keys of each budget, and how many there are.
fn budgets(usage: Vec<Usage>) -> Value {
    let mut by_limit: BTreeMap<(Arc<str>, Arc<str>), Vec<Usage>> = BTreeMap::new();
    for each in usage {
        let limit = (each.service.clone(), each.limit.clone());
        by_limit.entry(limit).or_default().push(each);
    }
    let list = by_limit.into_iter().map(|((service, limit), keys)| {
        let ends_at = keys.first().map_or(0, |first| first.ends_at_ms);
        let named = keys.iter().take(MAX_KEYS).map(|each| {
            json!({
                "key": each.key, "tokens": each.tokens, "leased": each.granted, "used": each.used,
            })
        });
        json!({
            "service": service, "limit": limit, "windowEndsAtMs": ends_at,
            "keys": keys.len(), "mostLeased": named.collect::<Vec<_>>(),
        })
    });
    list.collect()
}

fn write(standing: Standing) -> Value {
    let mut status = json!({
        "acceptedBy": standing.accepted,
        "refusedBy": standing.refused.len(),
    });
    // By reason: a bad resource is refused by many for the same one.
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (instance, reason) in standing.refused.into_iter().take(MAX_REFUSALS) {
        reasons
            .entry(reason)
            .or_default()
            .push(instance.to_string());
    }
    if !reasons.is_empty() {
        let refusals = reasons
            .into_iter()
            .map(|(reason, sidecars)| json!({"reason": reason, "sidecars": sidecars}));
        status["refusals"] = refusals.collect();
    }
    status
}
