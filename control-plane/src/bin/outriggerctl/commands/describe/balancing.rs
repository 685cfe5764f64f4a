//! Balancing and sessions in words.

use outrigger_control_plane::model::{
    HashInput, LoadBalancing, LoadBalancingPolicy, SessionPersistence, SessionType,
};

use crate::commands::get::word;

/// The policy, and a line for each thing that was set.
pub fn load_balancing(settings: &LoadBalancing) -> String {
    let mut lines = vec![word(&settings.policy())];
    if settings.policy().takes_keys() && !settings.hash.is_empty() {
        let keys: Vec<String> = settings.hash.iter().map(key).collect();
        lines[0].push_str(&format!(" on {}", keys.join(", ")));
        if !settings.policy().hashes() {
            lines[0].push_str(", else the prompt");
        }
    }
    match settings.policy() {
        LoadBalancingPolicy::RingHash => {
            let size = settings.ring_hash.and_then(|ring| ring.minimum_ring_size);
            let size = size.unwrap_or(1024);
            lines.push(format!("{size} places on the ring for each endpoint"));
        }
        LoadBalancingPolicy::Maglev => {
            let size = settings.maglev.and_then(|maglev| maglev.table_size);
            lines.push(format!("{} places in the table", size.unwrap_or(65_537)));
        }
        _ => {}
    }
    if let Some(percent) = settings.bounded_load {
        lines.push(format!("no endpoint above {percent} % of its share"));
    }
    if let Some(zone) = settings.zone.filter(|zone| zone.is_on()) {
        let mut line = format!(
            "the caller's zone first (min(1, {} % × available / all of it))",
            zone.overprovisioning()
        );
        if zone.min_local_percent() > 0 {
            let percent = zone.min_local_percent();
            line.push_str(&format!(", if it has {percent} % of the weight"));
        }
        lines.push(line);
    }
    if let Some(slow_start) = settings.slow_start {
        lines.push(format!(
            "new endpoints start at {} % of their weight and have all of it after {}",
            slow_start.min_percent(),
            slow_start.window
        ));
    }
    match settings.panic_threshold {
        Some(0) => lines.push("never an endpoint that is not available".to_owned()),
        Some(percent) => lines.push(format!(
            "all endpoints where fewer than {percent} % are available"
        )),
        None => {}
    }
    lines.join("\n")
}

fn key(input: &HashInput) -> String {
    let key = match input {
        HashInput {
            header: Some(name), ..
        } => format!("header {name}"),
        HashInput {
            cookie: Some(cookie),
            ..
        } => format!("cookie {}", cookie.name),
        HashInput {
            source_identity: Some(true),
            ..
        } => "the caller's identity".to_owned(),
        HashInput {
            query_parameter: Some(name),
            ..
        } => format!("query parameter {name}"),
        _ => "the path".to_owned(),
    };
    match input.terminal {
        Some(true) => format!("{key} (alone, if there)"),
        _ => key,
    }
}

/// `cookie outrigger-session, at most 1h`.
pub fn session(session: &SessionPersistence) -> String {
    let carrier = match session.session_type() {
        SessionType::Cookie => "cookie",
        SessionType::Header => "header",
    };
    let mut words = format!("sticky by {carrier} {}", session.session_name());
    if let Some(timeout) = session.absolute_timeout {
        words.push_str(&format!(", at most {timeout}"));
    }
    if session.is_permanent() {
        words.push_str(", kept when the client is closed");
    }
    words
}
