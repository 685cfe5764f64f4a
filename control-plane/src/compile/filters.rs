//! Filters of rules, from what users write to what sidecars read.

use outrigger_proto::dataplane::v1 as wire;
use wire::fault_injection::{Abort, Delay, Truncate, abort};
use wire::filter::Kind;

use super::policy::duration;
use crate::model::{self, BackendRef, Duration, FaultInjection, RouteFilter, RouteRule};

/// What a response has whose body is given and whose type is not.
const TEXT: &str = "text/plain; charset=utf-8";

/// The filters of a rule for one of its matches, whose prefix is what `ReplacePrefixMatch` replaces. `backend`: how a reference of
/// this rule is resolved.
pub(super) fn compile(
    rule: &RouteRule,
    prefix: &str,
    backend: impl Fn(&BackendRef) -> wire::Backend,
) -> Vec<wire::Filter> {
    let filter = |filter: &RouteFilter| {
        // The schema has checked that exactly one is set.
        let kind = if let Some(it) = &filter.request_header_modifier {
            Kind::RequestHeaders(headers(it))
        } else if let Some(it) = &filter.response_header_modifier {
            Kind::ResponseHeaders(headers(it))
        } else if let Some(it) = &filter.url_rewrite {
            Kind::UrlRewrite(wire::UrlRewrite {
                hostname: it.hostname.clone().unwrap_or_default(),
                path: it.path.as_ref().map(|path| modifier(path, prefix)),
            })
        } else if let Some(it) = &filter.request_redirect {
            Kind::Redirect(wire::Redirect {
                scheme: it.scheme.clone().unwrap_or_default(),
                hostname: it.hostname.clone().unwrap_or_default(),
                port: it.port.map_or(0, u32::from),
                path: it.path.as_ref().map(|path| modifier(path, prefix)),
                status: it.status_code().into(),
            })
        } else if let Some(it) = &filter.request_mirror {
            Kind::Mirror(wire::Mirror {
                backend: Some(backend(&it.backend_ref.as_backend())),
                fraction: Some(fraction(it.share())),
            })
        } else if let Some(it) = &filter.cors {
            Kind::Cors(cors(it))
        } else if let Some(it) = &filter.direct_response {
            Kind::DirectResponse(direct(it))
        } else if let Some(it) = &filter.fault_injection {
            Kind::FaultInjection(faults(it))
        } else {
            return None;
        };
        Some(wire::Filter { kind: Some(kind) })
    };
    rule.filters.iter().filter_map(filter).collect()
}

/// Services that copies of a compiled rule's requests go to.
pub(super) fn services(rule: &wire::Rule) -> impl Iterator<Item = &str> {
    rule.filters.iter().filter_map(|filter| match &filter.kind {
        Some(Kind::Mirror(mirror)) => Some(mirror.backend.as_ref()?.service.as_str()),
        _ => None,
    })
}

fn headers(modifier: &model::HeaderModifier) -> wire::HeaderModifier {
    let pairs = |headers: &[model::Header]| {
        let pair = |header: &model::Header| wire::Header {
            name: header.name.to_ascii_lowercase(),
            value: header.value.clone(),
        };
        headers.iter().map(pair).collect()
    };
    let remove = modifier.remove.iter();
    wire::HeaderModifier {
        set: pairs(&modifier.set),
        add: pairs(&modifier.add),
        remove: remove.map(|name| name.to_ascii_lowercase()).collect(),
    }
}

fn modifier(path: &model::PathModifier, prefix: &str) -> wire::PathModifier {
    use wire::path_modifier::Kind;
    let kind = match path.modifier_type {
        model::PathModifierType::ReplaceFullPath => {
            Kind::FullPath(path.replace_full_path.clone().unwrap_or_default())
        }
        model::PathModifierType::ReplacePrefixMatch => Kind::Prefix(wire::PrefixReplacement {
            prefix: prefix.to_owned(),
            replacement: path.replace_prefix_match.clone().unwrap_or_default(),
        }),
    };
    wire::PathModifier { kind: Some(kind) }
}

fn fraction(fraction: model::Fraction) -> wire::Fraction {
    wire::Fraction {
        numerator: fraction.numerator,
        denominator: fraction.denominator(),
    }
}

fn cors(cors: &model::Cors) -> wire::Cors {
    wire::Cors {
        allow_origins: cors.allow_origins.clone(),
        allow_credentials: cors.allow_credentials.unwrap_or(false),
        allow_methods: cors.allow_methods.clone(),
        allow_headers: cors.allow_headers.clone(),
        expose_headers: cors.expose_headers.clone(),
        max_age: cors
            .max_age
            .and_then(|seconds| duration(Duration::from_secs(seconds.into()))),
    }
}

fn direct(response: &model::DirectResponse) -> wire::DirectResponse {
    let body = response.body.clone().unwrap_or_default();
    let default = if body.is_empty() { "" } else { TEXT };
    wire::DirectResponse {
        status: response.status_code.into(),
        content_type: response
            .content_type
            .clone()
            .unwrap_or_else(|| default.to_owned()),
        body: body.into_bytes(),
    }
}

fn faults(faults: &FaultInjection) -> wire::FaultInjection {
    let abort = |it: &model::FaultAbort| Abort {
        status: match (it.status_code, it.grpc_status) {
            (_, Some(code)) => Some(abort::Status::Grpc(code.number())),
            (Some(status), None) => Some(abort::Status::Http(status.into())),
            (None, None) => None,
        },
        fraction: Some(fraction(it.share())),
    };
    wire::FaultInjection {
        delay: faults.delay.map(|delay| Delay {
            duration: duration(delay.duration),
            fraction: Some(fraction(delay.share())),
        }),
        abort: faults.abort.as_ref().map(abort),
        truncate: faults.truncate.map(|truncate| Truncate {
            after_bytes: truncate.after_bytes,
            fraction: Some(fraction(truncate.share())),
        }),
        headers: faults
            .headers
            .iter()
            .map(super::rules::header_match)
            .collect(),
    }
}
