//! Single policies, from what users write to what sidecars read. Defaults are filled in here, once.

use outrigger_proto::dataplane::v1 as wire;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::model;

/// What applies to all rules of a service that do not say otherwise.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub timeouts: model::RequestTimeouts,
    pub retry: Option<model::Retry>,
}

impl Defaults {
    /// What a service's rules start from: the service's own settings, then the mesh's, then the built-in ones.
    pub fn of(service: &model::ServiceSpec, mesh: &model::MeshSpec) -> Defaults {
        let built_in = model::RequestTimeouts {
            stream_idle: Some(model::RequestTimeouts::STREAM_IDLE),
            ..model::RequestTimeouts::default()
        };
        Defaults {
            timeouts: service
                .timeouts
                .for_requests()
                .or(mesh.timeouts.for_requests())
                .or(built_in),
            retry: service.retry.clone().or_else(|| mesh.retry.clone()),
        }
    }
}

pub(super) fn duration(duration: model::Duration) -> Option<prost_types::Duration> {
    // At most 99,999 hours: both parts fit.
    let millis = duration.as_millis();
    Some(prost_types::Duration {
        seconds: (millis / 1000) as i64,
        nanos: (millis % 1000) as i32 * 1_000_000,
    })
}

pub(super) fn timeouts(timeouts: model::RequestTimeouts) -> wire::Timeouts {
    wire::Timeouts {
        request: timeouts.request.and_then(duration),
        per_try: timeouts.backend_request.and_then(duration),
        response_headers: timeouts.response_headers.and_then(duration),
        stream_idle: timeouts.stream_idle.and_then(duration),
        stream_lifetime: timeouts.stream_lifetime.and_then(duration),
        first_byte: timeouts.first_byte.and_then(duration),
    }
}

pub(super) fn retry(retry: &model::Retry) -> wire::Retry {
    wire::Retry {
        max_retries: retry.attempts(),
        statuses: retry.codes().into_iter().map(u32::from).collect(),
        grpc_codes: retry
            .grpc_codes()
            .into_iter()
            .map(model::GrpcCode::number)
            .collect(),
        methods: retry.methods(),
        on_reset: retry.on_reset(),
        on_timeout: retry.on_timeout(),
        backoff_base: duration(retry.backoff()),
        backoff_max: duration(retry.max_backoff()),
        max_body_bytes: retry.max_body_bytes(),
        budget_percent: retry.budget().percent(),
        budget_min_per_second: retry.budget().min_per_second(),
    }
}

pub(super) fn protocol(protocol: model::Protocol) -> wire::Protocol {
    match protocol {
        model::Protocol::Http => wire::Protocol::Http,
        model::Protocol::Http2 => wire::Protocol::Http2,
        model::Protocol::Grpc => wire::Protocol::Grpc,
        model::Protocol::Tcp => wire::Protocol::Tcp,
        model::Protocol::Tls => wire::Protocol::Tls,
        model::Protocol::Auto => wire::Protocol::Auto,
    }
}

/// None where nothing is set: sidecars have the defaults.
pub(super) fn connection_pool(pool: model::ConnectionPool) -> Option<wire::ConnectionPool> {
    if pool == model::ConnectionPool::default() {
        return None;
    }
    let keep_alive = pool.http2.keep_alive;
    Some(wire::ConnectionPool {
        http1_idle_timeout: duration(pool.http1.idle_timeout()),
        http1_max_idle: pool.http1.max_idle(),
        http2_max_streams: pool.http2.max_concurrent_streams.unwrap_or(0),
        http2_max_connections: pool.http2.max_connections(),
        keep_alive_interval: duration(keep_alive.interval()),
        keep_alive_timeout: duration(keep_alive.timeout()),
        max_age: pool.max_connection_age.and_then(duration),
        max_requests: pool.max_requests_per_connection.unwrap_or(0),
        pre_warm: pool.pre_warm.unwrap_or(0),
    })
}

/// Traces.
fn tracing(tracing: &model::Tracing) -> wire::Tracing {
    wire::Tracing {
        endpoint: tracing.endpoint.clone(),
        sampling_percent: f64::from(tracing.sampling_percent().0) / 1e3,
        ca_certificates: certificates(tracing.ca_certificates.as_deref()),
    }
}

/// What is no certificate was refused when the resource was written.
fn certificates(pem: Option<&str>) -> Vec<Vec<u8>> {
    let certificates = CertificateDer::pem_slice_iter(pem.unwrap_or_default().as_bytes());
    certificates.flatten().map(|der| der.to_vec()).collect()
}

/// TLS towards what is outside the mesh. `None`: plaintext.
pub(super) fn tls(tls: &model::ServiceTls) -> Option<wire::OriginTls> {
    if tls.mode() == model::TlsMode::Disable {
        return None;
    }
    Some(wire::OriginTls {
        sni: tls.sni.clone().unwrap_or_default(),
        ca_certificates: certificates(tls.ca_certificates.as_deref()),
        subject_alt_names: tls.subject_alt_names.clone(),
    })
}

/// The mesh-wide settings.
pub(super) fn mesh(trust_domain: &str, spec: &model::MeshSpec) -> wire::Mesh {
    let mtls_mode = match spec.mtls.mode() {
        model::MtlsMode::Strict => wire::MtlsMode::Strict,
        model::MtlsMode::Permissive => wire::MtlsMode::Permissive,
    };
    let access_log = match spec.telemetry.access_log {
        None => wire::AccessLog::Unspecified,
        Some(model::AccessLog::Off) => wire::AccessLog::Off,
        Some(model::AccessLog::Errors) => wire::AccessLog::Errors,
        Some(model::AccessLog::All) => wire::AccessLog::All,
    };
    let unknown_hosts = match spec.outbound.unknown_hosts() {
        model::UnknownHosts::Refuse => wire::UnknownHosts::Refuse,
        model::UnknownHosts::PassThrough => wire::UnknownHosts::PassThrough,
    };
    wire::Mesh {
        trust_domain: trust_domain.to_owned(),
        mtls_mode: mtls_mode.into(),
        access_log: access_log.into(),
        unknown_hosts: unknown_hosts.into(),
        tracing: spec.telemetry.tracing.as_ref().map(tracing),
    }
}
