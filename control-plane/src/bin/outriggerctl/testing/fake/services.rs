//! The services, as simple as they can be while keeping the contract.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::Stream;
use outrigger_proto::api::v1::mesh_service_server::MeshService;
use outrigger_proto::api::v1::resource_service_server::ResourceService;
use outrigger_proto::api::v1::token_service_server::TokenService;
use outrigger_proto::api::v1::watch_event::Type;
use outrigger_proto::api::v1::*;
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

use super::State;

pub const TOKEN: &str = "admin-secret";

/// Lets in who has the token.
pub fn authorize(request: Request<()>) -> Result<Request<()>, Status> {
    let expected = format!("Bearer {TOKEN}");
    match request.metadata().get("authorization") {
        Some(value) if value.as_bytes() == expected.as_bytes() => Ok(request),
        _ => Err(Status::unauthenticated("the bearer token is wrong")),
    }
}

#[derive(Debug, Clone)]
pub struct Api(pub Arc<Mutex<State>>);

impl Api {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn matches(resource: &Resource, reference: &ResourceRef) -> bool {
    let meta = resource.metadata.clone().unwrap_or_default();
    resource.kind == reference.kind
        && meta.namespace == reference.namespace
        && meta.name == reference.name
}

fn reference(resource: &Resource) -> ResourceRef {
    let meta = resource.metadata.clone().unwrap_or_default();
    ResourceRef {
        kind: resource.kind.clone(),
        namespace: meta.namespace,
        name: meta.name,
    }
}

fn conflict() -> Status {
    Status::aborted("route/default/chat-canary is at resourceVersion 8, not 7")
}

#[tonic::async_trait]
impl ResourceService for Api {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        if state.conflict {
            return Err(conflict());
        }
        if !state.problems.is_empty() {
            let invalid = InvalidResources {
                problems: state.problems.clone(),
            };
            let mut metadata = MetadataMap::new();
            let value = MetadataValue::from_bytes(&invalid.encode_to_vec());
            metadata.insert_bin("outrigger-problems-bin", value);
            return Err(Status::with_metadata(
                Code::InvalidArgument,
                "invalid resources",
                metadata,
            ));
        }
        state.dry_run = request.dry_run;
        let warnings = state.warnings.clone();
        let mut results = Vec::new();
        for resource in request.resources {
            let stored = state
                .resources
                .iter()
                .position(|r| matches(r, &reference(&resource)));
            let outcome = match stored {
                None => ApplyOutcome::Created,
                Some(index) if state.resources[index].spec == resource.spec => {
                    ApplyOutcome::Unchanged
                }
                Some(_) => ApplyOutcome::Configured,
            };
            if !request.dry_run {
                match stored {
                    Some(index) => state.resources[index] = resource.clone(),
                    None => state.resources.push(resource.clone()),
                }
            }
            results.push(ApplyResult {
                resource: Some(resource),
                outcome: outcome.into(),
                warnings: warnings.clone(),
            });
        }
        Ok(Response::new(ApplyResponse { results }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Resource>, Status> {
        let reference = request.into_inner().r#ref.unwrap();
        let state = self.state();
        let found = state
            .resources
            .iter()
            .find(|resource| matches(resource, &reference));
        found
            .cloned()
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such resource"))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let request = request.into_inner();
        let wanted = |resource: &&Resource| {
            let meta = resource.metadata.clone().unwrap_or_default();
            (request.kind.is_empty() || resource.kind == request.kind)
                && (request.namespace.is_empty() || meta.namespace == request.namespace)
                && request
                    .labels
                    .iter()
                    .all(|(key, value)| meta.labels.get(key) == Some(value))
        };
        let resources = self
            .state()
            .resources
            .iter()
            .filter(wanted)
            .cloned()
            .collect();
        Ok(Response::new(ListResponse { resources }))
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let request = request.into_inner();
        let reference = request.r#ref.unwrap();
        let mut state = self.state();
        if state.conflict {
            return Err(conflict());
        }
        if reference.kind == "Workload" {
            return Err(Status::failed_precondition(
                "a Workload is not written by hand",
            ));
        }
        state.dry_run = request.dry_run;
        let Some(index) = state.resources.iter().position(|r| matches(r, &reference)) else {
            return Err(Status::not_found("no such resource"));
        };
        if !request.dry_run {
            state.resources.remove(index);
        }
        Ok(Response::new(DeleteResponse {}))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let mut state = self.state();
        let event = |kind: Type, resource| WatchEvent {
            r#type: kind.into(),
            resource,
        };
        let there = state
            .resources
            .iter()
            .filter(|resource| resource.kind == request.kind);
        let mut events: Vec<_> = there
            .map(|resource| Ok(event(Type::Added, Some(resource.clone()))))
            .collect();
        events.push(Ok(event(Type::Synced, None)));
        let later: Vec<_> = state.events.drain(..).collect();
        // The first watch is ended for being slow, the second for good.
        let end = if later.is_empty() {
            Status::unavailable("stopping")
        } else {
            Status::resource_exhausted("slow")
        };
        events.extend(later.into_iter().map(Ok));
        events.push(Err(end));
        Ok(Response::new(Box::pin(futures_util::stream::iter(events))))
    }
}

#[tonic::async_trait]
impl MeshService for Api {
    async fn list_sidecars(
        &self,
        _: Request<ListSidecarsRequest>,
    ) -> Result<Response<ListSidecarsResponse>, Status> {
        let mut state = self.state();
        state.asked += 1;
        let mut sidecars = state.sidecars.clone();
        if state.asked >= 3 {
            sidecars
                .iter_mut()
                .filter(|s| s.connected)
                .for_each(|s| s.set_sync(SidecarSync::Synced));
        }
        Ok(Response::new(ListSidecarsResponse {
            sidecars,
            config_version: state.status.config_version,
        }))
    }

    /// As a control plane that is older than this program.
    async fn explain(
        &self,
        _: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("explain"))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<ControlPlaneStatus>, Status> {
        Ok(Response::new(self.state().status.clone()))
    }
}

#[tonic::async_trait]
impl TokenService for Api {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let request = request.into_inner();
        let now = super::super::now().as_second();
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let info = TokenInfo {
            id: "0123456789abcdef".to_owned(),
            spiffe_id: format!(
                "spiffe://outrigger.local/ns/{}/sa/{}",
                request.namespace, request.service_account
            ),
            created_at: at(now),
            expires_at: at(now + request.ttl.map_or(3600, |ttl| ttl.seconds)),
            max_uses: request.max_uses.max(1),
            uses: 0,
        };
        self.state().tokens.push(info.clone());
        Ok(Response::new(CreateTokenResponse {
            token: "outrigger-join-v1.e30".to_owned(),
            info: Some(info),
        }))
    }

    async fn list_tokens(
        &self,
        _: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        Ok(Response::new(ListTokensResponse {
            tokens: self.state().tokens.clone(),
        }))
    }

    async fn delete_token(
        &self,
        request: Request<DeleteTokenRequest>,
    ) -> Result<Response<DeleteTokenResponse>, Status> {
        let id = request.into_inner().id;
        let mut state = self.state();
        let before = state.tokens.len();
        state.tokens.retain(|token| token.id != id);
        if state.tokens.len() == before {
            return Err(Status::not_found(format!("there is no token {id}")));
        }
        Ok(Response::new(DeleteTokenResponse {}))
    }
}
