//! `Explain`: what a request would meet, computed by the sidecars' own routing.

mod hints;
mod levels;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use outrigger_proto::api::v1 as api;
use outrigger_proxy::explain::{self, Explanation, Routed};

use super::convert::to_struct;
use crate::ca::SpiffeId;
use crate::compile::Compiled;
use crate::push::first_delta;
use crate::store::Store;

/// More headers than this no sidecar takes.
const MAX_HEADERS: usize = 100;

/// A request that was understood.
pub(super) struct Question {
    identity: SpiffeId,
    head: Parts,
    /// Empty: it names none.
    model: String,
}

impl Question {
    /// Reads the request; `Err` says what was found and what is allowed.
    pub(super) fn parse(
        request: &api::ExplainRequest,
        trust_domain: &str,
    ) -> Result<Question, String> {
        Ok(Question {
            identity: identity(&request.identity, trust_domain)?,
            head: head(request)?,
            model: request.model.clone(),
        })
    }
}

fn identity(text: &str, trust_domain: &str) -> Result<SpiffeId, String> {
    let wanted =
        "allowed are spiffe://<trust domain>/ns/<namespace>/sa/<account> and <namespace>/<account>";
    let parsed = match text.split_once('/') {
        Some((namespace, account)) if !text.contains(':') => {
            SpiffeId::new(trust_domain, namespace, account)
        }
        _ => text.parse(),
    };
    let id = parsed.map_err(|error| format!("identity: {error}; {wanted}"))?;
    if id.trust_domain() != trust_domain {
        return Err(format!(
            "identity: {id} is of another trust domain than this mesh's, {trust_domain:?}"
        ));
    }
    Ok(id)
}

fn head(request: &api::ExplainRequest) -> Result<Parts, String> {
    let method = match request.method.as_str() {
        "" => Method::GET,
        text => Method::from_bytes(text.as_bytes())
            .map_err(|_| format!("method: {text:?} is not an HTTP method"))?,
    };
    let url = match request.url.contains("://") {
        true => request.url.clone(),
        false => format!("http://{}", request.url),
    };
    let uri: Uri = url.parse().map_err(|error| {
        format!(
            "url: {:?}: {error}; allowed is http://host[:port]/path",
            request.url
        )
    })?;
    if request.headers.len() > MAX_HEADERS {
        return Err(format!("headers: more than {MAX_HEADERS}"));
    }
    let mut head = Request::new(()).into_parts().0;
    head.method = method;
    head.uri = uri;
    for header in &request.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_| format!("headers: {:?} is not the name of a header", header.name))?;
        let value = HeaderValue::from_str(&header.value).map_err(|_| {
            format!("headers: the value of {name} has characters that none may have")
        })?;
        head.headers.append(name, value);
    }
    if head.headers.contains_key(HOST) {
        // As a client that has the sidecar's address as its base URL: Host says where it goes.
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map(Uri::from).unwrap_or_default();
    }
    Ok(head)
}

/// Answers it from what sidecars are sent now.
pub(super) fn answer(
    question: Question,
    state: &Compiled,
    store: &dyn Store,
    trust_domain: &str,
) -> api::ExplainResponse {
    let Question {
        identity,
        head,
        model,
    } = question;
    let host = explain::host_resource(&head);
    let delta = first_delta(state, identity.namespace(), host.iter().cloned().collect());
    let explanation = explain::explain(delta, trust_domain, head, &model);
    let hints = match (&explanation.route, &host) {
        (None, Some(host)) if explanation.passed_over.is_empty() => {
            let authority = host.strip_prefix("host/").unwrap_or(host);
            hints::for_host(authority, identity.namespace(), store)
        }
        _ => Vec::new(),
    };
    let timeouts = explanation
        .route
        .as_ref()
        .map_or_else(Vec::new, |route| levels::timeouts(route, store));
    response(state.version, explanation, timeouts, hints)
}

fn response(
    version: u64,
    explanation: Explanation,
    timeouts: Vec<api::ExplainedTimeout>,
    hints: Vec<String>,
) -> api::ExplainResponse {
    let place = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
    let mut response = api::ExplainResponse {
        config_version: version,
        refused: explanation.refused.map(|refused| api::ExplainedRefusal {
            reason: refused.reason.to_owned(),
            status: refused.status.into(),
            detail: refused.detail,
        }),
        passed_over: explanation
            .passed_over
            .into_iter()
            .map(|rule| api::PassedOverRule {
                rule: place(rule.rule),
                route: rule.route,
                unmet: rule.unmet.into_iter().map(str::to_owned).collect(),
            })
            .collect(),
        rejections: explanation.rejections,
        timeouts,
        hints,
        ..api::ExplainResponse::default()
    };
    if let Some(route) = explanation.route {
        response.backends = backends(&route);
        response.rule = place(route.rule);
        response.rules = u32::try_from(route.rules).unwrap_or(u32::MAX);
        response.port = route.port.into();
        response.matched = to_struct(&route.matched);
        response.policy = to_struct(&route.policy);
        response.service_policy = to_struct(&route.service_policy);
        response.service = route.service;
        response.route = route.route;
    }
    response
}

fn backends(route: &Routed) -> Vec<api::ExplainedBackend> {
    let backend = |share: &explain::BackendShare| api::ExplainedBackend {
        service: share.service.clone(),
        port: share.port.into(),
        protocol: share.protocol.to_owned(),
        weight: share.weight,
        percent: share.percent,
        endpoints: share
            .endpoints
            .iter()
            .map(|endpoint| api::ExplainedEndpoint {
                address: endpoint.address.clone(),
                identity: endpoint.identity.clone(),
                mtls: endpoint.mtls,
                weight: endpoint.weight,
            })
            .collect(),
        dns: share.dns.clone(),
    };
    route.backends.iter().map(backend).collect()
}

#[cfg(test)]
mod tests;
