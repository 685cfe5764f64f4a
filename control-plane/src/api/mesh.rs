//! `outrigger.api.v1.MeshService`: the sidecars and the control plane itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::api::v1 as api;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::explain;
use super::telemetry::Reports;
use crate::ca::Ca;
use crate::compile::Compiled;
use crate::model::Kind;
use crate::push::Sidecars;
use crate::store::{Selector, Store};

/// Answers what is running.
#[derive(Clone, Debug)]
pub struct Mesh {
    pub ca: Arc<Ca>,
    pub store: Arc<dyn Store>,
    pub sidecars: Arc<Sidecars>,
    pub state: watch::Receiver<Arc<Compiled>>,
    pub started_at: SystemTime,
    pub reports: Arc<Reports>,
}

/// Stored resources by kind.
pub(crate) fn count(store: &dyn Store) -> HashMap<Kind, usize> {
    Kind::ALL
        .into_iter()
        .map(|kind| (kind, store.list(&Selector::kind(kind)).len()))
        .collect()
}

#[tonic::async_trait]
impl api::mesh_service_server::MeshService for Mesh {
    async fn list_sidecars(
        &self,
        _: Request<api::ListSidecarsRequest>,
    ) -> Result<Response<api::ListSidecarsResponse>, Status> {
        Ok(Response::new(api::ListSidecarsResponse {
            sidecars: self.sidecars.list(),
            config_version: self.state.borrow().version,
        }))
    }

    async fn explain(
        &self,
        request: Request<api::ExplainRequest>,
    ) -> Result<Response<api::ExplainResponse>, Status> {
        let state = self.state.borrow().clone();
        let request = request.into_inner();
        let trust_domain = self.ca.trust_domain();
        let question =
            explain::Question::parse(&request, trust_domain).map_err(Status::invalid_argument)?;
        Ok(Response::new(explain::answer(
            question,
            &state,
            &*self.store,
            trust_domain,
        )))
    }

    async fn get_status(
        &self,
        _: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::ControlPlaneStatus>, Status> {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let resources = count(&*self.store)
            .into_iter()
            .map(|(kind, count)| (kind.as_str().to_owned(), number(count)));
        Ok(Response::new(api::ControlPlaneStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: self.ca.trust_domain().to_owned(),
            ca_fingerprint: self.ca.fingerprint().to_owned(),
            ca_expires_at: Some(self.ca.expires_at().into()),
            config_version: self.state.borrow().version,
            connected_sidecars: number(self.sidecars.connected()),
            started_at: Some(self.started_at.into()),
            resources: resources.collect(),
            endpoints: crate::api::endpoint_health::all(&self.reports.latest()),
        }))
    }
}
