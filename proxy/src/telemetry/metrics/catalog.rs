//! All metrics there are: name, type, labels and meaning. What is rendered takes its help from here, and
//! `examples/metrics.md` is compared with it.

use prometheus::proto::MetricType;

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: MetricType,
    /// Its unit, or what it counts, is in the text.
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: MetricType::COUNTER,
        help,
        labels,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: MetricType::GAUGE,
        help,
        labels,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: MetricType::HISTOGRAM,
        help,
        labels,
    }
}

macro_rules! catalog {
    ($($constant:ident = $family:expr;)*) => {
        $(pub const $constant: Family = $family;)*
        /// All of them.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

catalog! {
    REQUESTS = counter("outrigger_requests_total", &["direction", "service", "route", "peer", "code", "reason"],
        "Requests that ended, with the last byte of the response.");
    REQUEST_DURATION = histogram("outrigger_request_duration_seconds", &["direction", "service", "route"],
        "Time from the request's head to the last byte of the response, seconds.");
    FIRST_BYTE = histogram("outrigger_time_to_first_byte_seconds", &["direction", "service", "route"],
        "Time from the request's head to the first byte of the response, seconds.");
    REQUEST_BYTES = counter("outrigger_request_bytes_total", &["direction", "service"],
        "Bytes of request bodies, and bytes from the client on TCP connections.");
    RESPONSE_BYTES = counter("outrigger_response_bytes_total", &["direction", "service"],
        "Bytes of response bodies, and bytes to the client on TCP connections.");
    IN_FLIGHT = gauge("outrigger_requests_in_flight", &["direction", "service"],
        "Requests under way: begun, and the response's last byte not yet sent.");
    CONNECTIONS_OPEN = gauge("outrigger_connections_open", &["direction", "side"],
        "Open connections.");
    CONNECTIONS = counter("outrigger_connections_total", &["direction", "side", "protocol"],
        "Connections accepted (downstream) or established (upstream).");
    HANDSHAKES = counter("outrigger_tls_handshakes_total", &["direction", "result"],
        "TLS handshakes with peers and with servers outside the mesh, by how they ended.");
    POOL_REUSED = counter("outrigger_pool_reused_total", &["direction", "protocol"],
        "Requests sent on upstream connections that were open already; told once a second.");
    POOL_CLOSED = counter("outrigger_pool_closed_total", &["direction", "protocol", "cause"],
        "Upstream connections that ended, by cause.");
    POOL_WAITING = gauge("outrigger_pool_waiting", &["direction"],
        "Requests that wait for an upstream connection, or for room on one.");
    DETECTIONS = counter("outrigger_detections_total", &["direction", "result"],
        "Connections to ports with the protocol auto, by what they turned out to speak.");
    TLS_PASSTHROUGH = counter("outrigger_tls_passthrough_total", &["result"],
        "Connections to listeners that pass TLS on, by what became of them.");
    PROXY_HEADERS_REFUSED = counter("outrigger_proxy_protocol_refused_total", &["direction", "why"],
        "Connections refused for want of a valid PROXY protocol header, by why.");
    RETRIES = counter("outrigger_retries_total", &["service", "route", "cause"],
        "Requests sent again, by what went wrong before.");
    RETRIES_REFUSED = counter("outrigger_retries_refused_total", &["service", "route", "why"],
        "Failures that the policy retries and that were not retried, by why.");
    HEDGES = counter("outrigger_hedges_total", &["service", "route", "result"],
        "Requests whose answer was slow to come and that were sent once more, or were not, by what came of it.");
    CONTINUATIONS = counter("outrigger_continuations_total", &["service", "mode", "result"],
        "Token streams that broke where the route continues them, by how they were continued or why they were not.");
    FALLBACKS = counter("outrigger_fallbacks_total", &["service", "route", "cause", "to", "model"],
        "Requests handed to a fallback, by what had failed before and where they went.");
    FILTER_ACTIONS = counter("outrigger_filter_actions_total", &["service", "route", "action"],
        "Requests that a filter of the route answered, delayed or broke off, by what it did.");
    MIRRORED = counter("outrigger_mirrored_requests_total", &["service", "route", "backend", "outcome"],
        "Copies of requests sent to a mirror, by how they ended.");
    ENDPOINTS = gauge("outrigger_endpoints", &["service", "state"],
        "Endpoints of the services in use, as this sidecar sees them.");
    BALANCING_PANIC = gauge("outrigger_balancing_panic", &["service"],
        "1 while so few endpoints are available that requests go to all of them.");
    BALANCING_PANIC_PICKS = counter("outrigger_balancing_panic_picks_total", &["service"],
        "Endpoints chosen among all because too few are available.");
    BALANCING_ZONE_PICKS = counter("outrigger_balancing_zone_picks_total", &["service", "zone"],
        "Endpoints chosen for services with a zone preference, by whether they are in the sidecar's zone.");
    BALANCING_HASH_PICKS = counter("outrigger_balancing_hash_picks_total", &["service", "result"],
        "Endpoints chosen for services with consistent hashing, by how.");
    DNS_LOOKUPS = counter("outrigger_dns_lookups_total", &["service", "result"],
        "Lookups of DNS names that endpoints come from, by how they ended.");
    DNS_ANSWER_AGE = gauge("outrigger_dns_answer_age_seconds", &["service"],
        "Age of the oldest answer in use among a service's DNS names, seconds.");
    EJECTIONS = counter("outrigger_endpoint_ejections_total", &["service", "reason"],
        "Endpoints that outlier detection took out, by why.");
    SESSIONS = counter("outrigger_sessions_total", &["service", "outcome"],
        "Requests answered under rules with sticky sessions, by what became of the session.");
    HEALTH_CHECKS = counter("outrigger_health_checks_total", &["service", "result"],
        "Active checks of endpoints that this sidecar made, by how they ended.");
    CONFIG_VERSION = gauge("outrigger_config_version", &[],
        "Version of the configuration in effect; 0 before the first.");
    CONFIG_UPDATES = counter("outrigger_config_updates_total", &[],
        "Configurations put into effect.");
    CONFIG_REJECTIONS = counter("outrigger_config_rejections_total", &["kind"],
        "Resources from the control plane that were refused, by kind.");
    CONNECTED = gauge("outrigger_control_plane_connected", &[],
        "1 while the stream to the control plane is up.");
    CERTIFICATE_EXPIRY = gauge("outrigger_certificate_expiry_timestamp_seconds", &[],
        "End of the certificate in use, seconds since 1970; absent without one.");
    RENEWALS = counter("outrigger_certificate_renewals_total", &["result"],
        "Certificates asked of the control plane, by how it ended.");
    LOG_DROPPED = counter("outrigger_access_log_dropped_total", &[],
        "Lines of the access log that were lost: the writer was behind, or the output refused them.");
    TRACE_SPANS = counter("outrigger_trace_spans_total", &["result"],
        "Spans of sampled requests, by what became of them: exported, or lost and why.");
    REJECTIONS = counter("outrigger_rejections_total", &["direction", "service", "limit"],
        "Requests that were refused, or not sent, because of a limit, by which.");
    BREAKER_LIMIT = gauge("outrigger_circuit_breaker_limit", &["service", "limit"],
        "What this sidecar may have under way to a service.");
    BREAKER_IN_USE = gauge("outrigger_circuit_breaker_in_use", &["service", "limit"],
        "What this sidecar has under way to a service, where it is limited.");
    BREAKER_OPEN = gauge("outrigger_circuit_breaker_open", &["service", "limit"],
        "1 while a limit is reached.");
    THROTTLING = gauge("outrigger_throttling_probability", &["service"],
        "Share of the requests to a service that are not sent, because it refuses so many: 0 to 1.");
    CONCURRENCY_LIMIT = gauge("outrigger_concurrency_limit", &["service", "port"],
        "Requests that the application is given at a time.");
    CONCURRENCY = gauge("outrigger_concurrency_in_use", &["service", "port"],
        "Requests at the application, where they are limited.");
    QUEUE_LENGTH = gauge("outrigger_queue_length", &["service", "port"],
        "Requests that wait in front of the application.");
    QUEUE_WAIT = histogram("outrigger_queue_wait_seconds", &["service", "priority"],
        "Time that requests waited in front of the application before they had their turn, seconds.");
    RATE_LIMIT_DECISIONS = counter("outrigger_rate_limit_decisions_total", &["service", "policy", "limit", "decision"],
        "Requests that a rate limit was for, by what it decided.");
    RATE_LIMIT_CROWDED = counter("outrigger_rate_limit_crowded_total", &["service", "policy", "limit"],
        "Requests whose key shared what it may with others, because there are more keys than the limit keeps apart.");
    TOKEN_BUDGET_SPENT = counter("outrigger_token_budget_spent_tokens_total", &["service", "policy", "limit"],
        "Tokens of requests that have ended, as a budget counts them.");
    TOKEN_BUDGET_LEASED = counter("outrigger_token_budget_leased_tokens_total", &["service", "policy", "limit"],
        "Tokens that the control plane has leased to this sidecar.");
    TOKEN_BUDGET_STOPPED = counter("outrigger_token_budget_stopped_streams_total", &["service", "policy", "limit"],
        "Streams that were ended because a budget with a hard limit was spent.");
    GEN_AI_SERVER_DURATION = histogram("gen_ai_server_request_duration_seconds", &["service", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "error_type"],
        "Requests for models beside the model's server, from head to last byte, seconds.");
    GEN_AI_CLIENT_DURATION = histogram("gen_ai_client_operation_duration_seconds", &["service", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "error_type"],
        "Requests for models beside the caller, from head to last byte, seconds.");
    GEN_AI_FIRST_TOKEN = histogram("gen_ai_server_time_to_first_token_seconds", &["direction", "service", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"],
        "From the request's head to the first token of a stream, seconds.");
    GEN_AI_PER_TOKEN = histogram("gen_ai_server_time_per_output_token_seconds", &["direction", "service", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"],
        "Mean time of a stream's tokens after the first, seconds.");
    GEN_AI_TOKEN_USAGE = histogram("gen_ai_client_token_usage", &["direction", "service", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "gen_ai_token_type"],
        "Tokens of a request: input as the server counted, output as the server counted or as pieces of the stream.");
    MODEL_LONGEST_GAP = histogram("outrigger_model_longest_token_gap_seconds", &["direction", "service", "gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model"],
        "Longest time between two tokens of a stream, seconds.");
    MODEL_REQUESTS = counter("outrigger_model_requests_total", &["direction", "service", "gen_ai_operation_name", "gen_ai_request_model", "gen_ai_response_model", "outcome"],
        "Requests for models, by how they ended.");
    MODEL_TOKENS = counter("outrigger_model_tokens_total", &["direction", "service", "route", "peer", "gen_ai_operation_name", "gen_ai_request_model", "gen_ai_response_model", "gen_ai_token_type"],
        "Tokens of requests for models, by caller (inbound) and by backend (outbound).");
    MODEL_REQUESTS_READ = counter("outrigger_model_requests_read_total", &["result"],
        "Requests for models, by what came of reading their bodies.");
    CACHE_SALTS = counter("outrigger_cache_salts_total", &["result"],
        "Requests to models whose callers are kept apart in the server's cache, by what was done about their salt.");
    ENGINE_WAITING = gauge("outrigger_engine_requests_waiting", &["service", "port", "engine"],
        "Requests that wait in the model server behind this sidecar, as it says; absent while that is unknown.");
    ENGINE_RUNNING = gauge("outrigger_engine_requests_running", &["service", "port", "engine"],
        "Requests in the batch of the model server behind this sidecar, as it says; absent while that is unknown.");
    ENGINE_KV_USAGE = gauge("outrigger_engine_kv_cache_usage_ratio", &["service", "port", "engine"],
        "Part of the model server's KV cache that requests use, 0 to 1, as it says; absent while that is unknown.");
    ENGINE_SCRAPES = counter("outrigger_engine_scrapes_total", &["service", "port", "engine", "result"],
        "Looks at the metrics of the model server behind this sidecar, by what came of them.");
    LOAD_REPORTS = counter("outrigger_load_reports_total", &["result"],
        "Load reports in responses of services for models, by what came of reading them.");
    LOAD_QUESTIONS = counter("outrigger_load_questions_total", &["result"],
        "Endpoints of services for models that were asked for their load, because nothing had been heard of it.");
    BUILD = gauge("outrigger_build_info", &["version"],
        "Always 1; the label is the program's version.");
    CPU = counter("process_cpu_seconds_total", &[],
        "User and system CPU time, seconds.");
    RESIDENT = gauge("process_resident_memory_bytes", &[],
        "Resident memory, bytes.");
    VIRTUAL = gauge("process_virtual_memory_bytes", &[],
        "Virtual memory, bytes.");
    OPEN_FDS = gauge("process_open_fds", &[],
        "Open file descriptors.");
    MAX_FDS = gauge("process_max_fds", &[],
        "Most file descriptors that may be open.");
    THREADS = gauge("process_threads", &[],
        "Threads.");
    START_TIME = gauge("process_start_time_seconds", &[],
        "Start of the process, seconds since 1970.");
}
