//! A deadline on its way from hop to hop: what the caller still waits for.
//!
//! gRPC has a header of its own, `grpc-timeout`. Other requests carry `x-request-timeout-ms`. Both are relative: clocks of two
//! machines need not agree. Each hop says what is left when it sends.

use std::io::Write;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// How long the caller is going to wait, milliseconds from when the request is sent.
pub(crate) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long the caller of an HTTP request is going to wait: a whole number of milliseconds above 0; anything else is ignored.
pub(crate) fn http_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(REQUEST_TIMEOUT)?.to_str().ok()?;
    // More digits than 30 days need are no timeout.
    if text.len() > 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.parse().ok()? {
        0 => None,
        millis => Some(Duration::from_millis(millis)),
    }
}

/// `grpc-timeout`: how long the caller is going to wait. At most 8 digits and a unit
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>); anything else is ignored.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Tells the next hop what is left until `end`. A time that is up already is told as the shortest there is: the request is
/// on its way to be given up.
///
/// Rounded up: the hop with the clock is the one that says what happened.
pub(crate) fn tell(headers: &mut HeaderMap, grpc: bool, end: Instant) {
    let left = end.saturating_duration_since(Instant::now());
    let mut text = [0; 24];
    let mut rest = &mut text[..];
    let name = if grpc {
        let (amount, unit) = grpc_amount(left);
        // Eight digits and a unit fit.
        let _ = write!(rest, "{amount}{unit}");
        GRPC_TIMEOUT
    } else {
        let millis = left.as_nanos().div_ceil(1_000_000).max(1);
        // As an instant on a clock of nanoseconds it has at most 14 digits.
        let _ = write!(rest, "{millis}");
        REQUEST_TIMEOUT
    };
    let unused = rest.len();
    let used = text.len() - unused;
    if let Ok(mut value) = HeaderValue::from_bytes(&text[..used]) {
        // Another one each time: it would push what repeats out of HTTP/2's table.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

/// In the finest unit that eight digits can hold, and no finer than microseconds.
fn grpc_amount(left: Duration) -> (u128, char) {
    const MOST: u128 = 99_999_999;
    const UNITS: [(u128, char); 5] = [
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let nanos = left.as_nanos().max(1);
    UNITS
        .into_iter()
        .map(|(unit, name)| (nanos.div_ceil(unit), name))
        .find(|(amount, _)| *amount <= MOST)
        .unwrap_or((MOST, 'H'))
}

#[cfg(test)]
mod tests;
