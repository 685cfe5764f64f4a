//! How connections are kept, how long they live, and how their protocol is found out.

use std::time::Duration;

use outrigger_proto::dataplane::v1 as wire;

use super::{Reason, timeout};
use crate::policy::{ConnectionPool, Detection, KeepAlive, TcpLimits};

/// More connections to one place than this are no pool any more.
const MAX_CONNECTIONS: u32 = 1024;
/// Connections that are opened ahead, to each endpoint.
const MAX_PRE_WARM: u32 = 16;

pub(super) fn connection_pool(
    field: &str,
    wire: Option<&wire::ConnectionPool>,
) -> Result<ConnectionPool, Reason> {
    let default = ConnectionPool::default();
    let Some(wire) = wire else {
        return Ok(default);
    };
    let clock = |name: &str, value, default: Duration| {
        timeout(&format!("{field}.{name}"), value).map(|clock| clock.unwrap_or(default))
    };
    let at_most = |name: &str, value: u32, most: u32| {
        if value > most {
            return Err(format!("{field}.{name}: {value} is above {most}"));
        }
        Ok(value as usize)
    };
    Ok(ConnectionPool {
        http1_idle: clock(
            "http1_idle_timeout",
            wire.http1_idle_timeout,
            default.http1_idle,
        )?,
        http1_max_idle: match at_most("http1_max_idle", wire.http1_max_idle, 65_536)? {
            0 => default.http1_max_idle,
            number => number,
        },
        http2_streams: match at_most("http2_max_streams", wire.http2_max_streams, 65_536)? {
            0 => None,
            number => Some(number),
        },
        http2_connections: match at_most(
            "http2_max_connections",
            wire.http2_max_connections,
            MAX_CONNECTIONS,
        )? {
            0 => default.http2_connections,
            number => number,
        },
        keep_alive: KeepAlive {
            interval: clock(
                "keep_alive_interval",
                wire.keep_alive_interval,
                default.keep_alive.interval,
            )?,
            timeout: clock(
                "keep_alive_timeout",
                wire.keep_alive_timeout,
                default.keep_alive.timeout,
            )?,
        },
        max_age: timeout(&format!("{field}.max_age"), wire.max_age)?,
        max_requests: (wire.max_requests > 0).then_some(wire.max_requests),
        pre_warm: at_most("pre_warm", wire.pre_warm, MAX_PRE_WARM)?,
    })
}

pub(super) fn tcp_limits(
    idle: Option<prost_types::Duration>,
    lifetime: Option<prost_types::Duration>,
) -> Result<TcpLimits, Reason> {
    Ok(TcpLimits {
        idle: timeout("tcp_idle_timeout", idle)?,
        lifetime: timeout("tcp_lifetime", lifetime)?,
    })
}

pub(super) fn detection(
    wait: Option<prost_types::Duration>,
    server_first: bool,
) -> Result<Detection, Reason> {
    Ok(Detection {
        timeout: timeout("detection_timeout", wait)?.unwrap_or(Detection::default().timeout),
        server_first,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{connection_pool, detection, tcp_limits};
    use crate::policy::{ConnectionPool, Detection, TcpLimits};
    use outrigger_proto::dataplane::v1 as wire;
    use std::time::Duration;

    fn span(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let nothing = wire::ConnectionPool::default();
        let pool = connection_pool("connection_pool", Some(&nothing)).unwrap();
        assert_eq!(pool, ConnectionPool::default());
        assert_eq!(connection_pool("connection_pool", None).unwrap(), pool);
        assert_eq!(tcp_limits(None, None).unwrap(), TcpLimits::default());
        assert_eq!(detection(None, false).unwrap(), Detection::default());
    }

    #[test]
    fn what_is_said_is_taken() {
        let pool = wire::ConnectionPool {
            http1_idle_timeout: span(9),
            http2_max_streams: 7,
            max_age: span(60),
            max_requests: 5,
            pre_warm: 2,
            ..Default::default()
        };
        let pool = connection_pool("connection_pool", Some(&pool)).unwrap();
        assert_eq!(pool.http1_idle, Duration::from_secs(9));
        assert_eq!(pool.http2_streams, Some(7));
        assert_eq!(pool.max_age, Some(Duration::from_secs(60)));
        assert_eq!(pool.max_requests, Some(5));
        assert_eq!(pool.pre_warm, 2);
        assert_eq!(pool.http2_connections, 16);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |pool| connection_pool("connection_pool", Some(&pool)).unwrap_err();
        let message = refused(wire::ConnectionPool {
            pre_warm: 17,
            ..Default::default()
        });
        assert_eq!(message, "connection_pool.pre_warm: 17 is above 16");
        let message = refused(wire::ConnectionPool {
            keep_alive_interval: span(0),
            ..Default::default()
        });
        assert!(
            message.starts_with("connection_pool.keep_alive_interval: "),
            "{message}"
        );
        tcp_limits(None, span(-1)).unwrap_err();
        detection(span(0), false).unwrap_err();
    }
}
