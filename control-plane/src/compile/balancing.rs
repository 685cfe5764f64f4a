//! Balancing and sessions, from what users write to what sidecars read.

use aws_lc_rs::hmac;
use outrigger_proto::dataplane::v1 as wire;
use wire::hash_input::Kind;
use wire::session_persistence::Carrier;

use super::policy::duration;
use crate::model;

/// What the tokens of sticky sessions are made with; sidecars get a key for each service, made of it.
#[derive(Clone)]
pub struct SessionSecret(hmac::Key);

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

impl SessionSecret {
    /// Bytes that nobody else knows and that stay: with others all sessions begin anew.
    pub fn new(secret: &[u8; 32]) -> SessionSecret {
        SessionSecret(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key of one service (`<namespace>/<name>`): who calls one learns nothing about another.
    fn key_of(&self, service: &str) -> Vec<u8> {
        hmac::sign(&self.0, format!("session of {service}").as_bytes())
            .as_ref()
            .to_vec()
    }
}

pub(super) fn load_balancing(settings: &model::LoadBalancing) -> wire::LoadBalancing {
    use model::LoadBalancingPolicy as From;
    use wire::load_balancing::Policy as To;
    let to = match settings.policy() {
        From::PeakEwma => To::PeakEwma,
        From::LeastRequest => To::LeastRequest,
        From::RoundRobin => To::RoundRobin,
        From::Random => To::Random,
        From::RingHash => To::RingHash,
        From::Maglev => To::Maglev,
        From::ModelLoad => To::ModelLoad,
        From::PrefixAffinity => To::PrefixAffinity,
    };
    let ring = settings.ring_hash.and_then(|ring| ring.minimum_ring_size);
    let maglev = settings.maglev.and_then(|maglev| maglev.table_size);
    let zone = settings.zone.filter(|zone| zone.is_on());
    wire::LoadBalancing {
        policy: to.into(),
        ewma_decay: duration(settings.ewma_decay()),
        hash: settings.hash.iter().map(hash_input).collect(),
        minimum_ring_size: ring.unwrap_or_default(),
        maglev_table_size: maglev.unwrap_or_default(),
        bounded_load_percent: settings.bounded_load.unwrap_or_default(),
        zone: zone.map(|zone| wire::ZonePreference {
            overprovisioning_percent: zone.overprovisioning(),
            min_local_percent: zone.min_local_percent(),
        }),
        slow_start: settings.slow_start.map(|slow_start| wire::SlowStart {
            window: duration(slow_start.window),
            aggression: slow_start.aggression(),
            min_percent: slow_start.min_percent(),
        }),
        panic_threshold_percent: Some(settings.panic_threshold()),
    }
}

fn hash_input(input: &model::HashInput) -> wire::HashInput {
    let header = input.header.as_ref();
    let parameter = input.query_parameter.as_ref();
    let cookie = input.cookie.as_ref().map(|cookie| wire::HashCookie {
        name: cookie.name.clone(),
        ttl: cookie.ttl.and_then(duration),
        path: cookie.path.clone().unwrap_or_default(),
    });
    let kind = header
        .map(|name| Kind::Header(name.to_ascii_lowercase()))
        .or(cookie.map(Kind::Cookie))
        .or(input.source_identity.map(Kind::SourceIdentity))
        .or(input.path.map(Kind::Path))
        .or(parameter.map(|name| Kind::QueryParameter(name.clone())));
    wire::HashInput {
        kind,
        terminal: input.terminal.unwrap_or(false),
    }
}

/// `service`: the one that requests ask for, `<namespace>/<name>`.
pub(super) fn session(
    session: &model::SessionPersistence,
    secret: &SessionSecret,
    service: &str,
) -> wire::SessionPersistence {
    let (carrier, name) = match session.session_type() {
        model::SessionType::Cookie => (Carrier::Cookie, session.session_name().to_owned()),
        model::SessionType::Header => {
            (Carrier::Header, session.session_name().to_ascii_lowercase())
        }
    };
    wire::SessionPersistence {
        name,
        carrier: carrier.into(),
        absolute_timeout: session.absolute_timeout.and_then(duration),
        permanent: session.is_permanent(),
        key: secret.key_of(service),
    }
}
