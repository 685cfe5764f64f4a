//! How a service's endpoints are chosen.

use std::sync::Arc;

use aws_lc_rs::hmac;
use http::HeaderName;
use outrigger_proto::dataplane::v1 as wire;
use wire::hash_input::Kind;
use wire::load_balancing::Policy as WirePolicy;

use super::{Reason, known, list, timeout};
use crate::balance::{
    DEFAULT_MAGLEV_SIZE, DEFAULT_PANIC_PERCENT, DEFAULT_RING_SIZE, Policy, Settings, SlowStart,
    ZonePreference,
};
use crate::policy::{Carrier, HashCookie, HashInput, HashKey, HashPolicy, SessionSettings};

/// Least number of places that can be asked for on a ring: more only cost memory.
const MAX_MINIMUM_RING_SIZE: u32 = 65_536;

/// Unset: the defaults.
pub(super) fn settings(wire: Option<&wire::LoadBalancing>) -> Result<Settings, Reason> {
    let defaults = Settings::default();
    let Some(wire) = wire else {
        return Ok(defaults);
    };
    let policy = match known::<WirePolicy>("policy", wire.policy)? {
        WirePolicy::Unspecified | WirePolicy::PeakEwma => Policy::PeakEwma,
        WirePolicy::LeastRequest => Policy::LeastRequest,
        WirePolicy::RoundRobin => Policy::RoundRobin,
        WirePolicy::Random => Policy::Random,
        WirePolicy::RingHash => Policy::RingHash,
        WirePolicy::Maglev => Policy::Maglev,
        WirePolicy::ModelLoad => Policy::ModelLoad,
        WirePolicy::PrefixAffinity => Policy::PrefixAffinity,
    };
    let panic_percent = match wire.panic_threshold_percent {
        None => DEFAULT_PANIC_PERCENT,
        Some(percent) => percentage("panic_threshold_percent", percent)?,
    };
    let maglev_size = or(wire.maglev_table_size, DEFAULT_MAGLEV_SIZE);
    if maglev_size > DEFAULT_MAGLEV_SIZE || !is_prime(maglev_size) {
        return Err(format!(
            "maglev_table_size: {maglev_size} is not a prime up to {DEFAULT_MAGLEV_SIZE}"
        ));
    }
    let ring_size = within(
        "minimum_ring_size",
        or(wire.minimum_ring_size, DEFAULT_RING_SIZE),
        1,
        MAX_MINIMUM_RING_SIZE,
    )?;
    let bounded_load = match wire.bounded_load_percent {
        0 => None,
        percent => Some(within("bounded_load_percent", percent, 101, 1000)?),
    };
    let zone = wire.zone.as_ref().map(zone).transpose();
    let slow_start = wire.slow_start.as_ref().map(slow_start).transpose();
    Ok(Settings {
        policy,
        decay: timeout("ewma_decay", wire.ewma_decay)?.unwrap_or(defaults.decay),
        panic_percent,
        ring_size,
        maglev_size,
        hash: hash(wire)?,
        bounded_load,
        zone: zone.map_err(|problem| format!("zone.{problem}"))?,
        slow_start: slow_start.map_err(|problem| format!("slow_start.{problem}"))?,
    })
}

/// What requests are told by. `None`: the policy does not hash.
fn hash(wire: &wire::LoadBalancing) -> Result<Option<Arc<HashPolicy>>, Reason> {
    let hashes = matches!(wire.policy(), WirePolicy::RingHash | WirePolicy::Maglev);
    let may_hash = hashes || wire.policy() == WirePolicy::PrefixAffinity;
    match (may_hash, wire.hash.as_slice()) {
        (false, []) => return Ok(None),
        (false, _) => return Err("hash: given, and the policy does not hash".into()),
        (true, []) if !hashes => return Ok(None),
        (true, []) => return Err("hash: empty, the policy needs something to hash".into()),
        (true, _) => {}
    }
    let inputs = list("hash", &wire.hash, |input: &wire::HashInput| {
        Ok(HashInput {
            key: hash_key(input)?,
            terminal: input.terminal,
        })
    })?;
    let cookies = inputs
        .iter()
        .filter(|input| matches!(input.key, HashKey::Cookie(_)));
    if cookies.count() > 1 {
        return Err("hash: more than one cookie; one is allowed".into());
    }
    Ok(Some(Arc::new(HashPolicy {
        inputs: inputs.into(),
    })))
}

