//! `outrigger.budget.v1.BudgetService`: checks who asks, and for what.

use std::sync::Arc;

use outrigger_proto::budget::v1 as wire;
use outrigger_proto::dataplane::v1 as dataplane;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::ledger::{Ask, Budget, Lease, Row};
use super::{Budgets, now_ms};
use crate::ca::SpiffeId;
use crate::compile::Compiled;
use crate::discovery::Registry;
use crate::metrics::Metrics;
use crate::push::service::{certificate, speaks_for};

/// The contract's limits.
const MAX_LEASES: usize = 256;
const KEY: usize = 16;

/// Leases parts of budgets.
#[derive(Clone, Debug)]
pub struct Leases {
    budgets: Arc<Budgets>,
    registry: Arc<Registry>,
    state: watch::Receiver<Arc<Compiled>>,
    metrics: Arc<Metrics>,
}

impl Leases {
    pub fn new(
        budgets: Arc<Budgets>,
        registry: Arc<Registry>,
        state: watch::Receiver<Arc<Compiled>>,
        metrics: Arc<Metrics>,
    ) -> Leases {
        Leases {
            budgets,
            registry,
            state,
            metrics,
        }
    }

    /// All leases of a request, and what must be on disk before they are told of.
    fn decide(
        &self,
        request: &wire::LeaseRequest,
        identity: &SpiffeId,
    ) -> Result<(Vec<wire::Leased>, Vec<Row>), Status> {
        let state = self.state.borrow().clone();
        let now = now_ms();
        let mut ledger = self.budgets.ledger();
        ledger.retain_instances(|instance| self.registry.identity(instance).is_some());
        if !ledger.is_new(&request.instance, request.sequence) {
            return Err(Status::aborted("a later request came first"));
        }
        let mut rows = Vec::new();
        let leases = request.leases.iter().map(|lease| {
            let result = find(&state, identity, lease).and_then(|(budget, tokens, sidecars)| {
                ledger.lease(
                    &Ask {
                        budget: &budget,
                        tokens,
                        sidecars,
                        instance: &request.instance,
                        holder: lease.holder,
                        key: &lease.key,
                        label: &lease.label,
                        window: lease.window,
                        held: lease.held.min(tokens),
                        needed: lease.needed,
                        ahead: lease.ahead,
                        used: lease.used,
                    },
                    now,
                )
            });
            match result {
                Ok((Lease { held, left }, row)) => {
                    rows.extend(row);
                    wire::Leased {
                        held,
                        left,
                        refused: String::new(),
                    }
                }
                Err(refused) => wire::Leased {
                    held: 0,
                    left: 0,
                    refused,
                },
            }
        });
        Ok((leases.collect(), rows))
    }
}

/// The budget that is meant, its tokens, and how many sidecars share it.
fn find(
    state: &Compiled,
    identity: &SpiffeId,
    lease: &wire::LeaseOf,
) -> Result<(Budget, u64, u64), String> {
    if lease.key.len() != KEY {
        return Err(format!("a key has {KEY} bytes"));
    }
    let service = state.service(&lease.service).ok_or("no such service")?;
    if !service.compiled.may_be_served_by(identity) {
        return Err("the identity may not serve the service".to_owned());
    }
    let is_meant =
        |limit: &&dataplane::RateLimit| limit.policy == lease.policy && limit.name == lease.limit;
    let mut limits = service
        .compiled
        .inbound
        .iter()
        .flat_map(|port| &port.rate_limits);
    let limit = limits.find(is_meant).ok_or("no such limit")?;
    let tokens = limit.tokens.as_ref().filter(|tokens| tokens.shared);
    let tokens = tokens.ok_or("it is not shared")?.tokens;
    let per = limit
        .per
        .and_then(|per| std::time::Duration::try_from(per).ok());
    let per_ms = per.and_then(|per| u64::try_from(per.as_millis()).ok());
    let budget = Budget {
        service: lease.service.as_str().into(),
        policy: lease.policy.as_str().into(),
        limit: lease.limit.as_str().into(),
        per_ms: per_ms.filter(|per| *per > 0).ok_or("it has no window")?,
    };
    Ok((budget, tokens, service.endpoint_count as u64))
}

#[tonic::async_trait]
impl wire::budget_service_server::BudgetService for Leases {
    async fn lease(
        &self,
        request: Request<wire::LeaseRequest>,
    ) -> Result<Response<wire::LeaseResponse>, Status> {
        let certificate = certificate(request.extensions())?;
        let mut request = request.into_inner();
        request.instance.make_ascii_lowercase();
        speaks_for(&self.registry, &request.instance, &certificate.identity)?;
        if request.leases.len() > MAX_LEASES {
            return Err(Status::invalid_argument(format!(
                "{} leases are asked for, at most {MAX_LEASES} are allowed",
                request.leases.len()
            )));
        }
        let (leases, rows) = self.decide(&request, &certificate.identity)?;
        self.metrics.leases.inc();
        if !rows.is_empty() {
            let budgets = self.budgets.clone();
            let written = tokio::task::spawn_blocking(move || budgets.write(&rows)).await;
            if let Err(error) = written
                .map_err(|error| error.to_string())
                .and_then(|result| result.map_err(|error| error.to_string()))
            {
                // Counted as leased all the same: who asks again gets it when the disk is well.
                tracing::error!(%error, "cannot write leases of budgets down");
                return Err(Status::unavailable("the lease cannot be written down"));
            }
        }
        Ok(Response::new(wire::LeaseResponse {
            leases,
            now_unix_ms: now_ms(),
        }))
    }
}
