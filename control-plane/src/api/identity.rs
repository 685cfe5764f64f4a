//! `outrigger.identity.v1.IdentityService`: certificates for sidecars.

use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::identity::v1 as wire;
use tonic::{Request, Response, Status};
use wire::issue_certificate_request::Attestation;

use super::tokens::{self, JoinError};
use crate::ca::token::JoinToken;
use crate::ca::{Ca, CaError, Leaf, SpiffeId};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tls::Peer;

/// Issues and renews certificates.
#[derive(Clone, Debug)]
pub struct Identity {
    ca: Arc<Ca>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl Identity {
    pub fn new(ca: Arc<Ca>, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Identity {
        Identity { ca, store, metrics }
    }

    /// A caller that proves itself with its certificate gets the same identity again.
    ///
    /// A token that it sends along is not used up: sidecars keep theirs in their settings.
    fn renew(
        &self,
        id: &SpiffeId,
        request: &wire::IssueCertificateRequest,
    ) -> Result<Leaf, Status> {
        if let Some(Attestation::JoinToken(token)) = &request.attestation {
            let token = JoinToken::decode(token);
            if token.is_ok_and(|token| token.id_for != id.as_str()) {
                return Err(Status::permission_denied(format!(
                    "the presented certificate is that of {id}, the join token is for another identity"
                )));
            }
        }
        let lifetime = Duration::from_secs(request.lifetime_seconds.into());
        self.ca
            .issue(&request.csr_der, id, lifetime)
            .map_err(|error| ca_status(&error))
    }

    async fn join(&self, request: wire::IssueCertificateRequest) -> Result<Leaf, Status> {
        let Some(Attestation::JoinToken(token)) = request.attestation else {
            return Err(Status::unauthenticated(
                "neither a client certificate nor a join token was given; make a token with `outriggerctl token create`",
            ));
        };
        let (ca, store) = (self.ca.clone(), self.store.clone());
        let lifetime = Duration::from_secs(request.lifetime_seconds.into());
        let joined = tokio::task::spawn_blocking(move || {
            tokens::join(&*store, &ca, &token, &request.csr_der, lifetime)
        });
        let joined = joined
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let label = joined.as_ref().map_or_else(JoinError::label, |_| "ok");
        self.metrics.joins.with_label_values(&[label]).inc();
        joined.map_err(|error| join_status(&error))
    }

    fn bundle(&self) -> wire::TrustBundle {
        wire::TrustBundle {
            trust_domain: self.ca.trust_domain().to_owned(),
            roots_der: self.ca.roots().iter().map(|root| root.to_vec()).collect(),
        }
    }
}

#[tonic::async_trait]
impl wire::identity_service_server::IdentityService for Identity {
    async fn issue_certificate(
        &self,
        request: Request<wire::IssueCertificateRequest>,
    ) -> Result<Response<wire::IssueCertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let address = peer.as_ref().map(|peer| peer.address);
        let certificate = peer.and_then(|peer| peer.certificate);
        let request = request.into_inner();
        let (reason, issued) = match certificate {
            Some(certificate) => ("renewal", self.renew(&certificate.identity, &request)),
            None => ("join", self.join(request).await),
        };
        let leaf = issued.inspect_err(|status| {
            tracing::warn!(
                ?address,
                reason,
                error = status.message(),
                "refused a certificate"
            );
        })?;
        self.metrics.certificates.with_label_values(&[reason]).inc();
        tracing::info!(identity = %leaf.id, ?address, reason, "issued a certificate");
        Ok(Response::new(wire::IssueCertificateResponse {
            spiffe_id: leaf.id.to_string(),
            certificate_chain_der: leaf.chain.iter().map(|it| it.to_vec()).collect(),
            not_before: Some(leaf.not_before.into()),
            not_after: Some(leaf.not_after.into()),
            trust_bundle: Some(self.bundle()),
        }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<wire::GetTrustBundleRequest>,
    ) -> Result<Response<wire::TrustBundle>, Status> {
        Ok(Response::new(self.bundle()))
    }
}

fn ca_status(error: &CaError) -> Status {
    match error {
        error if error.is_request() => Status::invalid_argument(error.to_string()),
        CaError::Expired => Status::failed_precondition(error.to_string()),
        error => Status::internal(error.to_string()),
    }
}

fn join_status(error: &JoinError) -> Status {
    match error {
        JoinError::Ca(error) => ca_status(error),
        JoinError::Store(_) | JoinError::Damaged(_) => Status::internal(error.to_string()),
        error => Status::unauthenticated(error.to_string()),
    }
}
