//! Which request gets which answer.

use http::header::{ALLOW, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::reply::{self, Reply, text};
use super::{Port, State, config, endpoints, guard};
use crate::shared::Shared;
use crate::telemetry::metrics;

/// Longest body of a PUT, bytes.
const MAX_BODY: usize = 4096;
/// For the body of a PUT to arrive.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A path, the methods it takes, and whether the metrics port has it too.
struct Route {
    path: &'static str,
    methods: &'static [Method],
    on_metrics_port: bool,
    says: &'static str,
}

const READ: &[Method] = &[Method::GET, Method::HEAD];

const ROUTES: [Route; 7] = [
    Route {
        path: "/live",
        methods: READ,
        on_metrics_port: true,
        says: "200 while the process answers",
    },
    Route {
        path: "/ready",
        methods: READ,
        on_metrics_port: true,
        says: "200, or 503 and what is missing",
    },
    Route {
        path: "/metrics",
        methods: READ,
        on_metrics_port: true,
        says: "metrics for Prometheus",
    },
    Route {
        path: "/config",
        methods: READ,
        on_metrics_port: false,
        says: "the configuration in effect",
    },
    Route {
        path: "/endpoints",
        methods: READ,
        on_metrics_port: false,
        says: "endpoints and their load",
    },
    Route {
        path: "/log-level",
        methods: &[Method::GET, Method::HEAD, Method::PUT],
        on_metrics_port: false,
        says: "the program log's level; PUT debug, or outrigger_proxy=debug,info",
    },
    Route {
        path: "/drain",
        methods: &[Method::POST],
        on_metrics_port: false,
        says: "begins to drain",
    },
];

pub(super) async fn answer(state: &State, port: Port, request: Request<Incoming>) -> Reply {
    if port == Port::Admin
        && let Err(refused) = guard::check(&request)
    {
        return text(StatusCode::FORBIDDEN, refused.to_string());
    }
    let path = request.uri().path();
    let Some(route) = routes(port).find(|route| route.path == path) else {
        return text(StatusCode::NOT_FOUND, overview(port));
    };
    if !route.methods.contains(request.method()) {
        return wrong_method(route);
    }
    match route.path {
        "/live" => text(StatusCode::OK, "live"),
        "/ready" => ready(&state.shared),
        "/metrics" => {
            let page = state.shared.metrics.render(&state.shared);
            reply::with_type(StatusCode::OK, metrics::CONTENT_TYPE, page)
        }
        "/config" => reply::json(StatusCode::OK, &config::describe(&state.shared)),
        "/endpoints" => reply::json(StatusCode::OK, &endpoints::describe(&state.shared)),
        "/log-level" if request.method() == Method::PUT => set_log_level(state, request).await,
        "/log-level" => text(StatusCode::OK, state.log_level.get()),
        _ => drain(&state.shared),
    }
}

fn routes(port: Port) -> impl Iterator<Item = &'static Route> {
    ROUTES
        .iter()
        .filter(move |route| port == Port::Admin || route.on_metrics_port)
}

fn methods(route: &Route) -> String {
    route
        .methods
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

fn overview(port: Port) -> String {
    let lines = routes(port)
        .map(|route| format!("{:<12}{:<18}{}\n", route.path, methods(route), route.says));
    format!("no such path; there are:\n{}", lines.collect::<String>())
}

fn wrong_method(route: &Route) -> Reply {
    let allowed = methods(route);
    let mut reply = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} takes {allowed}", route.path),
    );
    if let Ok(value) = HeaderValue::from_str(&allowed) {
        reply.headers_mut().insert(ALLOW, value);
    }
    reply
}

/// As [`Shared::ready`], but everything that is missing, a line for each.
fn ready(shared: &Shared) -> Reply {
    let missing = [
        (shared.drain.is_draining(), "draining"),
        (shared.tls.load().is_none(), "no identity yet"),
        (!shared.status.has_config(), "no configuration yet"),
    ];
    let missing: Vec<&str> = missing
        .into_iter()
        .filter(|(is_missing, _)| *is_missing)
        .map(|(_, what)| what)
        .collect();
    if missing.is_empty() {
        text(StatusCode::OK, "ready")
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready\n{}", missing.join("\n")),
        )
    }
}

async fn set_log_level(state: &State, request: Request<Incoming>) -> Reply {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("the body could not be read: {error}"),
            );
        }
        Err(_) => {
            return text(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time",
            );
        }
    };
    let level = String::from_utf8_lossy(&body);
    match state.log_level.set(&level) {
        Ok(()) => {
            tracing::info!(level = level.trim(), "log level changed on the admin port");
            text(StatusCode::OK, state.log_level.get())
        }
        Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

fn drain(shared: &Shared) -> Reply {
    shared.drain.start();
    let body = serde_json::json!({
        "phase": shared.drain.phase().as_str(),
        "under_way": shared.drain.under_way(),
    });
    reply::json(StatusCode::ACCEPTED, &body)
}
