//! The connection to the control plane of the context in use, and its errors in words that help.

use std::io::ErrorKind;
use std::path::PathBuf;

use outrigger_control_plane::client::{
    Client, ConnectError, ConnectOptions, Context, ContextError, VerifyError,
};
use tonic::{Code, Status};

use crate::app::Io;
use crate::cli::Global;
use crate::failure::{Exit, Failure};

/// How long a call may take once the connection stands. Applying thousands of resources takes seconds; a control plane
/// that takes longer than this is stuck.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// A connection.
pub struct Session {
    pub client: Client,
    /// Address of the control plane.
    pub server: String,
    /// Where the context came from.
    pub context_path: PathBuf,
}

/// Where the context is looked for: `--context`, then OUTRIGGER_CONTEXT (both by clap), then the home directory.
pub fn context_path(global: &Global, io: &Io<'_>) -> Result<PathBuf, Failure> {
    if let Some(path) = &global.context {
        return Ok(path.clone());
    }
    let home = io.home.as_ref().ok_or_else(|| {
        Failure::new(
            Exit::Unreachable,
            "no context: there is no home directory to look in",
        )
        .hint(CONTEXT_HINT)
    })?;
    Ok(home.join(".config/outrigger/context.yaml"))
}

const CONTEXT_HINT: &str = "The control plane writes one to admin.yaml in its data directory at its first start.\n\
    Name it with --context FILE or OUTRIGGER_CONTEXT, or copy it to ~/.config/outrigger/context.yaml.";

/// Loads the context in use.
pub fn load_context(global: &Global, io: &Io<'_>) -> Result<(PathBuf, Context), Failure> {
    let path = context_path(global, io)?;
    match Context::load(&path) {
        Ok(context) => Ok((path, context)),
        Err(error) => {
            let hint = match &error {
                ContextError::Missing { .. } => CONTEXT_HINT,
                ContextError::Unreadable { source, .. }
                    if source.kind() == ErrorKind::PermissionDenied =>
                {
                    "It holds a secret and belongs to the user of the control plane: run this as that user, or take a \
                     copy that you own."
                }
                ContextError::Unreadable { .. } | ContextError::Malformed { .. } => {
                    "Take a new copy of admin.yaml from the control plane's data directory."
                }
            };
            Err(Failure::new(Exit::Unreachable, error.to_string()).hint(hint))
        }
    }
}

impl Session {
    /// Connects to the control plane of the context in use.
    pub async fn open(global: &Global, io: &Io<'_>) -> Result<Self, Failure> {
        let (context_path, context) = load_context(global, io)?;
        let server = global
            .server
            .clone()
            .unwrap_or_else(|| context.server.clone());
        let options = ConnectOptions {
            timeout: global.timeout,
            server: Some(server.clone()),
        };
        match Client::connect(&context, &options).await {
            Ok(client) => Ok(Self {
                client,
                server,
                context_path,
            }),
            Err(error) => {
                let context = context_path.display().to_string();
                let address_from = match &global.server {
                    Some(_) => "--server or OUTRIGGER_SERVER".to_owned(),
                    None => format!("{context}; --server HOST:PORT overrides it"),
                };
                Err(explain_connect(
                    &error,
                    &Origin {
                        context,
                        address_from,
                    },
                ))
            }
        }
    }

    /// Explains a failed call. `what` is what was attempted, e.g. "list services".
    pub fn explain(&self, what: &str, status: &Status) -> Failure {
        let (message, server) = (status.message(), &self.server);
        let failed = |exit, why: String| Failure::new(exit, format!("cannot {what}: {why}"));
        match status.code() {
            Code::NotFound => failed(Exit::NotFound, message.to_owned()),
            Code::Aborted | Code::AlreadyExists => failed(Exit::Conflict, message.to_owned()).hint(
                "Get it again, make your change, apply it again. Without metadata.resourceVersion the last write wins.",
            ),
            Code::Unauthenticated => {
                let text = format!(
                    "the control plane at {server} does not accept the token of this context: {message}"
                );
                Failure::new(Exit::Unreachable, text).hint(format!(
                    "The token is in {}. Take a new copy of admin.yaml from the control plane's data directory.",
                    self.context_path.display()
                ))
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                let why = format!(
                    "the control plane at {server} went away or did not answer ({message})"
                );
                failed(Exit::Unreachable, why).hint("Try again; its log says whether it is running.")
            }
            Code::Unknown if std::error::Error::source(status).is_some() => {
                let why =
                    format!("the connection to the control plane at {server} broke ({message})");
                failed(Exit::Unreachable, why).hint("Try again; its log says whether it is running.")
            }
            Code::Unimplemented => {
                let why = format!("the control plane at {server} does not know this call");
                failed(Exit::Refused, why)
                    .hint(
                    "Is this the management port (15011), not the sidecars' (15010)? If so, it may be older than this \
                     program: compare `outriggerctl version`.",
                )
            }
            _ => failed(Exit::Refused, message.to_owned()),
        }
    }
}

/// A call with the limit for calls.
pub fn call<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// Where what was used to connect comes from.
struct Origin {
    context: String,
    address_from: String,
}

fn explain_connect(error: &ConnectError, origin: &Origin) -> Failure {
    let exit = match error {
        ConnectError::Address(_) => Exit::Usage,
        _ => Exit::Unreachable,
    };
    let message = match error {
        // Two fingerprints in one line cannot be compared by eye; they are below.
        ConnectError::Untrusted {
            server,
            reason: VerifyError::OtherCa { .. },
        } => format!(
            "the server at {server} is not the control plane of this context: \
             its certificate comes from another CA"
        ),
        other => other.to_string(),
    };
    Failure::new(exit, message).hint(connect_hint(error, origin))
}

fn connect_hint(error: &ConnectError, origin: &Origin) -> String {
    let Origin {
        context,
        address_from,
    } = origin;
    match error {
        ConnectError::Address(_) => format!("It comes from {address_from}."),
        ConnectError::Ca(_) | ConnectError::TokenNotAscii => {
            format!("The context is {context}: take a new copy of the control plane's admin.yaml.")
        }
        ConnectError::Tcp { source, .. } if source.kind() == ErrorKind::ConnectionRefused => {
            format!(
                "Nothing listens there. Is outrigger-control-plane running, with --management-listen \
                 at this address?\n\
                 The address comes from {address_from}."
            )
        }
        ConnectError::Tcp { .. } | ConnectError::Timeout { .. } => format!(
            "The address comes from {address_from}.\n\
             --timeout 30s waits longer."
        ),
        ConnectError::Untrusted {
            reason:
                VerifyError::OtherCa {
                    expected,
                    presented,
                },
            ..
        } => format!(
            "expected   sha256:{}   (from {context})\n\
             found      sha256:{presented}\n\
             If the control plane was set up anew, take a new copy of its admin.yaml;\n\
             if not, somebody else answers at this address.",
            expected.join(", sha256:")
        ),
        ConnectError::Untrusted { .. } => "The management port is 15011 unless the control plane \
             was told otherwise; other ports and sidecars are refused."
            .to_owned(),
        ConnectError::Tls { .. } | ConnectError::Http { .. } => {
            "Is this the management port (15011, --management-listen)? What answers there does \
             not speak TLS 1.3 with HTTP/2."
                .to_owned()
        }
    }
}
