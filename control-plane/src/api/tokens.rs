//! Join tokens: made and revoked by administrators, used up by sidecars that join.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_proto::api::v1 as api;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::ca::token::{JoinToken, same_hash};
use crate::ca::{Ca, Leaf, SpiffeId, hex, spiffe};
use crate::model::DEFAULT_NAMESPACE;
use crate::store::{Store, StoreError};

const DEFAULT_TTL: Duration = Duration::from_secs(3600);
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
const MAX_USES: u32 = 100_000;
/// How long a token is kept, for people to see, after it could be used last.
const KEEP_EXPIRED: Duration = Duration::from_secs(24 * 3600);

/// What is stored of a token. Times are milliseconds since the epoch.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    secret_sha256: String,
    spiffe_id: String,
    created_at: u64,
    expires_at: u64,
    max_uses: u32,
    uses: u32,
}

impl Stored {
    fn info(&self, id: &str) -> api::TokenInfo {
        api::TokenInfo {
            id: id.to_owned(),
            spiffe_id: self.spiffe_id.clone(),
            created_at: Some((UNIX_EPOCH + Duration::from_millis(self.created_at)).into()),
            expires_at: Some((UNIX_EPOCH + Duration::from_millis(self.expires_at)).into()),
            max_uses: self.max_uses,
            uses: self.uses,
        }
    }

    fn usable(&self, now: u64) -> Result<(), JoinError> {
        if self.expires_at <= now {
            Err(JoinError::Expired)
        } else if self.uses >= self.max_uses {
            Err(JoinError::UsedUp)
        } else {
            Ok(())
        }
    }
}

/// Why a sidecar cannot join with a token.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{0}")]
    Malformed(#[from] crate::ca::token::InvalidToken),
    /// Unknown ids and wrong secrets are told apart by nothing.
    #[error("the join token is not one of this control plane's, or was revoked")]
    Unknown,
    #[error("the join token has expired; make another with `outriggerctl token create`")]
    Expired,
    #[error("the join token is used up; make another with `outriggerctl token create`")]
    UsedUp,
    #[error("the join token was made for another mesh (CA {found}, this one is {own})")]
    OtherMesh { found: String, own: String },
    #[error(transparent)]
    Ca(#[from] crate::ca::CaError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the stored token is damaged: {0}")]
    Damaged(String),
}

impl JoinError {
    /// For the metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            JoinError::Malformed(_) => "malformed",
            JoinError::Unknown => "unknown",
            JoinError::Expired => "expired",
            JoinError::UsedUp => "used-up",
            JoinError::OtherMesh { .. } => "other-mesh",
            JoinError::Ca(error) if error.is_request() => "bad-request",
            JoinError::Ca(_) | JoinError::Store(_) | JoinError::Damaged(_) => "error",
        }
    }
}

/// Issues a certificate to the bearer of a join token. Blocking.
///
/// The use is counted last, in the transaction that checks the limit: a certificate that cannot be made costs none, and
/// of two that race for the last one exactly one gets it.
pub fn join(
    store: &dyn Store,
    ca: &Ca,
    token: &str,
    csr_der: &[u8],
    lifetime: Duration,
) -> Result<Leaf, JoinError> {
    let token = JoinToken::decode(token)?;
    if token.ca != ca.fingerprint() {
        return Err(JoinError::OtherMesh {
            found: token.ca.chars().take(64).collect(),
            own: ca.fingerprint().to_owned(),
        });
    }
    let stored = store.get_token(&token.id)?.ok_or(JoinError::Unknown)?;
    let stored = read(stored)?;
    let hash = hex(&token.secret_hash());
    if !same_hash(hash.as_bytes(), stored.secret_sha256.as_bytes()) {
        return Err(JoinError::Unknown);
    }
    stored.usable(now_millis())?;
    let id: SpiffeId = stored
        .spiffe_id
        .parse()
        .map_err(|error: spiffe::InvalidSpiffeId| JoinError::Damaged(error.to_string()))?;
    let leaf = ca.issue(csr_der, &id, lifetime)?;

    let mut result = Err(JoinError::Unknown);
    store.update_token(&token.id, &mut |value: &mut Value| {
        result = count_use(value);
        result.is_ok()
    })?;
    result.map(|()| leaf)
}

fn count_use(value: &mut Value) -> Result<(), JoinError> {
    let mut stored = read(value.clone())?;
    stored.usable(now_millis())?;
    stored.uses += 1;
    *value = write(&stored);
    Ok(())
}

