//! Who may use the management API: administrators, by client certificate or by bearer token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::ca::token::{same_hash, secret_hash};
use crate::ca::{Ca, files, hex};
use crate::client;
use crate::metrics::Metrics;
use crate::tls::Peer;

/// The hash of the bearer token of administrators. The token itself is in the context file alone.
#[derive(Clone)]
pub struct AdminToken {
    hash: [u8; 32],
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    #[error("cannot {what} {}: {error}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is damaged; delete it to get a new token and a new context file", .0.display())]
    Damaged(PathBuf),
}

impl AdminToken {
    /// Reads the hash in `hash_file`. Where there is none, makes a token and writes it to the context file `context`, with
    /// all else that a client needs; `server` is where it finds the management API.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn load_or_create(
        hash_file: &Path,
        context: &Path,
        server: &str,
        ca: &Ca,
    ) -> Result<AdminToken, AdminTokenError> {
        match std::fs::read_to_string(hash_file) {
            Ok(text) => {
                let hash = parse_hash(text.trim());
                return hash
                    .map(|hash| AdminToken { hash })
                    .ok_or_else(|| AdminTokenError::Damaged(hash_file.to_path_buf()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(file_error("read", hash_file, error)),
        }
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let hash = secret_hash(&token);
        let text = context_file(server, ca, token);
        if let Some(parent) = context.parent().filter(|it| !it.as_os_str().is_empty()) {
            files::create_dir(parent).map_err(|error| file_error("create", parent, error))?;
        }
        // The token first: a crash in between makes another one at the next start.
        files::write_atomic(context, text.as_bytes(), files::SECRET)
            .map_err(|error| file_error("write", context, error))?;
        files::write_atomic(hash_file, hex(&hash).as_bytes(), files::SECRET)
            .map_err(|error| file_error("write", hash_file, error))?;
        tracing::info!(path = %context.display(), "wrote the context file for outriggerctl");
        Ok(AdminToken { hash })
    }

    /// Whether this is the token. Takes the same time for every wrong one.
    pub fn accepts(&self, token: &str) -> bool {
        same_hash(&self.hash, &secret_hash(token))
    }
}

fn file_error(what: &'static str, path: &Path, error: std::io::Error) -> AdminTokenError {
    AdminTokenError::File {
        what,
        path: path.to_path_buf(),
        error,
    }
}

fn context_file(server: &str, ca: &Ca, token: String) -> String {
    let context = client::Context {
        server: server.to_owned(),
        ca_fingerprint: ca.fingerprint().to_owned(),
        ca_certificate: ca.roots_pem(),
        token,
        trust_domain: Some(ca.trust_domain().to_owned()),
    };
    // A struct of strings always serialises.
    serde_yaml::to_string(&context).unwrap_or_default()
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// Lets administrators through.
#[derive(Clone, Debug)]
pub struct AdminOnly {
    token: Arc<AdminToken>,
    metrics: Arc<Metrics>,
}

impl AdminOnly {
    pub fn new(token: Arc<AdminToken>, metrics: Arc<Metrics>) -> AdminOnly {
        AdminOnly { token, metrics }
    }

    fn deny(&self, reason: &str, message: &str) -> Status {
        self.metrics.denied.with_label_values(&[reason]).inc();
        Status::unauthenticated(message)
    }
}

impl Interceptor for AdminOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let certificate = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.certificate.as_ref());
        if certificate.is_some_and(|certificate| certificate.identity.is_admin()) {
            return Ok(request);
        }
        let Some(header) = request.metadata().get("authorization") else {
            return Err(match certificate {
                Some(certificate) => self.deny(
                    "not-admin",
                    &format!("{} is no administrator", certificate.identity),
                ),
                None => self.deny(
                    "missing",
                    "an administrator's token is needed (`authorization: Bearer <token>`, from the control plane's \
                     context file admin.yaml), or an administrator's client certificate",
                ),
            });
        };
        let token = header.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token {
            Some(token) if self.token.accepts(token) => Ok(request),
            Some(_) => Err(self.deny(
                "wrong-token",
                "the token is not this control plane's; is the context file of another or an earlier one?",
            )),
            None => Err(self.deny(
                "malformed",
                "the authorization header is not of the form `Bearer <token>`",
            )),
        }
    }
}
