//! One line for each request, written by a thread of its own.

mod format;
mod writer;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri};

use super::{Direction, Outcome};
use crate::address::Address;
use crate::admission::Priority;
use crate::config::LogFormat;
use crate::identity::SpiffeId;
use crate::inference;
use crate::policy::AccessLogMode;

/// Entries that wait for the writer. At 100,000 requests a second these are 40 ms of a disk that does not answer.
const QUEUE: usize = 4096;

/// The model that a request named, the one that a fallback asked for in its place, and what came of it.
pub type ModelEntry = (
    Option<Box<str>>,
    Option<Arc<str>>,
    inference::account::Result,
);

/// Everything about one request that is worth a line. Cheap to make: clones of what the request had anyway; the writer
/// does the formatting.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When the request's head had arrived (or the TCP connection).
    pub time: SystemTime,
    pub direction: Direction,
    /// `None` for TCP.
    pub request: Option<RequestLine>,
    /// `http/1.1`, `h2`, `grpc`, `websocket`, `tcp`, …
    pub protocol: &'static str,
    pub outcome: Outcome,
    /// `<namespace>/<name>`; empty where it is unknown.
    pub service: Arc<str>,
    /// `<namespace>/<name>`; empty for the built-in rule.
    pub route: Arc<str>,
    /// Where it went at last.
    pub upstream: Option<Address>,
    /// Who is on the other side: the caller on inbound, the server on outbound.
    pub peer: Option<SpiffeId>,
    /// Address of whoever opened the connection.
    pub client: Option<SocketAddr>,
    /// How often it was sent; 0: never.
    pub attempts: u32,
    /// `retry-budget`, … : why a failure that the policy retries was not retried.
    pub not_retried: Option<&'static str>,
    /// `redirect`, `fault-delay`, … : what a filter of the route did with the request.
    pub filter: Option<&'static str>,
    /// `<namespace>/<name>` of the service that answered in another one's place, or `response`.
    pub fallback: Option<Arc<str>>,
    /// `set`, `replaced`, … : what was done about the salt of the model server's cache.
    pub cache_salt: Option<&'static str>,
    /// `None`: it met no limit of the concurrency.
    pub turn: Option<Turn>,
    /// Where it was for a model.
    pub model: Option<Box<ModelEntry>>,
}

/// How a request's turn at the application came, or did not.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Time in the queue.
    pub waited: Duration,
    pub priority: Priority,
}

/// What the client asked for.
#[derive(Clone, Debug)]
pub struct RequestLine {
    pub method: Method,
    /// As received; its query is not logged: it may hold what is secret.
    pub uri: Uri,
    /// The `Host` header, where the URI names no authority.
    pub host: Option<HeaderValue>,
    pub request_id: Option<HeaderValue>,
    pub traceparent: Option<HeaderValue>,
}

/// The data path's end of the access log.
#[derive(Debug)]
pub struct AccessLog {
    mode: AccessLogMode,
    queue: SyncSender<writer::Message>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Writes to standard output. `mode` holds where the mesh has no setting. Errors: the thread could not be started.
    pub fn new(mode: AccessLogMode, format: LogFormat) -> std::io::Result<AccessLog> {
        AccessLog::to(mode, format, Box::new(std::io::stdout()))
    }

    /// Writes to anything.
    pub fn to(
        mode: AccessLogMode,
        format: LogFormat,
        output: Box<dyn Write + Send>,
    ) -> std::io::Result<AccessLog> {
        let (queue, entries) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        writer::spawn(entries, format, output, dropped.clone())?;
        Ok(AccessLog {
            mode,
            queue,
            dropped,
        })
    }

    /// Whether a request that ended so is logged. `mesh` is the mesh's setting, which goes before the sidecar's.
    pub fn enabled(&self, mesh: Option<AccessLogMode>, outcome: &Outcome) -> bool {
        match mesh.unwrap_or(self.mode) {
            AccessLogMode::Off => false,
            AccessLogMode::All => true,
            AccessLogMode::Errors => {
                outcome.reason.is_some()
                    || outcome
                        .status
                        .is_some_and(|status| status.is_server_error())
            }
        }
    }

    /// Hands a line to the writer. Never waits: where the writer is behind, the entry is dropped and counted.
    pub fn record(&self, entry: Entry) {
        if self
            .queue
            .try_send(writer::Message::Entry(Box::new(entry)))
            .is_err()
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Entries that were lost: the queue was full, or the output refused them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until everything recorded so far is written, `patience` at most. For the end of the process; blocks.
    #[allow(
        clippy::disallowed_methods,
        reason = "the process ends; workers have ended before"
    )]
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, written) = sync_channel(1);
        let deadline = std::time::Instant::now() + patience;
        let mut message = writer::Message::Flush(done);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(std::sync::mpsc::TrySendError::Full(back))
                    if std::time::Instant::now() < deadline =>
                {
                    message = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return false,
            }
        }
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        written.recv_timeout(left).is_ok()
    }
}

#[cfg(test)]
mod tests;
