//! Connections in words: how a port's protocol is found out, and how connections are kept.

use outrigger_control_plane::model::{ConnectionPool, Protocol, ServicePort};

/// What follows the word `auto`; empty for other protocols.
pub fn detection(port: &ServicePort) -> String {
    match port.protocol {
        Protocol::Auto if port.server_first() => ", the server speaks first".to_owned(),
        Protocol::Auto => format!(", from the first bytes within {}", port.detection_timeout()),
        _ => String::new(),
    }
}

/// The values in effect, one line for each protocol; none where nothing is set.
pub fn pool(pool: &ConnectionPool) -> Option<String> {
    if *pool == ConnectionPool::default() {
        return None;
    }
    let keep_alive = pool.http2.keep_alive;
    let streams = pool.http2.max_concurrent_streams.map_or_else(
        || "as many streams as the peer allows".to_owned(),
        |streams| format!("{streams} streams"),
    );
    let mut lines = vec![
        format!(
            "HTTP/1.1: up to {} idle, for {}",
            pool.http1.max_idle(),
            pool.http1.idle_timeout()
        ),
        format!(
            "HTTP/2: up to {} with {streams} each; asked for a sign of life after {}, closed {} later",
            pool.http2.max_connections(),
            keep_alive.interval(),
            keep_alive.timeout()
        ),
    ];
    if let Some(age) = pool.max_connection_age {
        lines.push(format!(
            "no new requests after {age} (up to a tenth sooner)"
        ));
    }
    if let Some(requests) = pool.max_requests_per_connection {
        lines.push(format!("at most {requests} requests each"));
    }
    if let Some(connections @ 1..) = pool.pre_warm {
        lines.push(format!("{connections} to each endpoint opened ahead"));
    }
    Some(lines.join("\n"))
}
