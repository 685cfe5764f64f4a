//! Timeouts and retries in words.

use outrigger_control_plane::model::{Duration, RequestTimeouts, Retry};

use crate::commands::get::word;

/// `request 30s, each try 10s`; none where nothing is set. `tcp`: idle and lifetime.
pub fn timeouts(
    connect: Option<Duration>,
    timeouts: RequestTimeouts,
    tcp: [Option<Duration>; 2],
) -> Option<String> {
    let set = [
        ("connect", connect),
        ("request", timeouts.request),
        ("backendRequest", timeouts.backend_request),
        ("responseHeaders", timeouts.response_headers),
        ("firstByte", timeouts.first_byte),
        ("streamIdle", timeouts.stream_idle),
        ("streamLifetime", timeouts.stream_lifetime),
        ("tcpIdle", tcp[0]),
        ("tcpLifetime", tcp[1]),
    ];
    let set: Vec<String> = set
        .into_iter()
        .filter_map(|(name, duration)| Some(format!("{name} {}", duration?)))
        .collect();
    (!set.is_empty()).then(|| set.join(", "))
}

/// The values in effect, one line for each question.
pub fn retry(retry: &Retry) -> String {
    let codes: Vec<String> = retry.codes().iter().map(u16::to_string).collect();
    let mut causes = Vec::new();
    if !codes.is_empty() {
        causes.push(format!("status {}", codes.join(", ")));
    }
    let grpc: Vec<String> = retry.grpc_codes().iter().map(word).collect();
    if !grpc.is_empty() {
        causes.push(format!("gRPC {}", grpc.join(", ")));
    }
    if retry.on_reset() {
        causes.push("reset".to_owned());
    }
    if retry.on_timeout() {
        causes.push("timeout of a try".to_owned());
    }
    let times = match retry.attempts() {
        0 => return "never (a failed connect is always tried on another endpoint)".to_owned(),
        1 => "once".to_owned(),
        times => format!("up to {times} times"),
    };
    let causes = if causes.is_empty() {
        "nothing but failed connects".to_owned()
    } else {
        causes.join("; ")
    };
    let budget = retry.budget();
    format!(
        "{times}, after: {causes}\nmethods {}; body up to {} bytes\nbackoff {} to {}; budget {} % of requests, at least {}/s",
        retry.methods().join(", "),
        retry.max_body_bytes(),
        retry.backoff(),
        retry.max_backoff(),
        budget.percent(),
        budget.min_per_second(),
    )
}
