//! Getting a certificate: a fresh key, a signing request, and the control plane's answer checked before it is used.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::identity::v1 as wire;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::Code;
use wire::identity_service_client::IdentityServiceClient;
use wire::issue_certificate_request::Attestation;

use super::{Identity, JoinToken, SpiffeId};
use crate::control::channel::{self, ConnectError};
use crate::tls;

/// The control plane signs about 10,000 requests per second; one that takes so long is overloaded or gone.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("cannot make a key or a signing request: {0}")]
    Key(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The control plane's word.
    #[error("the control plane refused: {0}")]
    Refused(String),
    #[error("the call failed: {message} ({code:?})")]
    Call { code: Code, message: String },
    #[error("the control plane's answer is unusable: {0}")]
    Answer(String),
}

impl IssueError {
    /// Whether trying again with the same token or certificate is of no use.
    pub fn is_final(&self) -> bool {
        match self {
            IssueError::Refused(_) => true,
            // Not the control plane that the token (or the trust bundle) speaks of.
            IssueError::Connect(ConnectError::Tls { refused, .. }) => *refused,
            _ => false,
        }
    }
}

/// Joins the mesh with a token.
pub async fn join(control_plane: &str, token: &JoinToken) -> Result<Identity, IssueError> {
    let tls = tls::joining_client(token.root_sha256, token.id.trust_domain())?;
    let attestation = Attestation::JoinToken(token.as_str().to_owned());
    issue(control_plane, tls, Some(attestation), &token.id).await
}

/// Renews with the certificate in use.
pub async fn renew(control_plane: &str, current: &Identity) -> Result<Identity, IssueError> {
    let tls = tls::control_plane_client(current)?;
    issue(control_plane, tls, None, &current.id).await
}

async fn issue(
    control_plane: &str,
    tls: Arc<rustls::ClientConfig>,
    attestation: Option<Attestation>,
    id: &SpiffeId,
) -> Result<Identity, IssueError> {
    // A new key each time: one that leaked is of no use for longer than a certificate lives.
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    // Only the public key counts, the control plane sets everything else.
    let csr = CertificateParams::default().serialize_request(&key)?;
    let connection = channel::connect(control_plane, tls).await?;
    let mut request = tonic::Request::new(wire::IssueCertificateRequest {
        csr_der: csr.der().to_vec(),
        attestation,
        lifetime_seconds: 0,
    });
    request.set_timeout(ISSUE_TIMEOUT);
    let call = IdentityServiceClient::new(connection.channel);
    let answer = tokio::time::timeout(ISSUE_TIMEOUT, { call }.issue_certificate(request))
        .await
        .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")))
        .map_err(of_status)?
        .into_inner();
    accept(answer, key, id)
}

fn of_status(status: tonic::Status) -> IssueError {
    let (code, message) = (status.code(), status.message().to_owned());
    match code {
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => {
            IssueError::Refused(message)
        }
        _ => IssueError::Call { code, message },
    }
}

/// Checks what was issued: for the right identity and key, and good against the bundle that came with it. What is wrong
/// here would be refused by every peer; it is better refused where the reason can be told.
fn accept(
    answer: wire::IssueCertificateResponse,
    key: KeyPair,
    id: &SpiffeId,
) -> Result<Identity, IssueError> {
    let unusable = |what: String| IssueError::Answer(what);
    let certificates = |list: Vec<Vec<u8>>| -> Vec<CertificateDer<'static>> {
        list.into_iter().map(CertificateDer::from).collect()
    };
    let chain = certificates(answer.certificate_chain_der);
    let bundle = answer
        .trust_bundle
        .ok_or_else(|| unusable("it has no trust bundle".into()))?;
    let leaf = chain
        .first()
        .ok_or_else(|| unusable("it has no certificate".into()))?;
    let leaf = tls::read_leaf(leaf).map_err(|error| unusable(error.to_string()))?;
    if leaf.id != *id {
        return Err(unusable(format!("it is for {}, wanted is {id}", leaf.id)));
    }
    let seconds = u64::try_from(leaf.not_after).unwrap_or(0);
    let not_after = SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or_else(|| unusable("its end is no time".into()))?;
    let identity = Identity {
        id: leaf.id,
        key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        chain,
        roots: certificates(bundle.roots_der),
        issued_at: SystemTime::now(),
        not_after,
    };
    tls::check(&identity).map_err(|error| unusable(error.to_string()))?;
    Ok(identity)
}
