//! Keeps the identity valid: joins where there is none, renews at half of its life, and hands each new one to whoever uses
//! it. Connections made with an old one stay as they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::issue::{self, IssueError};
use super::store::{self, LoadError};
use super::token::InvalidToken;
use super::{Identity, JoinToken, SpiffeId};
use crate::config::JoinSource;
use crate::control::retry::{Complaints, Pauses};
use crate::shared::Shared;
use crate::tls::TlsState;

/// The share of a certificate's life after which it is renewed is drawn from this range: sidecars that started together
/// do not renew together, and half of the life is left for the control plane to come back.
const RENEW_AFTER: std::ops::Range<f64> = 0.4..0.6;
/// Longest sleep without a look at the clock: a machine that was suspended, or whose clock was set, notices within it.
const LOOK: Duration = Duration::from_secs(30);
/// Bounds of the pause between two tries to renew.
const RETRY_RENEWAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why the sidecar has no identity and will not get one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(
        "there is no identity: give --join-token or --join-token-file (make one with `outriggerctl token create`)"
    )]
    Nothing,
    #[error(
        "the certificate in {0} has ended, and there is no join token to get another: give --join-token or --join-token-file"
    )]
    Ended(PathBuf),
    #[error("cannot read the join token from {path}: {error}")]
    TokenFile {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the join token in {path} is not valid: {error}")]
    TokenFileContent { path: PathBuf, error: InvalidToken },
    #[error("the join token is not valid: {0}")]
    Token(#[from] InvalidToken),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot join the mesh as {id}: {error}")]
    Join { id: SpiffeId, error: IssueError },
}

/// The one identity of this sidecar.
#[derive(Debug)]
pub struct Keeper {
    control_plane: String,
    data_dir: Option<PathBuf>,
    token: Option<JoinToken>,
    id: SpiffeId,
    current: Option<Arc<Identity>>,
}

/// What parts of the sidecar see of the identity: the newest one.
pub type IdentityReceiver = watch::Receiver<Option<Arc<Identity>>>;

impl Keeper {
    /// Finds out who this sidecar is: from an earlier run's certificate that is still valid, else from the join token.
    pub fn open(
        control_plane: String,
        join: Option<&JoinSource>,
        data_dir: Option<PathBuf>,
    ) -> Result<Keeper, IdentityError> {
        let token = join.map(read_token);
        let stored = match data_dir.as_deref().map(store::load) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(identity))) => Some(identity),
            Some(Err(error)) if token.is_none() => return Err(error.into()),
            Some(Err(error)) => {
                warn!("ignoring the stored identity: {error}");
                None
            }
        };
        let ended = stored.as_ref().is_some_and(Identity::is_expired);
        let usable = stored.filter(|identity| match &token {
            Some(Ok(token)) if token.id != identity.id => {
                warn!(
                    "ignoring the stored identity: it is {}, the join token is for {}",
                    identity.id, token.id
                );
                false
            }
            _ => !identity.is_expired(),
        });
        let (id, token) = match (&usable, token) {
            // The token is not needed: what is wrong with it must not keep a good identity from starting.
            (Some(identity), Some(Err(error))) => {
                warn!("{error}");
                (identity.id.clone(), None)
            }
            (Some(identity), token) => (identity.id.clone(), token.transpose()?),
            (None, Some(token)) => {
                let token = token?;
                (token.id.clone(), Some(token))
            }
            (None, None) => {
                return Err(match data_dir {
                    Some(dir) if ended => IdentityError::Ended(dir.join(store::FILE)),
                    _ => IdentityError::Nothing,
                });
            }
        };
        Ok(Keeper {
            control_plane,
            data_dir,
            token,
            id,
            current: usable.map(Arc::new),
        })
    }

    /// Who this sidecar is, or will be.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Keeps the identity valid for ever. Returns only where there is none and there will be none.
    pub async fn run(
        mut self,
        shared: Arc<Shared>,
        sender: watch::Sender<Option<Arc<Identity>>>,
    ) -> IdentityError {
        if let Some(identity) = self.current.take() {
            match publish(&shared, &sender, identity.clone()) {
                Ok(()) => self.current = Some(identity),
                Err(error) => warn!("ignoring the stored identity: {error}"),
            }
        }
        loop {
            let Some(identity) = self.current.clone() else {
                match self.join(&shared, &sender).await {
                    Ok(identity) => self.current = Some(identity),
                    Err(error) => return error,
                }
                continue;
            };
            sleep_until(renewal_time(&identity)).await;
            self.current = Some(self.renew(&shared, &sender, identity).await);
        }
    }

    /// Joins, as often as it takes. Fails where trying again is of no use.
    async fn join(
        &self,
        shared: &Shared,
        sender: &watch::Sender<Option<Arc<Identity>>>,
    ) -> Result<Arc<Identity>, IdentityError> {
        let token = self.token.as_ref().ok_or(IdentityError::Nothing)?;
        let mut pauses = Pauses::default();
        let mut complaints = Complaints::default();
        loop {
            let error = match issue::join(&self.control_plane, token).await {
                Ok(identity) => match self.adopt(shared, sender, identity) {
                    Ok(identity) => return Ok(identity),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if error.is_final() {
                let id = self.id.clone();
                return Err(IdentityError::Join { id, error });
            }
            if complaints.due() {
                warn!("cannot join the mesh yet, trying on: {error}");
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Renews, as often as it takes; after the certificate's end with the join token too, if there is one.
    async fn renew(
        &self,
        shared: &Shared,
        sender: &watch::Sender<Option<Arc<Identity>>>,
        current: Arc<Identity>,
    ) -> Arc<Identity> {
        let mut complaints = Complaints::default();
        loop {
            let issued = match &self.token {
                Some(token) if current.is_expired() => {
                    issue::join(&self.control_plane, token).await
                }
                _ => issue::renew(&self.control_plane, &current).await,
            };
            let adopted = issued.and_then(|identity| self.adopt(shared, sender, identity));
            let error = match adopted {
                Ok(identity) => return identity,
                Err(error) => error,
            };
            shared.metrics.certificate_renewed(false);
            if complaints.due() {
                if current.is_expired() {
                    error!("the certificate has ended and cannot be renewed, trying on: {error}");
                } else {
                    warn!("cannot renew the certificate yet, trying on: {error}");
                }
            }
            let left = current
                .not_after
                .duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO);
            // Often enough that a short life has several tries.
            let pause = (left / 10).clamp(RETRY_RENEWAL.0, RETRY_RENEWAL.1);
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        }
    }

    fn adopt(
        &self,
        shared: &Shared,
        sender: &watch::Sender<Option<Arc<Identity>>>,
        identity: Identity,
    ) -> Result<Arc<Identity>, IssueError> {
        let identity = Arc::new(identity);
        publish(shared, sender, identity.clone())?;
        shared.metrics.certificate_renewed(true);
        info!(
            id = %identity.id,
            lifetime_seconds = lifetime(&identity).as_secs(),
            "got a certificate"
        );
        if let Some(dir) = self.data_dir.clone() {
            let identity = identity.clone();
            // By another thread, and not waited for: a slow disk must hold neither the stream nor the heartbeats.
            tokio::task::spawn_blocking(move || match store::save(&dir, &identity) {
                Ok(()) => debug!("stored the identity in {}", dir.display()),
                // It works without, until the next restart.
                Err(error) => warn!("cannot store the identity in {}: {error}", dir.display()),
            });
        }
        Ok(identity)
    }
}

fn read_token(source: &JoinSource) -> Result<JoinToken, IdentityError> {
    match source {
        JoinSource::Token(text) => Ok(JoinToken::parse(text)?),
        JoinSource::File(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| IdentityError::TokenFile {
                path: path.clone(),
                error,
            })?;
            JoinToken::parse(&text).map_err(|error| IdentityError::TokenFileContent {
                path: path.clone(),
                error,
            })
        }
    }
}

fn publish(
    shared: &Shared,
    sender: &watch::Sender<Option<Arc<Identity>>>,
    identity: Arc<Identity>,
) -> Result<(), rustls::Error> {
    let tls = TlsState::new(&identity)?;
    shared.tls.store(Some(Arc::new(tls)));
    sender.send_replace(Some(identity));
    Ok(())
}

fn lifetime(identity: &Identity) -> Duration {
    identity
        .not_after
        .duration_since(identity.issued_at)
        .unwrap_or(Duration::ZERO)
}

fn renewal_time(identity: &Identity) -> SystemTime {
    identity.issued_at + lifetime(identity).mul_f64(rand::random_range(RENEW_AFTER))
}

/// Sleeps by the wall clock: certificates end by it.
async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests;
