//! What sidecars know of requests for models. Defaults are filled in here, once.

use outrigger_proto::dataplane::v1 as wire;

use super::policy::duration;
use crate::model::{
    self, CacheSalt, EngineKind, Inference, ModelMatch, ModelMatchType, UnknownModels, Unsalted,
};

pub(super) fn inference(spec: &Inference) -> wire::Inference {
    let unknown = match spec.unknown_models() {
        UnknownModels::Pass => wire::UnknownModels::Pass,
        UnknownModels::Refuse => wire::UnknownModels::Refuse,
    };
    let streams = spec.streams;
    wire::Inference {
        max_body_bytes: spec.max_body_bytes(),
        models: spec.models.iter().map(model).collect(),
        unknown_models: unknown.into(),
        answer_model_list: spec.answer_model_list(),
        provider: spec.provider.clone().unwrap_or_default(),
        streams: (streams != model::TokenStreams::default()).then(|| wire::TokenStreams {
            first_token_timeout: streams.first_token_timeout.and_then(duration),
            token_idle_timeout: streams.token_idle_timeout.and_then(duration),
            keep_alive: streams.keep_alive.and_then(duration),
            request_usage: streams.request_usage(),
        }),
        isolation: isolation(spec.isolation),
        engine: spec.engine.as_ref().map(engine),
        expose_load: spec.expose_load(),
        out_of_band_load: spec.out_of_band_load.map(|it| wire::OutOfBandLoad {
            off: !it.enabled(),
            after: it.after.and_then(duration),
        }),
    }
}

fn engine(engine: &model::Engine) -> wire::Engine {
    let kind = match engine.kind() {
        EngineKind::Auto => wire::EngineKind::Unspecified,
        EngineKind::Vllm => wire::EngineKind::Vllm,
        EngineKind::Sglang => wire::EngineKind::Sglang,
        EngineKind::Tgi => wire::EngineKind::Tgi,
        EngineKind::Triton => wire::EngineKind::Triton,
        EngineKind::TensorRtLlm => wire::EngineKind::TensorrtLlm,
        EngineKind::LlamaCpp => wire::EngineKind::LlamaCpp,
    };
    wire::Engine {
        kind: kind.into(),
        path: engine.path.clone().unwrap_or_default(),
        port: engine.port.map_or(0, u32::from),
        interval: engine.interval.and_then(duration),
    }
}

fn isolation(spec: model::Isolation) -> Option<wire::Isolation> {
    let cache_salt = match spec.cache_salt() {
        CacheSalt::Off => return None,
        CacheSalt::Identity => wire::CacheSalt::Identity,
        CacheSalt::Namespace => wire::CacheSalt::Namespace,
    };
    Some(wire::Isolation {
        cache_salt: cache_salt.into(),
        pass_unsalted: spec.unsalted() == Unsalted::Pass,
    })
}

fn model(model: &model::Model) -> wire::Model {
    wire::Model {
        name: model.name.clone(),
        aliases: model.aliases.clone(),
        served_as: model.served_as.clone().unwrap_or_default(),
        subset: model.subset.clone().into_iter().collect(),
    }
}

pub(super) fn model_match(found: &ModelMatch) -> wire::ModelMatch {
    use wire::model_match::Kind;
    let value = found.value.clone();
    wire::ModelMatch {
        kind: Some(match found.match_type() {
            ModelMatchType::Exact => Kind::Exact(value),
            ModelMatchType::Glob => Kind::Glob(value),
        }),
    }
}
