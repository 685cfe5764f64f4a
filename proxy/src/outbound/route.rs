//! Which service a request is for, and which of its rules it falls under.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use http::request::Parts;
use http::uri::Authority;

use crate::error::Reason;
use crate::http::arrival::Arrived;
use crate::http::exchange::Exchange;
use crate::inference::understand;
use crate::policy::matching::{self, RequestFacts};
use crate::policy::{HostEntry, Rule, Service, Snapshot};
use crate::runtime::{TcpBinding, Worker};

/// Where a request goes.
pub(crate) struct Route {
    pub(crate) service: Arc<Service>,
    pub(crate) rule: Arc<Rule>,
    /// Port of the service.
    pub(crate) port: u16,
}

/// Why it goes nowhere.
pub(crate) struct Failed {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// Finds a request's rule. A host met for the first time is asked of the control plane. `bound`: the listener's service, whatever
/// the host says.
pub(super) async fn find(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &mut Arrived,
    exchange: &mut Exchange,
    bound: Option<&TcpBinding>,
) -> Result<Route, Failed> {
    let name = known_as(&request.authority);
    let entry = match (bound, snapshot.hosts.get(&*name)) {
        (Some(binding), _) => of_binding(snapshot, binding),
        (None, Some(entry)) => entry.clone(),
        (None, None) => look_up(worker, &name).await?,
    };
    if let HostEntry::Service { service, .. } = &entry
        && let Some(inference) = &service.upstream.inference
        && !request.upgrade
    {
        let metrics = &worker.shared.metrics.models;
        // Boxed: most services are not for models.
        let understanding = Box::pin(understand(inference, metrics, request, exchange));
        if let Err((reason, detail)) = understanding.await {
            return Err(Failed { reason, detail });
        }
    }
    let model = request.model.as_ref().and_then(|model| model.name());
    decide(&entry, &request.authority, &request.head, model)
}

/// Which rule of a host's service a request falls under. The path of a request and those who explain it go by this; nothing
/// else happens here.
pub(crate) fn decide(
    entry: &HostEntry,
    authority: &Authority,
    head: &Parts,
    model: Option<&str>,
) -> Result<Route, Failed> {
    let HostEntry::Service { service, port } = entry else {
        return Err(Failed {
            reason: Reason::NoRoute,
            detail: format!("no service answers to the host {:?}", known_as(authority)),
        });
    };
    let protocol = service
        .ports
        .iter()
        .find(|each| each.port == *port)
        .map(|each| each.protocol);
    if protocol.is_some_and(|protocol| !protocol.has_requests()) && head.method != Method::CONNECT {
        return Err(Failed {
            reason: Reason::MethodNotSupported,
            detail: format!(
                "port {port} of {} takes bytes and no HTTP requests",
                service.name
            ),
        });
    }
    match matching::find(&service.rules, &facts(authority, *port, head, model)) {
        Some(rule) => Ok(Route {
            rule: Arc::clone(rule),
            service: Arc::clone(service),
            port: *port,
        }),
        None => Err(Failed {
            reason: Reason::NoRoute,
            detail: format!("no rule of {} matches the request", service.name),
        }),
    }
}

/// What rules see of a request for this port of a service.
pub(crate) fn facts<'a>(
    authority: &'a Authority,
    port: u16,
    head: &'a Parts,
    model: Option<&'a str>,
) -> RequestFacts<'a> {
    RequestFacts {
        host: authority.host(),
        port,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        method: &head.method,
        headers: &head.headers,
        model,
    }
}

/// The service of a listener: it was there when the connection came.
fn of_binding(snapshot: &Snapshot, binding: &TcpBinding) -> HostEntry {
    match snapshot.services.get(&binding.service) {
        Some(service) => HostEntry::Service {
            service: Arc::clone(service),
            port: binding.port,
        },
        None => HostEntry::Absent,
    }
}

async fn look_up(worker: &Worker, name: &str) -> Result<HostEntry, Failed> {
    let shared = &worker.shared;
    if let Err(missing) = shared.ready()
        && !shared.drain.is_draining()
    {
        return Err(Failed {
            reason: Reason::NotReady,
            detail: format!("the sidecar has {missing}"),
        });
    }
    // Boxed: it is needed once for each host.
    let answer = Box::pin(shared.lookups.host(shared, name)).await;
    answer.ok_or_else(|| Failed {
        reason: Reason::NotReady,
        detail: format!("the control plane did not say in time what the host {name:?} means"),
    })
}

/// What an authority is called in the configuration.
pub(crate) fn known_as(authority: &Authority) -> Cow<'_, str> {
    let text = authority.as_str();
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
