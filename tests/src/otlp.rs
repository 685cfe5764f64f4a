//! An OTLP receiver that keeps what it is told: OpenTelemetry's own generated service on tonic's server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1 as wire;
use tonic::{Request, Response, Status};

use crate::loopback;

/// A span as it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// `service.name` of who told it.
    pub service: String,
    /// In hexadecimal, as the header `traceparent` has them; empty: none.
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// `Server`, `Client`, `Internal`.
    pub kind: String,
    pub name: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    /// Their values as text; items of lists joined by commas.
    pub attributes: BTreeMap<String, String>,
    /// Names and times.
    pub events: Vec<(String, u64)>,
    pub is_error: bool,
}

impl Span {
    /// An attribute; empty where there is none.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// A running receiver.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    spans: Spans,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Spans {
    fn all(&self) -> MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::new(loopback().into(), 24317)).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let incoming = tonic::transport::server::TcpIncoming::bind(address)
            .unwrap_or_else(|error| panic!("{address}: {error}"));
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await;
        });
        Self {
            address,
            spans,
            task,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What sidecars are to be told.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far, of one trace.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        let all = self.spans.all();
        all.iter().filter(|it| it.trace == trace).cloned().collect()
    }

    /// All spans so far.
    pub fn all(&self) -> Vec<Span> {
        self.spans.all().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut all = self.all();
        for told in request.into_inner().resource_spans {
            let resource = attributes(told.resource.unwrap_or_default().attributes);
            let service = resource.get("service.name").cloned().unwrap_or_default();
            let spans = told.scope_spans.into_iter().flat_map(|scope| scope.spans);
            all.extend(spans.map(|span| read(service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn read(service: String, span: wire::Span) -> Span {
    let status = span.status.clone().unwrap_or_default();
    Span {
        service,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: format!("{:?}", span.kind()),
        name: span.name,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        events: span
            .events
            .into_iter()
            .map(|event| (event.name, event.time_unix_nano))
            .collect(),
        is_error: status.code() == wire::status::StatusCode::Error,
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    all.into_iter()
        .map(|it| {
            let value = it.value.and_then(|value| value.value);
            (it.key, value.map(text).unwrap_or_default())
        })
        .collect()
}

fn text(value: Value) -> String {
    match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::ArrayValue(list) => {
            let items = list.values.into_iter().filter_map(|item| item.value);
            items.map(text).collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
