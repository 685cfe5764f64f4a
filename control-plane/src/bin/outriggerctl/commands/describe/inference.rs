//! What sidecars know of requests for models, in words.

use outrigger_control_plane::model::{
    CacheSalt, Engine, EngineKind, Inference, Model, UnknownModels, Unsalted,
};

use crate::commands::get::subset;

/// The lines about `spec.inference` of a service.
pub fn inference(spec: &Inference) -> String {
    let mut lines = vec![format!(
        "requests are understood, bodies up to {} bytes",
        spec.max_body_bytes()
    )];
    lines.extend(spec.models.iter().map(model));
    if spec.unknown_models() == UnknownModels::Refuse {
        lines.push("other models: 404".to_owned());
    }
    if spec.answer_model_list() {
        lines.push("GET /v1/models is answered by the caller's sidecar".to_owned());
    }
    let streams = &spec.streams;
    let clocks = [
        ("firstToken", streams.first_token_timeout),
        ("tokenIdle", streams.token_idle_timeout),
        ("keepAlive", streams.keep_alive),
    ];
    let clocks: Vec<String> = clocks
        .into_iter()
        .filter_map(|(name, after)| Some(format!("{name} {}", after?)))
        .collect();
    if !clocks.is_empty() {
        lines.push(format!("streams: {}", clocks.join(", ")));
    }
    if streams.request_usage() {
        lines.push("streams are asked for their usage".to_owned());
    }
    let by = match spec.isolation.cache_salt() {
        CacheSalt::Off => None,
        CacheSalt::Identity => Some("identities"),
        CacheSalt::Namespace => Some("namespaces"),
    };
    if let Some(by) = by {
        let others = match spec.isolation.unsalted() {
            Unsalted::Refuse => "refused",
            Unsalted::Pass => "passed on",
        };
        lines.push(format!(
            "prompt caches: {by} kept apart by cache_salt, requests without one are {others}"
        ));
    }
    if let Some(engine) = &spec.engine {
        lines.push(signals(engine));
    }
    if spec.expose_load() {
        lines.push("callers see load reports".to_owned());
    }
    if let Some(asked) = spec.out_of_band_load {
        lines.push(match asked.enabled() {
            true => format!("endpoints are asked for their load after {}", asked.after()),
            false => "endpoints are not asked for their load".to_owned(),
        });
    }
    lines.join("\n")
}

fn signals(engine: &Engine) -> String {
    let mut line = match engine.kind() {
        EngineKind::Auto => "engine: found out by its metrics".to_owned(),
        kind => format!("engine: {}", kind.as_str()),
    };
    if let Some(path) = &engine.path {
        line.push_str(&format!(", metrics on {path}"));
    }
    if let Some(port) = engine.port {
        line.push_str(&format!(", port {port}"));
    }
    let interval = engine.interval.unwrap_or(Engine::INTERVAL);
    line.push_str(&format!(", read every {interval}"));
    line
}

fn model(model: &Model) -> String {
    let mut line = format!("model {}", model.name);
    if !model.aliases.is_empty() {
        line.push_str(&format!(", also {}", model.aliases.join(", ")));
    }
    if let Some(name) = &model.served_as {
        line.push_str(&format!(", sent as {name}"));
    }
    if !model.subset.is_empty() {
        line.push_str(&format!(", on endpoints with {}", subset(&model.subset)));
    }
    line
}
