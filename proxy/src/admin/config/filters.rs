//! Filters of rules.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{millis, string};
use crate::policy::filters::{
    Abort, AllowList, Cors, FaultInjection, Filter, Filters, HeaderModifier, Origin, PathModifier,
    Share,
};

/// In the order in which they are applied.
pub(super) fn describe(filters: &Filters) -> Vec<Value> {
    filters.steps.iter().map(step).collect()
}

fn step(step: &Filter) -> Value {
    let what = match step {
        Filter::RequestHeaders(modifier) | Filter::ResponseHeaders(modifier) => headers(modifier),
        Filter::Rewrite(rewrite) => json!({
            "hostname": rewrite.hostname.as_ref().map(|host| host.as_str()),
            "path": rewrite.path.as_ref().map(path),
        }),
        Filter::Redirect(redirect) => json!({
            "scheme": redirect.scheme.map(|scheme| scheme.as_str()),
            "hostname": redirect.hostname,
            "port": redirect.port,
            "path": redirect.path.as_ref().map(path),
            "status": redirect.status.as_u16(),
        }),
        Filter::Mirror(mirror) => json!({
            "backend": super::backend(&mirror.backend),
            "share": share(mirror.share),
            "limit_ms": millis(mirror.limit),
        }),
        Filter::Cors(policy) => cors(policy),
        Filter::DirectResponse(answer) => json!({
            "status": answer.status.as_u16(),
            "content_type": answer.content_type.as_ref().map(text),
            "body_bytes": answer.body.len(),
        }),
        Filter::Fault(fault) => faults(fault),
    };
    json!({ "type": step.kind(), "policy": what })
}

fn headers(modifier: &HeaderModifier) -> Value {
    let pairs = |pairs: &[(HeaderName, HeaderValue)]| {
        let pair = |(name, value): &(HeaderName, HeaderValue)| json!({ "name": name.as_str(), "value": text(value) });
        pairs.iter().map(pair).collect::<Vec<_>>()
    };
    json!({
        "set": pairs(&modifier.set),
        "add": pairs(&modifier.add),
        "remove": modifier.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>(),
    })
}

fn path(modifier: &PathModifier) -> Value {
    match modifier {
        PathModifier::Full(path) => json!({ "full": path }),
        PathModifier::Prefix {
            prefix,
            replacement,
        } => json!({ "prefix": prefix, "replacement": replacement }),
    }
}

fn cors(policy: &Cors) -> Value {
    let origin = |origin: &Origin| match origin {
        Origin::Any => "*".to_owned(),
        Origin::Exact(exact) => exact.to_string(),
        Origin::Below { scheme, suffix } => format!("{scheme}*{suffix}"),
    };
    let list = |list: &AllowList| match list {
        AllowList::Simple => Value::Null,
        AllowList::Any => "*".into(),
        AllowList::These(names) => text(names).into(),
    };
    json!({
        "allow_origins": policy.origins.iter().map(origin).collect::<Vec<_>>(),
        "allow_credentials": policy.credentials,
        "allow_methods": list(&policy.methods),
        "allow_headers": list(&policy.headers),
        "expose_headers": policy.expose.as_ref().map(text),
        "max_age_seconds": text(&policy.max_age),
    })
}

fn faults(fault: &FaultInjection) -> Value {
    let conditions: BTreeMap<&str, Value> = fault
        .headers
        .iter()
        .map(|header| (header.name.as_str(), string(&header.value)))
        .collect();
    let abort = |(abort, part): (Abort, Share)| match abort {
        Abort::Http(status) => json!({ "status": status.as_u16(), "share": share(part) }),
        Abort::Grpc(code) => json!({ "grpc_status": code, "share": share(part) }),
    };
    json!({
        "headers": conditions,
        "delay": fault.delay.map(|(pause, part)| json!({ "duration_ms": millis(pause), "share": share(part) })),
        "abort": fault.abort.map(abort),
        "truncate": fault
            .truncate
            .map(|(bytes, part)| json!({ "after_bytes": bytes, "share": share(part) })),
    })
}

fn share(share: Share) -> String {
    format!("{}/{}", share.numerator, share.denominator)
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
