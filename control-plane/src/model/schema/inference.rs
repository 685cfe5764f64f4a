//! The table of `Service.spec.inference`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::checks;
use super::common::{LABELS, TIMEOUT};
use super::report::Report;
use super::shape::{Field, List, Object, Shape};
use crate::model::{Duration, EngineKind};

/// A body that is longer is no prompt; all of it is held in memory for a while.
const MOST_BODY_BYTES: u64 = 64 << 20;

/// More often, the metrics cost the model server more than they tell; more seldom, they say what was.
const INTERVAL: Shape = Shape::Duration(Duration::from_millis(20), Duration::from_secs(60));

static ALIASES: List = List {
    item: Shape::Text(checks::model_pattern),
    min: 0,
    max: 64,
    unique: &[""],
};
static MODEL: Object = Object::new(&[
    Field::required("name", Shape::Text(checks::model_name)),
    Field::optional("aliases", Shape::List(&ALIASES)),
    Field::optional("servedAs", Shape::Text(checks::model_name)),
    Field::optional("subset", Shape::Labels(&LABELS)),
]);
static MODELS: List = List {
    item: Shape::Object(&MODEL),
    min: 0,
    max: 256,
    unique: &["name"],
};
static STREAMS: Object = Object::new(&[
    Field::optional("firstTokenTimeout", TIMEOUT),
    Field::optional("tokenIdleTimeout", TIMEOUT),
    Field::optional("keepAlive", TIMEOUT),
    Field::optional("requestUsage", Shape::Bool),
]);
static ISOLATION: Object = Object::new(&[
    Field::optional("cacheSalt", Shape::OneOf(&["off", "identity", "namespace"])),
    Field::optional("unsalted", Shape::OneOf(&["refuse", "pass"])),
]);
static ENGINE: Object = Object::new(&[
    Field::optional("kind", Shape::OneOf(&ENGINES)),
    Field::optional("path", Shape::Text(checks::metrics_path)),
    Field::optional("port", Shape::Integer(1, 65_535)),
    Field::optional("interval", INTERVAL),
]);
/// Reports are forgotten after 10 s.
static OUT_OF_BAND_LOAD: Object = Object::new(&[
    Field::optional("enabled", Shape::Bool),
    Field::optional(
        "after",
        Shape::Duration(Duration::from_millis(100), Duration::from_secs(10)),
    ),
]);
static ENGINES: [&str; EngineKind::ALL.len()] = [
    "auto",
    "vllm",
    "sglang",
    "tgi",
    "triton",
    "tensorrt-llm",
    "llama-cpp",
];

pub(super) static INFERENCE: Object = Object::with_rule(
    &[
        Field::optional("maxBodyBytes", Shape::Integer(1, MOST_BODY_BYTES)),
        Field::optional("models", Shape::List(&MODELS)),
        Field::optional("unknownModels", Shape::OneOf(&["pass", "refuse"])),
        Field::optional("answerModelList", Shape::Bool),
        Field::optional("provider", Shape::Text(checks::label_value)),
        Field::optional("streams", Shape::Object(&STREAMS)),
        Field::optional("isolation", Shape::Object(&ISOLATION)),
        Field::optional("engine", Shape::Object(&ENGINE)),
        Field::optional("exposeLoad", Shape::Bool),
        Field::optional("outOfBandLoad", Shape::Object(&OUT_OF_BAND_LOAD)),
    ],
    check_names,
);

/// Otherwise the second one would never be meant.
fn check_names(members: &Map<String, Value>, report: &mut Report) {
    let Some(Value::Array(models)) = members.get("models") else {
        let refuses = members.get("unknownModels").and_then(Value::as_str) == Some("refuse");
        if refuses {
            report.problem_at(
                "unknownModels",
                "refuses every request: no models are listed; add models",
            );
        }
        return;
    };
    let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, model) in models.iter().enumerate() {
        let name = model.get("name").and_then(Value::as_str);
        let aliases = model.get("aliases").and_then(Value::as_array);
        let aliases = aliases.into_iter().flatten().filter_map(Value::as_str);
        for name in name.into_iter().chain(aliases) {
            let owner = *owners.entry(name).or_insert(index);
            if owner != index {
                let message = format!(
                    "\"{name}\" means models[{owner}] already, and models[{index}] too; a name means one model"
                );
                report.problem_at("models", message);
            }
        }
    }
}
