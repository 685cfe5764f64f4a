//! Hedges and fallbacks.

use http::HeaderValue;
use outrigger_proto::dataplane::v1 as wire;
use wire::fallback::{Cause as WireCause, To};

use super::filters;
use super::service::{backend, method};
use super::{BackendSpec, Reason, known, list, timeout};
use crate::policy::filters::DirectResponse;
use crate::policy::{Cause, Causes, ContinuationMode, FallbackModel, Hedge};

/// [`Recovery`](crate::policy::Recovery), with names in place of backends.
#[derive(Debug, Default)]
pub(in crate::control) struct RecoverySpec {
    pub hedge: Option<Hedge>,
    pub continuation: Option<ContinuationSpec>,
    pub fallbacks: Vec<FallbackSpec>,
    pub expose_attempts: bool,
}

/// [`Continuation`](crate::policy::Continuation), without its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct ContinuationSpec {
    pub mode: ContinuationMode,
    pub max_attempts: u32,
    pub max_bytes: usize,
}

#[derive(Debug)]
pub(in crate::control) struct FallbackSpec {
    pub on: Causes,
    pub to: FallbackToSpec,
    pub model: Option<FallbackModel>,
}

#[derive(Debug)]
pub(in crate::control) enum FallbackToSpec {
    Backend(BackendSpec),
    Response(DirectResponse),
}

/// Requests under way at the same time, where it is not said.
const MAX_REQUESTS: u32 = 2;

pub(super) fn recovery(rule: &wire::Rule) -> Result<RecoverySpec, Reason> {
    let hedge = rule
        .hedge
        .as_ref()
        .map(|wire| hedge(wire).map_err(|problem| format!("hedge.{problem}")));
    let continuation = rule
        .continuation
        .as_ref()
        .map(|wire| continuation(wire).map_err(|problem| format!("continuation.{problem}")));
    Ok(RecoverySpec {
        hedge: hedge.transpose()?,
        continuation: continuation.transpose()?,
        fallbacks: list("fallbacks", &rule.fallbacks, fallback)?,
        expose_attempts: rule.expose_attempts,
    })
}

fn hedge(wire: &wire::Hedge) -> Result<Hedge, Reason> {
    let delay = timeout("delay", wire.delay)?.ok_or("delay: unset; it has no default")?;
    let max_requests = match wire.max_requests {
        0 => MAX_REQUESTS,
        1 => return Err("max_requests: 1 is the request itself; at least 2 are wanted".into()),
        number => number,
    };
    Ok(Hedge {
        delay,
        max_requests,
        methods: list("methods", &wire.methods, |text| method("", text))?,
    })
}

/// More is a mistake, or an attack on our memory: every stream of the rule may have as much held.
const MOST_KEPT: u32 = 64 << 20;

fn continuation(wire: &wire::Continuation) -> Result<ContinuationSpec, Reason> {
    use wire::continuation::Mode;
    let mode = match known::<Mode>("mode", wire.mode)? {
        Mode::Unspecified => return Err("mode: unset".into()),
        Mode::Auto => ContinuationMode::Auto,
        Mode::Tokens => ContinuationMode::Tokens,
        Mode::Text => ContinuationMode::Text,
    };
    if wire.max_attempts == 0 {
        return Err("max_attempts: 0; it would never be used".into());
    }
    if wire.max_bytes == 0 || wire.max_bytes > MOST_KEPT {
        let bytes = wire.max_bytes;
        return Err(format!("max_bytes: {bytes} is not from 1 to {MOST_KEPT}"));
    }
    Ok(ContinuationSpec {
        mode,
        max_attempts: wire.max_attempts,
        max_bytes: wire.max_bytes as usize,
    })
}

fn fallback(wire: &wire::Fallback) -> Result<FallbackSpec, Reason> {
    let on: Vec<Cause> = list("on", &wire.on, |number| cause(*number))?;
    if on.is_empty() {
        return Err("on: empty; it would never be used".into());
    }
    let to = match &wire.to {
        Some(To::Backend(wire)) => {
            FallbackToSpec::Backend(backend(wire).map_err(|problem| format!("backend.{problem}"))?)
        }
        Some(To::Response(wire)) => FallbackToSpec::Response(
            response(wire).map_err(|problem| format!("response.{problem}"))?,
        ),
        None => return Err("to: neither a backend nor a response".into()),
    };
    let model = model(&wire.model).map_err(|problem| format!("model: {problem}"))?;
    if model.is_some() && matches!(to, FallbackToSpec::Response(_)) {
        return Err("model: a response asks for none".into());
    }
    Ok(FallbackSpec {
        on: on.into_iter().collect(),
        to,
        model,
    })
}

fn model(name: &str) -> Result<Option<FallbackModel>, Reason> {
    if name.is_empty() {
        return Ok(None);
    }
    let mark = HeaderValue::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} has characters that no header can have"))?;
    Ok(Some(FallbackModel {
        name: name.into(),
        mark,
    }))
}

fn cause(number: i32) -> Result<Cause, Reason> {
    match known::<WireCause>("", number)? {
        WireCause::Unspecified => Err(": unset".into()),
        WireCause::NoEndpoints => Ok(Cause::NoEndpoints),
        WireCause::CircuitOpen => Ok(Cause::CircuitOpen),
        WireCause::Overload => Ok(Cause::Overload),
        WireCause::ConnectFailed => Ok(Cause::ConnectFailed),
        WireCause::Reset => Ok(Cause::Reset),
        WireCause::FirstByteTimeout => Ok(Cause::FirstByteTimeout),
        WireCause::ServerError => Ok(Cause::ServerError),
        WireCause::Budget => Ok(Cause::Budget),
        WireCause::ModelError => Ok(Cause::ModelError),
    }
}

fn response(wire: &wire::StaticResponse) -> Result<DirectResponse, Reason> {
    let mut response = filters::direct(&wire::DirectResponse {
        status: wire.status,
        content_type: wire.content_type.clone(),
        // A fallback's schema lets a body stand where there can be none; it is not sent.
        body: match wire.status {
            204 | 304 => Vec::new(),
            _ => wire.body.clone(),
        },
    })?;
    if response.content_type.is_none() && !response.body.is_empty() {
        response.content_type = Some(HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    Ok(response)
}
