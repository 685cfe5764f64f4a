//! What is known of models.

use serde_json::{Value, json};

use super::millis;
use crate::policy::{EngineSource, Inference, Model};

pub(super) fn describe(inference: &Inference) -> Value {
    let streams = &inference.streams;
    json!({
        "max_body_bytes": inference.max_body_bytes,
        "models": inference.models.iter().map(model).collect::<Vec<_>>(),
        "unknown_models": if inference.refuse_unknown { "refuse" } else { "pass" },
        "answer_model_list": inference.answer_model_list,
        "provider": &*inference.provider,
        "first_token_timeout_ms": streams.first_token.map(millis),
        "token_idle_timeout_ms": streams.token_idle.map(millis),
        "keep_alive_ms": streams.keep_alive.map(millis),
        "request_usage": streams.request_usage,
        "cache_salt": inference.isolation.map(|isolation| isolation.by.as_str()),
        "unsalted": inference.isolation.map(|isolation| {
            if isolation.pass_unsalted { "pass" } else { "refuse" }
        }),
        "engine": inference.engine.as_ref().map(engine),
        "expose_load": inference.expose_load,
        "ask_load_after_ms": inference.ask_load_after.map(millis),
    })
}

fn engine(source: &EngineSource) -> Value {
    json!({
        "kind": source.engine.map_or("auto", |engine| engine.as_str()),
        "path": source.path.as_deref(),
        "port": source.port,
        "interval_ms": millis(source.interval),
    })
}

fn model(model: &Model) -> Value {
    json!({
        "name": &*model.name,
        "aliases": model.aliases.iter().map(|alias| alias.value()).collect::<Vec<_>>(),
        "served_as": model.server_name(),
        "subset": model.subset,
    })
}
