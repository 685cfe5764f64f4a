//! How an entry looks as a line.
//!
//! Both formats have the same fields in the same order, and leave out what does not apply. Whatever a client sent is
//! escaped: no value can end its line, look like another field, or reach a terminal as a control sequence.

use std::fmt::Write as _;

use http::HeaderValue;

use super::{Entry, ModelEntry};
use crate::config::LogFormat;

/// Appends the line, with its end.
pub(super) fn line(out: &mut Vec<u8>, entry: &Entry, format: LogFormat) {
    let mut line = Line {
        text: String::with_capacity(512),
        format,
    };
    line.open();
    fields(&mut line, entry);
    line.close();
    out.extend_from_slice(line.text.as_bytes());
}

fn fields(line: &mut Line, entry: &Entry) {
    let outcome = &entry.outcome;
    let time = jiff::Timestamp::try_from(entry.time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    line.raw_text("time", format_args!("{time:.3}"));
    line.text("direction", entry.direction.as_str());
    if let Some(request) = &entry.request {
        line.header("request_id", request.request_id.as_ref());
        line.text("method", request.method.as_str());
        match request.uri.authority() {
            Some(authority) => line.text("authority", authority.as_str()),
            None => line.header("authority", request.host.as_ref()),
        }
        line.text("path", request.uri.path());
    }
    line.text("protocol", entry.protocol);
    if let Some(status) = outcome.status {
        line.number("status", status.as_u16());
    }
    if let Some(reason) = outcome.reason {
        line.text("reason", reason.as_str());
    }
    line.text_unless_empty("service", &entry.service);
    line.text_unless_empty("route", &entry.route);
    if let Some(upstream) = &entry.upstream {
        line.raw_text("upstream", format_args!("{upstream}"));
    }
    if let Some(peer) = &entry.peer {
        line.text("peer", peer.as_str());
    }
    if let Some(client) = entry.client {
        line.raw_text("client", format_args!("{client}"));
    }
    line.number("duration_ms", Millis(outcome.duration));
    if let Some(first_byte) = outcome.first_byte {
        line.number("first_byte_ms", Millis(first_byte));
    }
    line.number("bytes_in", outcome.request_bytes);
    line.number("bytes_out", outcome.response_bytes);
    line.number("attempts", entry.attempts);
    if let Some(why) = entry.not_retried {
        line.text("not_retried", why);
    }
    if let Some(action) = entry.filter {
        line.text("filter", action);
    }
    if let Some(fallback) = &entry.fallback {
        line.text("fallback", fallback);
    }
    if let Some(salt) = entry.cache_salt {
        line.text("cache_salt", salt);
    }
    if let Some(turn) = &entry.turn {
        line.number("queue_ms", Millis(turn.waited));
        line.text("priority", turn.priority.as_str());
    }
    if let Some(model) = &entry.model {
        model_fields(line, model);
    }
    let traceparent = entry
        .request
        .as_ref()
        .and_then(|request| request.traceparent.as_ref());
    if let Some(trace_id) = traceparent.and_then(trace_id) {
        line.text("trace_id", trace_id);
    }
}

fn model_fields(line: &mut Line, (name, served, result): &ModelEntry) {
    if let Some(name) = name {
        line.text("model", name);
    }
    if let Some(served) = served {
        line.text("fallback_model", served);
    }
    line.text("outcome", result.outcome.as_str());
    if let Some(first_token) = result.first_token {
        line.number("first_token_ms", Millis(first_token));
    }
    if let Some(tokens) = result.input {
        line.number("input_tokens", tokens);
    }
    if let Some(tokens) = result.output {
        line.number("output_tokens", tokens);
    }
    if let Some(finish) = result.finish {
        line.text("finish", finish.as_str());
    }
    if result.continued > 0 {
        line.number("continued", result.continued);
    }
    if let Some(why) = result.not_continued {
        line.text("not_continued", why.as_str());
    }
}

/// Milliseconds with three decimals.
struct Millis(std::time::Duration);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// The second part of a W3C `traceparent` (`00-<32 hex>-<16 hex>-<2 hex>`). `None`: it is none.
fn trace_id(traceparent: &HeaderValue) -> Option<&str> {
    let mut parts = traceparent.to_str().ok()?.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    (hex(version, 2) && hex(id, 32)).then_some(id)
}

/// A line in the making.
struct Line {
    text: String,
    format: LogFormat,
}

impl Line {
    fn open(&mut self) {
        if self.format == LogFormat::Json {
            self.text.push('{');
        }
    }

    fn close(&mut self) {
        if self.format == LogFormat::Json {
            self.text.push('}');
        }
        self.text.push('\n');
    }

    fn name(&mut self, name: &str) {
        match self.format {
            LogFormat::Json => {
                if self.text.len() > 1 {
                    self.text.push(',');
                }
                self.text.push('"');
                self.text.push_str(name);
                self.text.push_str("\":");
            }
            LogFormat::Text => {
                if !self.text.is_empty() {
                    self.text.push(' ');
                }
                self.text.push_str(name);
                self.text.push('=');
            }
        }
    }

    /// A number, as it displays itself.
    fn number(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        // Writing to a `String` does not fail.
        let _ = write!(self.text, "{value}");
    }

    /// Text of our own making, which needs no escape.
    fn raw_text(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        self.name(name);
        let _ = match self.format {
            LogFormat::Json => write!(self.text, "\"{value}\""),
            LogFormat::Text => self.text.write_fmt(value),
        };
    }

    fn text_unless_empty(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    fn header(&mut self, name: &str, value: Option<&HeaderValue>) {
        if let Some(value) = value {
            self.text(name, &String::from_utf8_lossy(value.as_bytes()));
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        match self.format {
            LogFormat::Json => quoted(&mut self.text, value),
            LogFormat::Text => {
                let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
                if !value.is_empty() && value.chars().all(plain) {
                    self.text.push_str(value);
                } else {
                    quoted(&mut self.text, value);
                }
            }
        }
    }
}

/// A JSON string. Escapes more than JSON asks for: all control characters (DEL and C1 too, which terminals obey), the line
/// and paragraph separators that some readers break lines at, and marks that turn the direction of text around.
fn quoted(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{2028}'..='\u{202e}' | '\u{200e}' | '\u{200f}' | '\u{2066}'..='\u{2069}' => {
                escaped(out, c)
            }
            c if c.is_control() => escaped(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn escaped(out: &mut String, c: char) {
    // All of them are below U+10000: one unit of UTF-16.
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}
