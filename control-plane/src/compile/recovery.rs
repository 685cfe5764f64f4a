//! What happens to a request besides being sent and retried: hedges and fallbacks, from what users write to what sidecars
//! read.

use outrigger_proto::dataplane::v1 as wire;
use wire::fallback::{Cause, To};

use super::policy::duration;
use crate::model::{
    BackendRef, Continuation, ContinuationMode, Fallback, FallbackCause, Hedge, RouteRule,
};

pub(super) fn hedge(hedge: &Hedge) -> wire::Hedge {
    wire::Hedge {
        delay: duration(hedge.delay),
        max_requests: hedge.max_requests(),
        methods: hedge.methods(),
    }
}

pub(super) fn continuation(continuation: &Continuation) -> wire::Continuation {
    use wire::continuation::Mode;
    wire::Continuation {
        mode: match continuation.mode() {
            ContinuationMode::Auto => Mode::Auto,
            ContinuationMode::Tokens => Mode::Tokens,
            ContinuationMode::Text => Mode::Text,
        }
        .into(),
        max_attempts: continuation.max_attempts(),
        max_bytes: continuation.max_bytes(),
    }
}

/// `backends`: those of the rule; `backend`: how a reference of this rule is resolved.
pub(super) fn fallbacks(
    rule: &RouteRule,
    backends: &[wire::Backend],
    backend: impl Fn(&BackendRef) -> wire::Backend,
) -> Vec<wire::Fallback> {
    // One, where a fallback names a model alone: else it is refused.
    let own = backends.iter().find(|backend| backend.weight > 0);
    let own = own.or(backends.first());
    let fallback = |fallback: &Fallback| {
        let to = match (&fallback.backend_ref, &fallback.direct_response) {
            (Some(reference), _) => To::Backend(backend(&reference.as_backend())),
            (None, Some(response)) => To::Response(wire::StaticResponse {
                status: response.status_code.into(),
                content_type: response.content_type.clone().unwrap_or_default(),
                body: response.body.clone().into_bytes(),
            }),
            (None, None) if fallback.model.is_some() => To::Backend(own?.clone()),
            // Refused by the schema.
            (None, None) => return None,
        };
        Some(wire::Fallback {
            on: fallback
                .on()
                .into_iter()
                .map(|on| cause(on).into())
                .collect(),
            to: Some(to),
            model: fallback.model.clone().unwrap_or_default(),
        })
    };
    rule.fallbacks.iter().filter_map(fallback).collect()
}

fn cause(cause: FallbackCause) -> Cause {
    match cause {
        FallbackCause::NoEndpoints => Cause::NoEndpoints,
        FallbackCause::CircuitOpen => Cause::CircuitOpen,
        FallbackCause::Overload => Cause::Overload,
        FallbackCause::Budget => Cause::Budget,
        FallbackCause::ModelError => Cause::ModelError,
        FallbackCause::ConnectFailed => Cause::ConnectFailed,
        FallbackCause::Reset => Cause::Reset,
        FallbackCause::FirstByteTimeout => Cause::FirstByteTimeout,
        FallbackCause::ServerError => Cause::ServerError,
    }
}

/// Services that the fallbacks of a compiled rule lead to.
pub(super) fn services(rule: &wire::Rule) -> impl Iterator<Item = &str> {
    rule.fallbacks
        .iter()
        .filter_map(|fallback| match &fallback.to {
            Some(To::Backend(backend)) => Some(backend.service.as_str()),
            _ => None,
        })
}
