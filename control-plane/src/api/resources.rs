//! `outrigger.api.v1.ResourceService`: what `outriggerctl` and other tools read and write.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use outrigger_proto::api::v1 as api;
use outrigger_proto::api::v1::resource_service_server::{ResourceService, ResourceServiceServer};
use prost::Message;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::refs;
use super::{convert, problems, watch};
use crate::model::{self, IndexedProblem, Resource, ResourceKey};
use crate::store::{Applied, Outcome, Selector, Store, StoreError};

/// Bytes of a request: large directories are applied in one.
const MAX_REQUEST: usize = 32 * 1024 * 1024;
/// Resources of a request.
const MAX_RESOURCES: usize = 10_000;

/// Says how sidecars took a resource.
pub trait StatusSource: Send + Sync + std::fmt::Debug {
    /// The `status` of a resource, a mapping; `None` where there is nothing to say.
    fn status(&self, key: &ResourceKey) -> Option<Value>;
}

/// Has nothing to say about any resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStatus;

impl StatusSource for NoStatus {
    fn status(&self, _: &ResourceKey) -> Option<Value> {
        None
    }
}

/// The service. Who may call it is checked in front of it.
#[derive(Clone, Debug)]
pub struct ResourceApi {
    store: Arc<dyn Store>,
    statuses: Arc<dyn StatusSource>,
    shutdown: CancellationToken,
}

impl ResourceApi {
    /// The service on a store. Watches end when `shutdown` is cancelled; without that they would hold up the server's end.
    pub fn new(
        store: Arc<dyn Store>,
        statuses: Arc<dyn StatusSource>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            store,
            statuses,
            shutdown,
        }
    }

    /// For tonic, with the limits that the service needs.
    pub fn into_server(self) -> ResourceServiceServer<Self> {
        ResourceServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }

    fn message(&self, resource: &Resource) -> api::Resource {
        let status = self.statuses.status(&resource.key());
        convert::to_message(resource, status.as_ref())
    }

    /// Runs what waits for the disk where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Result<T, StoreError>, Status> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&*store))
            .await
            .map_err(|error| {
                tracing::error!(%error, "a store operation panicked");
                Status::internal("the store failed; see the control plane's log")
            })
    }

    fn to_result(&self, applied: Applied) -> api::ApplyResult {
        let outcome = match applied.outcome {
            Outcome::Created => api::ApplyOutcome::Created,
            Outcome::Configured => api::ApplyOutcome::Configured,
            Outcome::Unchanged => api::ApplyOutcome::Unchanged,
        };
        api::ApplyResult {
            resource: Some(self.message(&applied.resource)),
            outcome: outcome.into(),
            warnings: applied.warnings,
        }
    }
}

/// The resources of a request that are valid by themselves, each with its index, and the problems of the others.
fn decode(messages: &[api::Resource]) -> (Vec<(usize, Resource)>, Vec<IndexedProblem>) {
    let mut resources = Vec::new();
    let mut problems = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let size = message.encoded_len();
        if size > model::parse::MAX_DOCUMENT {
            let message = format!(
                "the resource has {size} bytes; at most {} are allowed",
                model::parse::MAX_DOCUMENT
            );
            problems.push(IndexedProblem::new(index, "", message));
            continue;
        }
        match model::decode(convert::to_document(message)) {
            Ok(resource) => resources.push((index, resource)),
            Err(found) => problems.extend(
                found
                    .into_iter()
                    .map(|problem| IndexedProblem { index, problem }),
            ),
        }
    }
    (resources, problems)
}

fn to_status(error: StoreError, refs: &[api::ResourceRef]) -> Status {
    match error {
        StoreError::NotFound(_) => Status::not_found(error.to_string()),
        StoreError::Conflict(_) => Status::aborted(error.to_string()),
        StoreError::Invalid(found) => problems::invalid(found, refs),
        StoreError::NotWritable(_) => Status::failed_precondition(error.to_string()),
        StoreError::Disk(_) | StoreError::Unreadable(..) => {
            tracing::error!(%error, "the store failed");
            Status::internal(error.to_string())
        }
    }
}

#[tonic::async_trait]
impl ResourceService for ResourceApi {
    async fn apply(
        &self,
        request: Request<api::ApplyRequest>,
    ) -> Result<Response<api::ApplyResponse>, Status> {
        let api::ApplyRequest {
            resources: messages,
            dry_run,
        } = request.into_inner();
        if messages.len() > MAX_RESOURCES {
            let found = messages.len();
            return Err(Status::invalid_argument(format!(
                "the request has {found} resources; at most {MAX_RESOURCES} are allowed"
            )));
        }
        let refs: Vec<_> = messages.iter().map(refs::of_message).collect();
        let (resources, mut problems) = decode(&messages);
        let (indices, resources): (Vec<_>, Vec<_>) = resources.into_iter().unzip();
        // With problems, what remains is only looked at: so that what is wrong between resources is told as well.
        let dry_run = dry_run || !problems.is_empty();
        let result = self
            .blocking(move |store| store.apply(resources, dry_run))
            .await?;
        if problems.is_empty() {
            let results = result.map_err(|error| to_status(error, &refs))?;
            let results = results
                .into_iter()
                .map(|applied| self.to_result(applied))
                .collect();
            return Ok(Response::new(api::ApplyResponse { results }));
        }
        if let Err(StoreError::Invalid(found)) = result {
            let original = |found: IndexedProblem| IndexedProblem {
                index: indices[found.index],
                ..found
            };
            problems.extend(found.into_iter().map(original));
        }
        Err(problems::invalid(problems, &refs))
    }

    async fn get(
        &self,
        request: Request<api::GetRequest>,
    ) -> Result<Response<api::Resource>, Status> {
        let key = refs::required(request.into_inner().r#ref)?;
        match self.store.get(&key) {
            Some(resource) => Ok(Response::new(self.message(&resource))),
            None => Err(to_status(StoreError::NotFound(key), &[])),
        }
    }

    async fn list(
        &self,
        request: Request<api::ListRequest>,
    ) -> Result<Response<api::ListResponse>, Status> {
        let api::ListRequest {
            kind,
            namespace,
            labels,
        } = request.into_inner();
        let selector = Selector {
            labels: labels.into_iter().collect(),
            ..refs::selector(&kind, namespace)?
        };
        let resources = self.store.list(&selector);
        let resources = resources
            .iter()
            .map(|resource| self.message(resource))
            .collect();
        Ok(Response::new(api::ListResponse { resources }))
    }

    async fn delete(
        &self,
        request: Request<api::DeleteRequest>,
    ) -> Result<Response<api::DeleteResponse>, Status> {
        let api::DeleteRequest {
            r#ref,
            resource_version,
            dry_run,
        } = request.into_inner();
        let key = refs::required(r#ref)?;
        let result = self
            .blocking(move |store| {
                let version = Some(resource_version.as_str()).filter(|version| !version.is_empty());
                store.delete(&key, version, dry_run)
            })
            .await?;
        result.map_err(|error| to_status(error, &[]))?;
        Ok(Response::new(api::DeleteResponse {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<api::WatchEvent, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let api::WatchRequest { kind, namespace } = request.into_inner();
        let selector = refs::selector(&kind, namespace)?;
        let (statuses, shutdown) = (Arc::clone(&self.statuses), self.shutdown.clone());
        let events = watch::events(self.store.subscribe(), selector, statuses, shutdown);
        Ok(Response::new(Box::pin(events)))
    }
}

#[cfg(test)]
mod tests;
