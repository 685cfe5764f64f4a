//! Spans as OTLP has them, with the names of OpenTelemetry's semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/>); what is ours begins with `outrigger.`.

use std::time::{Duration, SystemTime};

use http::{Method, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::span::EndedTry;
use super::{Ended, Teller, TryEnd};
use crate::error::Reason;
use crate::telemetry::Direction;
use crate::telemetry::access_log::{ModelEntry, RequestLine};

/// Longest text of an attribute, bytes: what clients send has no bound of its own.
const MAX_TEXT: usize = 1024;

/// Who tells.
pub(super) fn resource(teller: &Teller) -> Resource {
    let mut attributes = Attributes::default();
    attributes.text("service.name", &teller.name);
    attributes.text("service.namespace", &teller.namespace);
    attributes.text("service.instance.id", &teller.instance);
    if !teller.zone.is_empty() {
        attributes.text("cloud.availability_zone", &teller.zone);
    }
    Resource {
        attributes: attributes.0,
        ..Resource::default()
    }
}

/// What a receiver gets.
pub(super) fn request(
    resource: &Resource,
    batch: impl Iterator<Item = Ended>,
) -> ExportTraceServiceRequest {
    let mut all = Vec::new();
    for ended in batch {
        spans(&ended, &mut all);
    }
    let scope = InstrumentationScope {
        name: "outrigger".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: all,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// One span for a request that was sent once; for one that was sent more often, a span for each try, and one around them.
fn spans(ended: &Ended, all: &mut Vec<Span>) {
    let several = ended.tries.len() > 1;
    let mut span = whole(ended);
    if several {
        span.span_id = ended.around.to_vec();
        span.kind = SpanKind::Internal.into();
    } else if let [only] = &*ended.tries {
        let mut attributes = Attributes(std::mem::take(&mut span.attributes));
        network_peer(only, &mut attributes);
        span.attributes = attributes.0;
    }
    let around = several.then(|| span.span_id.clone());
    let name = span.name.clone();
    all.push(span);
    if let Some(around) = around {
        for (index, it) in ended.tries.iter().enumerate() {
            all.push(one_try(ended, index, it, &name, &around));
        }
    }
}

fn whole(ended: &Ended) -> Span {
    let entry = &ended.entry;
    let outcome = &entry.outcome;
    let is_server = entry.direction == Direction::Inbound;
    let mut attributes = Attributes::default();
    let mut name = match &entry.request {
        Some(line) => line_attributes(line, entry.protocol, is_server, &mut attributes),
        None => String::new(),
    };
    if !entry.service.is_empty() {
        name = format!("{name} {}", entry.service);
        attributes.text("outrigger.service", &entry.service);
    }
    if !entry.route.is_empty() {
        attributes.text("outrigger.route", &entry.route);
    }
    if is_server {
        if let Some(client) = entry.client {
            attributes.text("network.peer.address", &client.ip().to_string());
            attributes.number("network.peer.port", client.port().into());
        }
        if let Some(peer) = &entry.peer {
            attributes.text("client.address", peer.as_str());
        }
    }
    if let Some(peer) = &entry.peer {
        attributes.text("outrigger.peer.id", peer.as_str());
    }
    if let Some(status) = outcome.status {
        attributes.number("http.response.status_code", status.as_u16().into());
    }
    attributes.number("http.request.body.size", int(outcome.request_bytes));
    attributes.number("http.response.body.size", int(outcome.response_bytes));
    attributes.number("outrigger.attempts", entry.attempts.into());
    if let Some(reason) = outcome.reason {
        attributes.text("outrigger.reason", reason.as_str());
    }
    let words = [
        ("outrigger.not_retried", entry.not_retried),
        ("outrigger.filter", entry.filter),
        ("outrigger.fallback", entry.fallback.as_deref()),
        ("outrigger.cache_salt", entry.cache_salt),
    ];
    for (key, word) in words {
        if let Some(word) = word {
            attributes.text(key, word);
        }
    }
    if let Some(turn) = &entry.turn {
        attributes.seconds("outrigger.queue.wait", turn.waited);
        attributes.text("outrigger.priority", turn.priority.as_str());
    }
    let status = outcome.status.map(|status| status.as_u16());
    let error = error_type(status, outcome.reason, is_server);
    if let Some(error) = &error {
        attributes.text("error.type", error);
    }
    let mut events = Vec::new();
    if let Some(model) = &entry.model {
        name = model_attributes(ended, model, &mut attributes).unwrap_or(name);
        if let Some(first_token) = model.2.first_token {
            events.push(Event {
                time_unix_nano: nanos(entry.time, first_token),
                name: "gen_ai.first_token".to_owned(),
                ..Event::default()
            });
        }
    }
    Span {
        trace_id: ended.trace.to_vec(),
        span_id: ended.span.to_vec(),
        parent_span_id: ended.parent.map(Vec::from).unwrap_or_default(),
        // The bits of W3C's flags; that the parent is of another process is known, and so.
        flags: u32::from(ended.flags) | IS_REMOTE_KNOWN | IS_REMOTE,
        name,
        kind: kind(is_server).into(),
        start_time_unix_nano: nanos(entry.time, Duration::ZERO),
        end_time_unix_nano: nanos(entry.time, outcome.duration),
        attributes: attributes.0,
        events,
        status: error.map(failed),
        ..Span::default()
    }
}

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK` of OTLP.
const IS_REMOTE_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

fn kind(is_server: bool) -> SpanKind {
    if is_server {
        SpanKind::Server
    } else {
        SpanKind::Client
    }
}

fn one_try(ended: &Ended, index: usize, it: &EndedTry, name: &str, around: &[u8]) -> Span {
    let mut attributes = Attributes::default();
    if let Some(line) = &ended.entry.request {
        line_attributes(line, ended.entry.protocol, false, &mut attributes);
    }
    network_peer(it, &mut attributes);
    if let Some(peer) = &it.peer {
        attributes.text("outrigger.peer.id", peer.as_str());
    }
    if index > 0 {
        attributes.number("http.request.resend_count", int(index as u64));
    }
    let (status, reason) = match it.end {
        Some(TryEnd::Answered(status)) => (Some(status.as_u16()), None),
        Some(TryEnd::Failed(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    if let Some(status) = status {
        attributes.number("http.response.status_code", status.into());
    }
    if let Some(reason) = reason {
        attributes.text("outrigger.reason", reason.as_str());
    }
    if it.end.is_none() {
        attributes.flag("outrigger.given_up", true);
    }
    let error = error_type(status, reason, false);
    if let Some(error) = &error {
        attributes.text("error.type", error);
    }
    Span {
        trace_id: ended.trace.to_vec(),
        span_id: it.span.to_vec(),
        parent_span_id: around.to_vec(),
        flags: u32::from(ended.flags) | IS_REMOTE_KNOWN,
        name: name.to_owned(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(ended.entry.time, it.began),
        end_time_unix_nano: nanos(ended.entry.time, it.ended.max(it.began)),
        attributes: attributes.0,
        status: error.map(failed),
        ..Span::default()
    }
}

fn network_peer(it: &EndedTry, attributes: &mut Attributes) {
    attributes.text("network.peer.address", &it.address.ip().to_string());
    attributes.number("network.peer.port", it.address.port().into());
}

/// What the request's head says. Returns the first word of the span's name.
fn line_attributes(
    line: &RequestLine,
    protocol: &str,
    is_server: bool,
    attributes: &mut Attributes,
) -> String {
    let known = is_known(&line.method);
    if known {
        attributes.text("http.request.method", line.method.as_str());
    } else {
        attributes.text("http.request.method", "_OTHER");
        attributes.text("http.request.method_original", line.method.as_str());
    }
    let authority = authority(line);
    let path = line.uri.path();
    if is_server {
        attributes.text("url.scheme", "http");
        attributes.text("url.path", path);
    } else {
        // Without its query, which may hold what is secret.
        attributes.text("url.full", &format!("http://{authority}{path}"));
    }
    if let Ok(authority) = authority.parse::<http::uri::Authority>() {
        attributes.text("server.address", authority.host());
        let port = authority.port_u16().unwrap_or(80);
        attributes.number("server.port", port.into());
    }
    match protocol {
        "grpc" => attributes.text("rpc.system", "grpc"),
        "h2" => attributes.text("network.protocol.version", "2"),
        "http/1.1" => attributes.text("network.protocol.version", "1.1"),
        _ => {}
    }
    if let Some(id) = &line.request_id {
        let id = String::from_utf8_lossy(id.as_bytes());
        attributes.text("outrigger.request_id", &id);
    }
    if known {
        line.method.as_str().to_owned()
    } else {
        "HTTP".to_owned()
    }
}

fn authority(line: &RequestLine) -> String {
    match (Uri::authority(&line.uri), &line.host) {
        (Some(authority), _) => authority.as_str().to_owned(),
        (None, Some(host)) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        (None, None) => String::new(),
    }
}

/// Those that are no word of a client's own.
fn is_known(method: &Method) -> bool {
    [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::CONNECT,
        Method::TRACE,
    ]
    .contains(method)
}

/// Returns the span's name, where the model has one.
fn model_attributes(
    ended: &Ended,
    (name, served, result): &ModelEntry,
    attributes: &mut Attributes,
) -> Option<String> {
    let (api, inference) = ended.model.as_ref()?;
    attributes.text("gen_ai.operation.name", api.operation());
    // It is that of the service asked for, and a fallback may have led to another one.
    if !inference.provider.is_empty() && ended.entry.fallback.is_none() {
        attributes.text("gen_ai.provider.name", &inference.provider);
    }
    if let Some(name) = name {
        attributes.text("gen_ai.request.model", name);
    }
    if let Some(served) = served {
        attributes.text("gen_ai.response.model", served);
    }
    attributes.text("outrigger.model.outcome", result.outcome.as_str());
    let tokens = [
        ("gen_ai.usage.input_tokens", result.input),
        ("gen_ai.usage.output_tokens", result.output),
    ];
    for (key, count) in tokens {
        if let Some(count) = count {
            attributes.number(key, count.into());
        }
    }
    if let Some(finish) = result.finish {
        attributes.list("gen_ai.response.finish_reasons", finish.as_str());
    }
    if let Some(first_token) = result.first_token {
        attributes.seconds("gen_ai.response.time_to_first_chunk", first_token);
    }
    // Names that clients make up do not belong into the names of spans.
    let name = name
        .as_deref()
        .filter(|name| inference.find(name).is_some());
    match name {
        Some(name) => Some(format!("{} {name}", api.operation())),
        None => Some(format!("{} {}", api.operation(), ended.entry.service)),
    }
}

/// `error.type`. `None`: it is no error. That the client went away is none of the callee's.
fn error_type(status: Option<u16>, reason: Option<Reason>, is_server: bool) -> Option<String> {
    let from = if is_server { 500 } else { 400 };
    match (reason, status) {
        (Some(Reason::ClientGone), _) => None,
        (Some(reason), _) if status.is_none_or(|it| it >= from || it < 400) => {
            Some(reason.as_str().to_owned())
        }
        (_, Some(status)) if status >= from => Some(status.to_string()),
        _ => None,
    }
}

fn failed(why: String) -> Status {
    Status {
        message: why,
        code: StatusCode::Error.into(),
    }
}

fn nanos(start: SystemTime, after: Duration) -> u64 {
    let since_1970 = start.duration_since(SystemTime::UNIX_EPOCH);
    let at = since_1970.unwrap_or_default().saturating_add(after);
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Attributes in the making.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }

    fn text(&mut self, key: &str, text: &str) {
        self.add(key, Value::StringValue(cut(text)));
    }

    fn number(&mut self, key: &str, number: i64) {
        self.add(key, Value::IntValue(number));
    }

    fn seconds(&mut self, key: &str, time: Duration) {
        self.add(key, Value::DoubleValue(time.as_secs_f64()));
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.add(key, Value::BoolValue(flag));
    }

    fn list(&mut self, key: &str, only: &str) {
        let value = Some(Value::StringValue(cut(only)));
        let values = vec![AnyValue { value }];
        self.add(key, Value::ArrayValue(ArrayValue { values }));
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}
