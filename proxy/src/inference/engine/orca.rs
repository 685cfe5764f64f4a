//! Load reports in the head of a response: ORCA's header, in its text form
//! (<https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto>, as vLLM and llm-d write it).
//!
//! ```text
//! endpoint-load-metrics: TEXT named_metrics.num_requests_waiting=3, named_metrics.kv_cache_usage_perc=0.42
//! ```

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::balance::{Endpoint, LoadReport};
use crate::policy::{InboundPort, Inference};
use crate::telemetry::metrics::{LoadReports, Taken};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// The same as a message in base64, which nobody of us writes.
const BINARY_HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// A longer report is none: ours have a hundred bytes, those of servers with many named metrics some more.
const MAX_LENGTH: usize = 4096;

const PREFIX: &str = "named_metrics.";
const WAITING: &str = "num_requests_waiting";
const RUNNING: &str = "num_requests_running";
const KV_USAGE: &str = "kv_cache_usage_perc";
/// Ours alone: prompt tokens that have arrived and are not read.
const PROMPT_TOKENS: &str = "num_prompt_tokens_waiting";

/// Reads a report: as text or JSON, with or without the word that says which, with or without blanks behind commas. `None`:
/// it says nothing that is known here.
pub(crate) fn parse(value: &[u8]) -> Option<LoadReport> {
    if value.len() > MAX_LENGTH {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim_ascii();
    let report = if let Some(json) = text.strip_prefix("JSON ") {
        from_json(json)?
    } else if text.starts_with('{') {
        from_json(text)?
    } else {
        from_text(text.strip_prefix("TEXT ").unwrap_or(text))
    };
    (report != LoadReport::default()).then_some(report)
}

fn from_text(text: &str) -> LoadReport {
    let mut named = Named::default();
    for item in text.split(',') {
        let Some((key, value)) = item.split_once('=') else {
            continue;
        };
        let place = match key.trim_ascii().strip_prefix(PREFIX) {
            Some(WAITING) => &mut named.num_requests_waiting,
            Some(RUNNING) => &mut named.num_requests_running,
            Some(KV_USAGE) => &mut named.kv_cache_usage_perc,
            Some(PROMPT_TOKENS) => &mut named.num_prompt_tokens_waiting,
            _ => continue,
        };
        *place = value.trim_ascii().parse().ok();
    }
    named.into()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    num_requests_waiting: Option<f64>,
    num_requests_running: Option<f64>,
    kv_cache_usage_perc: Option<f64>,
    num_prompt_tokens_waiting: Option<f64>,
}

#[derive(Deserialize)]
struct Json {
    #[serde(default)]
    named_metrics: Named,
}

fn from_json(text: &str) -> Option<LoadReport> {
    let json: Json = serde_json::from_str(text).ok()?;
    Some(json.named_metrics.into())
}

impl From<Named> for LoadReport {
    fn from(named: Named) -> LoadReport {
        let number = |value: Option<f64>| value.filter(|it| it.is_finite() && *it >= 0.0);
        // Casts of floats saturate.
        let count = |value| number(value).map(|it| it.round() as u32);
        LoadReport {
            waiting: count(named.num_requests_waiting),
            running: count(named.num_requests_running),
            // A part of more than all is none.
            kv_usage: number(named.kv_cache_usage_perc)
                .filter(|it| *it <= 1.0)
                .map(|it| it as f32),
            prompt_tokens: number(named.num_prompt_tokens_waiting).map(|it| it.round() as u64),
        }
    }
}

/// Writes a report. `None`: there is nothing to say. The KV usage is rounded to a thousandth.
pub(crate) fn render(report: &LoadReport) -> Option<HeaderValue> {
    let mut text = String::with_capacity(160);
    let mut item = |name: &str, value: &dyn std::fmt::Display| {
        let before = if text.is_empty() { "TEXT " } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{before}{PREFIX}{name}={value}");
    };
    if let Some(waiting) = report.waiting {
        item(WAITING, &waiting);
    }
    if let Some(running) = report.running {
        item(RUNNING, &running);
    }
    if let Some(usage) = report.kv_usage {
        item(KV_USAGE, &(f64::from(thousandths(usage)) / 1e3));
    }
    if let Some(tokens) = report.prompt_tokens {
        item(PROMPT_TOKENS, &tokens);
    }
    if text.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_str(&text).ok()?;
    // It changes all the time: HTTP/2's table of repeated headers is for what repeats (RFC 7541, section 7.1.3).
    value.set_sensitive(true);
    Some(value)
}

/// A part of 1 in thousandths.
pub(super) fn thousandths(part: f32) -> u16 {
    // Casts of floats saturate.
    (part.clamp(0.0, 1.0) * 1e3).round() as u16
}

/// Beside the model server: takes in what the application says of itself, and says what is known in place of it. `to_peer`:
/// the response goes to another sidecar.
pub(crate) fn stamp(port: &InboundPort, to_peer: bool, headers: &mut HeaderMap) {
    let Some(signals) = &port.signals else {
        return;
    };
    let in_flight = signals.in_flight_at(port);
    let told = headers.get(HEADER).map(HeaderValue::as_bytes);
    if let Some(told) = told.and_then(parse) {
        signals.told(in_flight, &told);
    }
    remove(headers);
    let exposed = || port.inference.as_ref().is_some_and(|it| it.expose_load);
    if to_peer || exposed() {
        let queued = port.gate.as_ref().map(|gate| gate.waiting());
        if let Some(value) = signals.header(in_flight, queued) {
            headers.insert(HEADER, value);
        }
    }
}

/// Beside the caller: takes a report out of a response, and believes it where another sidecar sent it.
pub(crate) fn take(
    inference: &Inference,
    endpoint: &Endpoint,
    counts: &LoadReports,
    headers: &mut HeaderMap,
) {
    if let Some(value) = headers.get(HEADER) {
        counts.count(match parse(value.as_bytes()) {
            // Who serves a port without a sidecar has not proved who it is.
            _ if !endpoint.mtls => Taken::Untrusted,
            Some(report) => {
                endpoint.load.report(&report);
                Taken::Accepted
            }
            None => Taken::Malformed,
        });
    }
    if !inference.expose_load {
        remove(headers);
    }
}

fn remove(headers: &mut HeaderMap) {
    headers.remove(HEADER);
    headers.remove(BINARY_HEADER);
}

/// For the fuzzer: what is read can be written, and means the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(report) = parse(bytes) else {
        return;
    };
    let Some(value) = render(&report) else {
        unreachable!("there is something to say");
    };
    let again = parse(value.as_bytes());
    let counts = |report: LoadReport| (report.waiting, report.running);
    assert_eq!(again.map(counts), Some(counts(report)));
    let usage = |report: LoadReport| report.kv_usage.map(thousandths);
    assert_eq!(again.map(usage), Some(usage(report)));
}

#[cfg(test)]
mod tests;