fn read(value: Value) -> Result<Stored, JoinError> {
    serde_json::from_value(value).map_err(|error| JoinError::Damaged(error.to_string()))
}

fn write(stored: &Stored) -> Value {
    // A struct of strings and numbers always serialises.
    serde_json::to_value(stored).unwrap_or_default()
}

fn now_millis() -> u64 {
    millis(SystemTime::now())
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `outrigger.api.v1.TokenService`.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Arc<dyn Store>,
    ca: Arc<Ca>,
}

impl Tokens {
    pub fn new(store: Arc<dyn Store>, ca: Arc<Ca>) -> Tokens {
        Tokens { store, ca }
    }

    /// Runs something that writes to disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || work(&*store))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[tonic::async_trait]
impl api::token_service_server::TokenService for Tokens {
    async fn create_token(
        &self,
        request: Request<api::CreateTokenRequest>,
    ) -> Result<Response<api::CreateTokenResponse>, Status> {
        let request = request.into_inner();
        let id = identity(self.ca.trust_domain(), &request)?;
        let ttl = ttl(request.ttl)?;
        if request.max_uses > MAX_USES {
            return Err(Status::invalid_argument(format!(
                "max_uses is {}, at most {MAX_USES} are allowed",
                request.max_uses
            )));
        }
        let token = JoinToken::generate(self.ca.fingerprint(), self.ca.trust_domain(), id.as_str());
        let now = SystemTime::now();
        let stored = Stored {
            secret_sha256: hex(&token.secret_hash()),
            spiffe_id: id.to_string(),
            created_at: millis(now),
            expires_at: millis(now + ttl),
            max_uses: request.max_uses.max(1),
            uses: 0,
        };
        let (name, value) = (token.id.clone(), write(&stored));
        self.blocking(move |store| {
            prune(store)?;
            store.put_token(&name, &value)
        })
        .await?;
        tracing::info!(token = token.id, identity = %id, uses = stored.max_uses, "made a join token");
        Ok(Response::new(api::CreateTokenResponse {
            token: token.encode(),
            info: Some(stored.info(&token.id)),
        }))
    }

    async fn list_tokens(
        &self,
        _: Request<api::ListTokensRequest>,
    ) -> Result<Response<api::ListTokensResponse>, Status> {
        let tokens = self.blocking(|store| store.list_tokens()).await?;
        let info = |(id, value): (String, Value)| Some(read(value).ok()?.info(&id));
        Ok(Response::new(api::ListTokensResponse {
            tokens: tokens.into_iter().filter_map(info).collect(),
        }))
    }

    async fn delete_token(
        &self,
        request: Request<api::DeleteTokenRequest>,
    ) -> Result<Response<api::DeleteTokenResponse>, Status> {
        let id = request.into_inner().id;
        let name = id.clone();
        if !self
            .blocking(move |store| store.delete_token(&name))
            .await?
        {
            return Err(Status::not_found(format!("there is no join token {id:?}")));
        }
        tracing::info!(token = id, "revoked a join token");
        Ok(Response::new(api::DeleteTokenResponse {}))
    }
}

fn identity(trust_domain: &str, request: &api::CreateTokenRequest) -> Result<SpiffeId, Status> {
    let namespace = match request.namespace.as_str() {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let account = &request.service_account;
    if account.is_empty() {
        return Err(Status::invalid_argument(
            "service_account is not set; it names the identity that a sidecar gets",
        ));
    }
    // Whoever has it is the control plane to every sidecar.
    if namespace == spiffe::SYSTEM_NAMESPACE && account == spiffe::CONTROL_PLANE_ACCOUNT {
        return Err(Status::invalid_argument(
            "this is the control plane's own identity; nobody can join with it",
        ));
    }
    SpiffeId::new(trust_domain, namespace, account)
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

fn ttl(given: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let Some(given) = given else {
        return Ok(DEFAULT_TTL);
    };
    match Duration::try_from(given) {
        Ok(ttl) if !ttl.is_zero() && ttl <= MAX_TTL => Ok(ttl),
        _ => Err(Status::invalid_argument(format!(
            "ttl is {} s; more than 0 and at most 30 days are allowed",
            given.seconds
        ))),
    }
}

/// Removes what expired long ago.
fn prune(store: &dyn Store) -> Result<(), StoreError> {
    let limit = millis(SystemTime::now() - KEEP_EXPIRED);
    for (id, value) in store.list_tokens()? {
        if read(value).is_ok_and(|stored| stored.expires_at < limit) {
            store.delete_token(&id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
