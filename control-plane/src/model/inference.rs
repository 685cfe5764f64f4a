//! `Service.spec.inference`: what sidecars know of requests for models.

use serde::{Deserialize, Serialize};

use super::meta::is_default;
use super::{Duration, Labels};

/// Switches it on for a service; every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inference {
    /// Bytes of a request's body that are read to understand it. Default [`Inference::MAX_BODY_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// The models that it serves. Empty: whatever is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    /// What becomes of requests for models that are not listed. Default pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_models: Option<UnknownModels>,
    /// The caller's sidecar answers `GET /v1/models` itself. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_model_list: Option<bool>,
    /// For metrics, `gen_ai.provider.name`: `vllm`, `openai` and so on. Unset: left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What is done with streamed tokens, besides observing them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub streams: TokenStreams,
    /// How callers are kept apart in what the model server caches.
    #[serde(default, skip_serializing_if = "is_default")]
    pub isolation: Isolation,
    /// The sidecar beside the model server reads its metrics. Unset: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Load reports stay in the responses that callers get. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose_load: Option<bool>,
    /// Callers' sidecars ask endpoints of whose load they have heard nothing. Default: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_band_load: Option<OutOfBandLoad>,
}

impl Inference {
    /// Default of `maxBodyBytes`.
    pub const MAX_BODY_BYTES: u64 = 1 << 20;

    /// The value in effect.
    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes.unwrap_or(Self::MAX_BODY_BYTES)
    }

    /// The model of this name or alias, patterns left out.
    pub fn exact_model(&self, name: &str) -> Option<&Model> {
        let mut models = self.models.iter();
        let named = models.find(|model| model.name == name);
        let alias = |model: &&Model| model.aliases.iter().any(|alias| alias == name);
        named.or_else(|| self.models.iter().find(alias))
    }

    /// The value in effect.
    pub fn unknown_models(&self) -> UnknownModels {
        self.unknown_models.unwrap_or_default()
    }

    /// The value in effect.
    pub fn answer_model_list(&self) -> bool {
        self.answer_model_list.unwrap_or(false)
    }

    /// The value in effect.
    pub fn expose_load(&self) -> bool {
        self.expose_load.unwrap_or(false)
    }
}

/// A model server whose metrics are read; every field may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Engine {
    /// Default auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<EngineKind>,
    /// Where its metrics are. Unset: where the kind has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// On the application's address. Unset: 8002 for Triton, else the application's own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// From one look to the next. Default [`Engine::INTERVAL`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
}

impl Engine {
    /// Default of `interval`.
    pub const INTERVAL: Duration = Duration::from_millis(150);

    /// The value in effect.
    pub fn kind(&self) -> EngineKind {
        self.kind.unwrap_or_default()
    }
}

/// Load reports beside requests, with policies that choose by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutOfBandLoad {
    /// Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// An endpoint is asked when nothing was heard of its load for as long. Default 1 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
}

impl OutOfBandLoad {
    /// The value in effect.
    pub fn enabled(self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The value in effect.
    pub fn after(self) -> Duration {
        self.after.unwrap_or(Duration::from_secs(1))
    }
}

/// Which model server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Found out by what the metrics are called.
    #[default]
    Auto,
    Vllm,
    Sglang,
    Tgi,
    Triton,
    /// `trtllm-serve`.
    #[serde(rename = "tensorrt-llm")]
    TensorRtLlm,
    LlamaCpp,
}

impl EngineKind {
    pub const ALL: [EngineKind; 7] = [
        EngineKind::Auto,
        EngineKind::Vllm,
        EngineKind::Sglang,
        EngineKind::Tgi,
        EngineKind::Triton,
        EngineKind::TensorRtLlm,
        EngineKind::LlamaCpp,
    ];

    /// The word used in resources.
    pub const fn as_str(self) -> &'static str {
        match self {
            EngineKind::Auto => "auto",
            EngineKind::Vllm => "vllm",
            EngineKind::Sglang => "sglang",
            EngineKind::Tgi => "tgi",
            EngineKind::Triton => "triton",
            EngineKind::TensorRtLlm => "tensorrt-llm",
            EngineKind::LlamaCpp => "llama-cpp",
        }
    }
}

/// A model, and where it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// As requests name it. Unique in the service.
    pub name: String,
    /// Further names in requests. A `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What the model server calls it. Unset: `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_as: Option<String>,
    /// Only endpoints that carry all of these labels. Empty: all.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub subset: Labels,
}

/// What becomes of requests for models that are not listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownModels {
    /// They are passed on as they are.
    #[default]
    Pass,
    /// 404, in the shape of the API.
    Refuse,
}

/// What the caller's sidecar does with streamed tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenStreams {
    /// From when a try is sent to its first token. Unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_timeout: Option<Duration>,
    /// Between two tokens. Unset: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_idle_timeout: Option<Duration>,
    /// While nothing comes, a comment is sent to the client as often as this. Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<Duration>,
    /// Streams are asked for their usage, which clients that did not ask for it do not see. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_usage: Option<bool>,
}

impl TokenStreams {
    /// The value in effect.
    pub fn request_usage(self) -> bool {
        self.request_usage.unwrap_or(false)
    }
}

/// What the sidecar beside the model does so that no caller finds out what another one has asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// Who shares a cache. Default off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_salt: Option<CacheSalt>,
    /// What becomes of requests that cannot be given a salt. Default refuse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsalted: Option<Unsalted>,
}

impl Isolation {
    /// The value in effect.
    pub fn cache_salt(self) -> CacheSalt {
        self.cache_salt.unwrap_or_default()
    }

    /// The value in effect.
    pub fn unsalted(self) -> Unsalted {
        self.unsalted.unwrap_or_default()
    }
}

/// Who shares what the model server caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheSalt {
    /// All callers; their own `cache_salt` counts.
    #[default]
    Off,
    /// Callers with the same SPIFFE id.
    Identity,
    /// Callers of the same namespace.
    Namespace,
}

/// What becomes of requests that cannot be given a salt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsalted {
    /// 400 `not-isolated`.
    #[default]
    Refuse,
    /// They are passed on without one.
    Pass,
}
