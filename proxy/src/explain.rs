//! What a request would meet: computed by the code that routes requests, from what a sidecar would be sent.
//!
//! Side effects there are none: no connection, no DNS lookup, no metric that anybody sees.

use http::request::Parts;
use outrigger_proto::dataplane::v1 as wire;
use serde::Serialize;
use serde_json::Value;

use crate::admin::config;
use crate::control::explain::snapshot;
use crate::error::Reason;
use crate::http::{authority, headers};
use crate::outbound::route::{self, Route};
use crate::policy::filters::Filter;
use crate::policy::{Backend, HostEntry, Match, PASS_THROUGH};

/// Which resource of a delta says what a request's host means. `None`: the request names no host, or an ambiguous one.
pub fn host_resource(head: &Parts) -> Option<String> {
    let authority = authority::of(head).ok()?;
    Some(format!("host/{}", route::known_as(&authority)))
}

/// What became of a request, and why.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Where it goes. `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Routed>,
    /// Why it goes nowhere, or would fail where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Rules that come before the one that it falls under (all, where it falls under none), and what they miss.
    pub passed_over: Vec<PassedOver>,
    /// Resources that the sidecar would refuse: `<name>: <reason>`.
    pub rejections: Vec<String>,
}

/// An answer of the sidecar's own.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// As in the header `x-outrigger-reason`.
    pub reason: &'static str,
    pub status: u16,
    pub detail: String,
}

/// The rule that a request falls under, and where that leads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Routed {
    /// `<namespace>/<name>`; `passthrough` for a host that belongs to no service.
    pub service: String,
    pub port: u16,
    /// `<namespace>/<name>` of the route; empty for the built-in rule.
    pub route: String,
    /// Place among the service's rules, from 0.
    pub rule: usize,
    pub rules: usize,
    /// The conditions that it met; null for a rule without any.
    pub matched: Value,
    pub backends: Vec<BackendShare>,
    /// Everything that the rule says, as on the sidecar's admin port.
    pub policy: Value,
    /// Of the service that the request is for.
    pub service_policy: Value,
}

/// One backend of a rule.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendShare {
    pub service: String,
    pub port: u16,
    pub protocol: &'static str,
    pub weight: u32,
    /// Of the rule's requests, 0 to 100.
    pub percent: f64,
    pub endpoints: Vec<EndpointShown>,
    /// DNS names that endpoints come from; each sidecar looks them up for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
}

/// An endpoint that requests may go to.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointShown {
    pub address: String,
    /// SPIFFE id; empty where there is none.
    pub identity: String,
    pub mtls: bool,
    pub weight: u32,
}

/// A rule that a request does not fall under.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassedOver {
    pub rule: usize,
    /// Empty for the built-in rule.
    pub route: String,
    /// Conditions that do not hold, of the alternative that comes closest.
    pub unmet: Vec<&'static str>,
    /// That alternative.
    pub conditions: Value,
}

/// What a request with this head would meet at a sidecar of the trust domain that holds this delta. `model`: that its body
/// names; empty: none.
pub fn explain(
    delta: wire::Delta,
    trust_domain: &str,
    mut head: Parts,
    model: &str,
) -> Explanation {
    let (snapshot, refusals) = snapshot(delta, trust_domain);
    let rejections = refusals
        .into_iter()
        .map(|refusal| format!("{}: {}", refusal.name, refusal.reason))
        .collect();
    let mut explanation = Explanation {
        route: None,
        refused: None,
        passed_over: Vec::new(),
        rejections,
    };
    // As `http/arrival.rs` does it, before anything looks at the headers.
    let upgrade = headers::wanted_upgrade(&head.headers);
    let found = headers::clean_request(&mut head.headers, upgrade.as_ref());
    headers::ensure_request_id(&mut head.headers, found, &mut rand::rng());

    let authority = match authority::of(&head) {
        Ok(authority) => authority,
        Err(error) => {
            explanation.refused = Some(refused(Reason::BadRequest, error.to_string()));
            return explanation;
        }
    };
    let name = route::known_as(&authority);
    let entry = snapshot.hosts.get(&*name).unwrap_or(&HostEntry::Absent);
    let model = known_model(entry, model);
    let result = route::decide(entry, &authority, &head, model);
    if let HostEntry::Service { service, port } = entry {
        let facts = route::facts(&authority, *port, &head, model);
        let taken = result.as_ref().ok().map(|route| &route.rule);
        let before =
            service.rules.iter().enumerate().take_while(|(_, rule)| {
                taken.is_none_or(|taken| !std::sync::Arc::ptr_eq(rule, taken))
            });
        explanation.passed_over = before
            .filter_map(|(index, rule)| {
                let misses = rule.matches.iter().map(|each| (each.unmet(&facts), each));
                let (unmet, nearest) = misses.min_by_key(|(unmet, _)| unmet.len())?;
                Some(PassedOver {
                    rule: index,
                    route: rule.route.to_string(),
                    unmet,
                    conditions: config::condition(nearest),
                })
            })
            .collect();
    }
    match result {
        Err(failed) => explanation.refused = Some(refused(failed.reason, failed.detail)),
        Ok(route) => {
            let facts = route::facts(&authority, route.port, &head, model);
            let met = route.rule.matches.iter().find(|each| each.matches(&facts));
            explanation.refused = nobody(&route);
            explanation.route = Some(routed(&route, met));
        }
    }
    explanation
}

