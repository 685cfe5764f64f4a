//! What is known of models.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use outrigger_proto::dataplane::v1 as wire;

use super::{Reason, known, list, timeout};
use crate::inference::Engine;
use crate::policy::{
    EngineSource, Inference, IsolatedBy, Isolation, Model, ModelMatch, TokenStreams,
};

/// The contract's default.
const MAX_BODY_BYTES: usize = 1 << 20;
/// The contract's default.
const ENGINE_INTERVAL: Duration = Duration::from_millis(150);
/// More often it would cost the model server more than it tells.
const LEAST_ENGINE_INTERVAL: Duration = Duration::from_millis(20);
/// The contract's default.
const ASK_LOAD_AFTER: Duration = Duration::from_secs(1);
/// More often it would cost more than it tells.
const LEAST_ASK_LOAD_AFTER: Duration = Duration::from_millis(100);
/// More is a mistake, or an attack on our memory: every request may have as much held.
const MOST_BODY_BYTES: u64 = 64 << 20;
/// Names are looked through for each request.
const MOST_MODELS: usize = 1024;

pub(super) fn inference(wire: Option<&wire::Inference>) -> Result<Option<Arc<Inference>>, Reason> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    let within = |problem: Reason| format!("inference.{problem}");
    convert(wire).map(Arc::new).map(Some).map_err(within)
}

fn convert(wire: &wire::Inference) -> Result<Inference, Reason> {
    let max_body_bytes = match wire.max_body_bytes {
        0 => MAX_BODY_BYTES,
        bytes if bytes > MOST_BODY_BYTES => {
            return Err(format!(
                "max_body_bytes: {bytes} is above {MOST_BODY_BYTES}"
            ));
        }
        bytes => usize::try_from(bytes)
            .map_err(|_| format!("max_body_bytes: {bytes} is more than memory can have"))?,
    };
    if wire.models.len() > MOST_MODELS {
        let count = wire.models.len();
        return Err(format!("models: {count} are more than {MOST_MODELS}"));
    }
    let refuse_unknown = match known::<wire::UnknownModels>("unknown_models", wire.unknown_models)?
    {
        wire::UnknownModels::Unspecified | wire::UnknownModels::Pass => false,
        wire::UnknownModels::Refuse => true,
    };
    Ok(Inference {
        max_body_bytes,
        models: list("models", &wire.models, model)?,
        refuse_unknown,
        answer_model_list: wire.answer_model_list,
        provider: wire.provider.as_str().into(),
        streams: wire
            .streams
            .as_ref()
            .map(streams)
            .transpose()?
            .unwrap_or_default(),
        isolation: wire
            .isolation
            .as_ref()
            .map(isolation)
            .transpose()?
            .flatten(),
        engine: wire.engine.as_ref().map(engine).transpose()?,
        expose_load: wire.expose_load,
        ask_load_after: ask_load_after(wire.out_of_band_load.as_ref())?,
    })
}

fn engine(wire: &wire::Engine) -> Result<EngineSource, Reason> {
    use wire::EngineKind as Kind;
    let engine = match known::<Kind>("engine.kind", wire.kind)? {
        Kind::Unspecified => None,
        Kind::Vllm => Some(Engine::Vllm),
        Kind::Sglang => Some(Engine::Sglang),
        Kind::Tgi => Some(Engine::Tgi),
        Kind::Triton => Some(Engine::Triton),
        Kind::TensorrtLlm => Some(Engine::TensorRtLlm),
        Kind::LlamaCpp => Some(Engine::LlamaCpp),
    };
    let path = wire.path.as_str();
    if !path.is_empty() && (!path.starts_with('/') || path.parse::<PathAndQuery>().is_err()) {
        return Err(format!("engine.path: {path:?} is not a path"));
    }
    let port = u16::try_from(wire.port)
        .map_err(|_| format!("engine.port: {} is not a port", wire.port))?;
    let interval = timeout("engine.interval", wire.interval)?.unwrap_or(ENGINE_INTERVAL);
    Ok(EngineSource {
        engine,
        path: (!path.is_empty()).then(|| path.into()),
        port: (port != 0).then_some(port),
        interval: interval.max(LEAST_ENGINE_INTERVAL),
    })
}

fn ask_load_after(wire: Option<&wire::OutOfBandLoad>) -> Result<Option<Duration>, Reason> {
    let Some(wire) = wire else {
        return Ok(Some(ASK_LOAD_AFTER));
    };
    if wire.off {
        return Ok(None);
    }
    let after = timeout("out_of_band_load.after", wire.after)?.unwrap_or(ASK_LOAD_AFTER);
    Ok(Some(after.max(LEAST_ASK_LOAD_AFTER)))
}

fn isolation(wire: &wire::Isolation) -> Result<Option<Isolation>, Reason> {
    let by = match known::<wire::CacheSalt>("isolation.cache_salt", wire.cache_salt)? {
        wire::CacheSalt::Unspecified => return Ok(None),
        wire::CacheSalt::Identity => IsolatedBy::Identity,
        wire::CacheSalt::Namespace => IsolatedBy::Namespace,
    };
    Ok(Some(Isolation {
        by,
        pass_unsalted: wire.pass_unsalted,
    }))
}

fn model(wire: &wire::Model) -> Result<Model, Reason> {
    if wire.name.is_empty() {
        return Err("name: empty, no request names it".into());
    }
    Ok(Model {
        name: wire.name.as_str().into(),
        aliases: wire
            .aliases
            .iter()
            .map(|alias| ModelMatch::pattern(alias))
            .collect(),
        served_as: (!wire.served_as.is_empty()).then(|| wire.served_as.as_str().into()),
        subset: wire.subset.clone().into_iter().collect(),
    })
}

fn streams(wire: &wire::TokenStreams) -> Result<TokenStreams, Reason> {
    Ok(TokenStreams {
        first_token: timeout("streams.first_token_timeout", wire.first_token_timeout)?,
        token_idle: timeout("streams.token_idle_timeout", wire.token_idle_timeout)?,
        keep_alive: timeout("streams.keep_alive", wire.keep_alive)?,
        request_usage: wire.request_usage,
    })
}

pub(super) fn model_match(wire: &wire::ModelMatch) -> Result<ModelMatch, Reason> {
    use wire::model_match::Kind;
    match &wire.kind {
        Some(Kind::Exact(name)) => Ok(ModelMatch::Exact(name.as_str().into())),
        Some(Kind::Glob(pattern)) => Ok(ModelMatch::Glob(pattern.as_str().into())),
        None => Err("model: neither exact nor glob".into()),
    }
}
