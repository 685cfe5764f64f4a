//! Tells an OTLP receiver of spans, in batches. On the control thread, while a mesh has tracing on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::resource::v1::Resource;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tracing::{info, warn};

use super::{Ended, Fate, Fates, Teller, otlp};
use crate::control::retry::{Complaints, Pauses};
use crate::policy::Tracing;
use crate::tls::{OriginSettings, OriginTls};

/// Requests in one batch, at most: about a megabyte.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Rest between two looks at the queue while a batch is gathered: not each request wakes this thread.
const REST: Duration = Duration::from_millis(50);
/// For an answer of the receiver.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a batch is sent before it is given up. Meanwhile the queue fills, and what does not fit is dropped.
const TRIES: u32 = 4;

/// Runs until the queue is closed, and tells what is in it.
pub(super) async fn run(
    tracing: Arc<Tracing>,
    teller: Teller,
    mut queue: mpsc::Receiver<Box<Ended>>,
    fates: Arc<Fates>,
) {
    let mut exporter = match client(&tracing) {
        Ok(client) => Exporter {
            client,
            endpoint: tracing.endpoint.clone(),
            resource: otlp::resource(&teller),
            fates,
            pauses: Pauses::default(),
            complaints: Complaints::default(),
        },
        Err(error) => {
            warn!(endpoint = %tracing.endpoint, "traces cannot be exported: {error}");
            while let Some(ended) = queue.recv().await {
                fates.add(Fate::Unsent, ended.spans());
            }
            return;
        }
    };
    let mut batch = Vec::new();
    // Without anything to tell, nothing wakes up.
    while let Some(first) = queue.recv().await {
        batch.push(*first);
        let due = Instant::now() + DELAY;
        loop {
            while batch.len() < BATCH
                && let Ok(next) = queue.try_recv()
            {
                batch.push(*next);
            }
            if batch.len() >= BATCH || Instant::now() >= due || queue.is_closed() {
                break;
            }
            sleep(REST).await;
        }
        exporter.export(&mut batch).await;
    }
}

fn client(tracing: &Tracing) -> Result<TraceServiceClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(tracing.endpoint.to_string())
        .map_err(|error| error.to_string())?
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT);
    let channel = if endpoint.uri().scheme_str() == Some("https") {
        let settings = OriginSettings {
            roots: tracing.roots.clone(),
            ..OriginSettings::default()
        };
        let tls = OriginTls::new(settings).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(tls.h2);
        endpoint.connect_with_connector_lazy(Connect(connector))
    } else {
        endpoint.connect_lazy()
    };
    Ok(TraceServiceClient::new(channel))
}

/// Opens TLS connections.
#[derive(Clone)]
struct Connect(TlsConnector);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl tower_service::Service<Uri> for Connect {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Connecting {
        let connector = self.0.clone();
        Box::pin(async move {
            let host = to.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let stream = TcpStream::connect((host, to.port_u16().unwrap_or(443))).await?;
            let _ = stream.set_nodelay(true);
            Ok(TokioIo::new(connector.connect(name, stream).await?))
        })
    }
}

struct Exporter {
    client: TraceServiceClient<Channel>,
    endpoint: Box<str>,
    resource: Resource,
    fates: Arc<Fates>,
    pauses: Pauses,
    complaints: Complaints,
}

impl Exporter {
    /// Sends a batch, for as long as [`TRIES`] take.
    async fn export(&mut self, batch: &mut Vec<Ended>) {
        let total = batch.iter().map(Ended::spans).sum();
        let request = otlp::request(&self.resource, batch.drain(..));
        for number in 1..=TRIES {
            let trouble = match self.client.export(request.clone()).await {
                Ok(answer) => {
                    let partial = answer.into_inner().partial_success;
                    return self.told(
                        total,
                        partial.map(|it| (it.rejected_spans, it.error_message)),
                    );
                }
                Err(trouble) => trouble,
            };
            if self.complaints.due() {
                warn!(endpoint = %self.endpoint, "traces cannot be exported: {}", words(&trouble));
            }
            if number == TRIES || !may_pass(trouble.code()) {
                break;
            }
            sleep(self.pauses.next()).await;
        }
        self.fates.add(Fate::Unsent, total);
    }

    fn told(&mut self, total: u64, partial: Option<(i64, String)>) {
        self.pauses.reset();
        let rejected = partial.as_ref().map_or(0, |(rejected, _)| *rejected);
        let rejected = u64::try_from(rejected).unwrap_or(0).min(total);
        self.fates.add(Fate::Exported, total - rejected);
        self.fates.add(Fate::Rejected, rejected);
        match partial {
            Some((_, why)) if rejected > 0 => {
                if self.complaints.due() {
                    warn!(endpoint = %self.endpoint, rejected, "the receiver refuses spans: {why}");
                }
            }
            _ => {
                if self.complaints.clear() {
                    info!(endpoint = %self.endpoint, "traces are exported");
                }
            }
        }
    }
}

/// Whether the same batch may be taken later (<https://opentelemetry.io/docs/specs/otlp/#failures>).
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// What happened, down to its cause.
fn words(status: &Status) -> String {
    let mut text = format!("{} ({})", status.message(), status.code());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