/// A sidecar reads what a request asks for only where the service has inference on.
fn known_model<'a>(entry: &HostEntry, model: &'a str) -> Option<&'a str> {
    let HostEntry::Service { service, .. } = entry else {
        return None;
    };
    let is_read = service.upstream.inference.is_some() && !model.is_empty();
    is_read.then_some(model)
}

fn refused(reason: Reason, detail: String) -> Refused {
    Refused {
        reason: reason.as_str(),
        status: reason.status().as_u16(),
        detail,
    }
}

/// What is said where none of the backends has an endpoint, and nothing of the rule answers in their place.
fn nobody(route: &Route) -> Option<Refused> {
    let filters = route.rule.filters.as_ref();
    let answers =
        |filter: &Filter| matches!(filter, Filter::Redirect(_) | Filter::DirectResponse(_));
    if filters.is_some_and(|filters| filters.steps.iter().any(answers))
        || !route.rule.recovery.fallbacks.is_empty()
    {
        return None;
    }
    let mut weighty = route.rule.backends.iter().filter(|it| it.weight > 0);
    let has_some =
        |backend: &Backend| !backend.endpoints.is_empty() || !backend.upstream.names.is_empty();
    if weighty.any(has_some) {
        return None;
    }
    let detail = "no backend of the rule has an endpoint that takes requests".to_owned();
    Some(refused(Reason::NoEndpoints, detail))
}

fn routed(route: &Route, met: Option<&Match>) -> Routed {
    let (service, rule) = (&route.service, &route.rule);
    let place = |each: &std::sync::Arc<_>| std::sync::Arc::ptr_eq(each, rule);
    let mut service_policy = config::service(service);
    if let Value::Object(fields) = &mut service_policy {
        // It is about one of them.
        fields.remove("rules");
    }
    Routed {
        service: service.name.to_string(),
        port: route.port,
        route: rule.route.to_string(),
        rule: service.rules.iter().position(place).unwrap_or_default(),
        rules: service.rules.len(),
        matched: met.map_or(Value::Null, config::condition),
        backends: rule
            .backends
            .iter()
            .map(|backend| share(backend, rule.total_weight))
            .collect(),
        policy: config::rule(rule),
        service_policy,
    }
}

fn share(backend: &Backend, total: u32) -> BackendShare {
    let upstream = &backend.upstream;
    let endpoints = backend.endpoints.endpoints().iter();
    BackendShare {
        service: upstream.service.to_string(),
        port: backend.port,
        protocol: config::protocol(backend.protocol),
        weight: backend.weight,
        percent: 100.0 * f64::from(backend.weight) / f64::from(total.max(1)),
        endpoints: endpoints
            .map(|endpoint| EndpointShown {
                address: endpoint.address.to_string(),
                identity: endpoint
                    .identity
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                mtls: endpoint.mtls,
                weight: endpoint.weight.max(1),
            })
            .collect(),
        dns: upstream
            .names
            .iter()
            .map(|name| name.host.to_string())
            .collect(),
    }
}

impl Routed {
    /// Whether the host belongs to no service.
    pub fn is_passed_through(&self) -> bool {
        self.service == PASS_THROUGH
    }
}