fn hash_key(input: &wire::HashInput) -> Result<HashKey, Reason> {
    Ok(match &input.kind {
        Some(Kind::Header(name)) => HashKey::Header(
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("header: {name:?} is not a header's name"))?,
        ),
        Some(Kind::Cookie(cookie)) => HashKey::Cookie(HashCookie {
            name: cookie_name("cookie.name", &cookie.name)?,
            ttl: timeout("cookie.ttl", cookie.ttl)?,
            path: cookie_path("cookie.path", &cookie.path)?,
        }),
        Some(Kind::SourceIdentity(true)) => HashKey::SourceIdentity,
        Some(Kind::Path(true)) => HashKey::Path,
        Some(Kind::QueryParameter(name)) if !name.is_empty() => {
            HashKey::QueryParameter(name.as_str().into())
        }
        Some(Kind::QueryParameter(_)) => return Err("query_parameter: empty".into()),
        Some(Kind::SourceIdentity(false) | Kind::Path(false)) => {
            return Err(": false; leave it out instead".into());
        }
        None => return Err(": of a kind that this version does not know".into()),
    })
}

/// A token of RFC 6265.
fn cookie_name(field: &str, name: &str) -> Result<Box<str>, Reason> {
    // Names of headers are tokens, too; they are stored in lower case, so only the check is theirs.
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(name.into()),
        Err(_) => Err(format!("{field}: {name:?} is not a cookie's name")),
    }
}

fn cookie_path(field: &str, path: &str) -> Result<Box<str>, Reason> {
    let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    match path {
        "" => Ok("/".into()),
        path if path.starts_with('/') && path.bytes().all(is_path) => Ok(path.into()),
        path => Err(format!(
            "{field}: {path:?} does not begin with a slash or has other than printable characters without \";\""
        )),
    }
}

/// Sticky sessions of a rule.
pub(super) fn session(
    wire: Option<&wire::SessionPersistence>,
) -> Result<Option<SessionSettings>, Reason> {
    use wire::session_persistence::Carrier as WireCarrier;
    let Some(wire) = wire else {
        return Ok(None);
    };
    let carrier = match known::<WireCarrier>("carrier", wire.carrier)? {
        WireCarrier::Unspecified | WireCarrier::Cookie => {
            Carrier::Cookie(cookie_name("name", &wire.name)?)
        }
        WireCarrier::Header => Carrier::Header(
            HeaderName::from_bytes(wire.name.as_bytes())
                .map_err(|_| format!("name: {:?} is not a header's name", wire.name))?,
        ),
    };
    if wire.key.len() != 32 {
        return Err(format!("key: {} bytes; it has 32", wire.key.len()));
    }
    let absolute_timeout = timeout("absolute_timeout", wire.absolute_timeout)?;
    if wire.permanent && absolute_timeout.is_none() {
        return Err("absolute_timeout: unset, a permanent cookie needs it".into());
    }
    Ok(Some(SessionSettings {
        carrier,
        absolute_timeout,
        permanent: wire.permanent,
        key: hmac::Key::new(hmac::HMAC_SHA256, &wire.key),
    }))
}

fn zone(wire: &wire::ZonePreference) -> Result<ZonePreference, Reason> {
    let factor = or(
        wire.overprovisioning_percent,
        ZonePreference::OVERPROVISIONING,
    );
    Ok(ZonePreference {
        own: "".into(),
        overprovisioning: within("overprovisioning_percent", factor, 100, 1000)?,
        min_local_percent: percentage("min_local_percent", wire.min_local_percent)?,
    })
}

fn slow_start(wire: &wire::SlowStart) -> Result<SlowStart, Reason> {
    Ok(SlowStart {
        window: timeout("window", wire.window)?.ok_or("window: unset")?,
        aggression: within("aggression", or(wire.aggression, 1), 1, 10)?,
        min_percent: percentage("min_percent", or(wire.min_percent, 10))?,
    })
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

fn within(field: &str, value: u32, min: u32, max: u32) -> Result<u32, Reason> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(format!("{field}: {value} is not from {min} to {max}"))
}

fn percentage(field: &str, value: u32) -> Result<u8, Reason> {
    u8::try_from(within(field, value, 0, 100)?).map_err(|_| format!("{field}: {value}"))
}

/// For table sizes: a few hundred divisions at most.
fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}
