//! Which interface of a model a request is for.

use http::{HeaderMap, Method};

use crate::http::headers;

/// An interface, by what its requests and answers look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Api {
    /// OpenAI `/v1/chat/completions`.
    Chat,
    /// OpenAI `/v1/completions`.
    Completions,
    /// OpenAI `/v1/embeddings`.
    Embeddings,
    /// OpenAI `/v1/responses`.
    Responses,
    /// Anthropic `/v1/messages`.
    Messages,
    /// OpenAI `/v1/audio/…`: a form, or JSON.
    Audio,
    /// KServe v2 and Triton, `/v2/models/<name>/…`.
    Kserve,
    /// The same over gRPC.
    KserveGrpc,
    /// `GET /v1/models`.
    ListModels,
    /// Others below `/v1/` that have a model in a JSON body: reranking, images, moderation.
    Other,
}

impl Api {
    /// In the order of the discriminants.
    pub const ALL: [Api; 10] = [
        Api::Chat,
        Api::Completions,
        Api::Embeddings,
        Api::Responses,
        Api::Messages,
        Api::Audio,
        Api::Kserve,
        Api::KserveGrpc,
        Api::ListModels,
        Api::Other,
    ];

    /// `gen_ai.operation.name`: OpenTelemetry's words where it has one.
    pub const fn operation(self) -> &'static str {
        match self {
            Api::Chat | Api::Responses | Api::Messages => "chat",
            Api::Completions => "text_completion",
            Api::Embeddings => "embeddings",
            Api::Audio => "audio",
            Api::Kserve | Api::KserveGrpc => "infer",
            Api::ListModels => "list_models",
            Api::Other => "other",
        }
    }

    /// By the request's head. A prefix in front of the path does not matter: gateways and Azure have them. `None`: it is none
    /// of a model's.
    pub fn of(method: &Method, path: &str, headers: &HeaderMap) -> Option<Api> {
        if headers::is_grpc(headers) {
            return path
                .starts_with("/inference.GRPCInferenceService/")
                .then_some(Api::KserveGrpc);
        }
        let path = path.trim_end_matches('/');
        if *method == Method::GET {
            return path.ends_with("/v1/models").then_some(Api::ListModels);
        }
        if *method != Method::POST {
            return None;
        }
        const TAILS: [(&str, Api); 8] = [
            ("/chat/completions", Api::Chat),
            ("/completions", Api::Completions),
            ("/embeddings", Api::Embeddings),
            ("/responses", Api::Responses),
            ("/messages", Api::Messages),
            ("/audio/transcriptions", Api::Audio),
            ("/audio/translations", Api::Audio),
            ("/audio/speech", Api::Audio),
        ];
        let known = TAILS.iter().find(|(tail, _)| path.ends_with(tail));
        if let Some((_, api)) = known {
            return Some(*api);
        }
        if kserve_model(path).is_some() {
            return Some(Api::Kserve);
        }
        path.contains("/v1/").then_some(Api::Other)
    }

    /// Whether an answer may be a stream of tokens.
    pub const fn can_stream(self) -> bool {
        matches!(
            self,
            Api::Chat
                | Api::Completions
                | Api::Responses
                | Api::Messages
                | Api::Kserve
                | Api::Other
        )
    }
}

/// The model in a path of KServe v2 or Triton: `/v2/models/<name>[/versions/<version>]/(infer|generate|generate_stream)`.
pub(super) fn kserve_model(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/v2/models/")?;
    let (name, action) = rest.split_once('/')?;
    let action = match action.strip_prefix("versions/") {
        Some(rest) => rest.split_once('/')?.1,
        None => action,
    };
    let is_known = matches!(action, "infer" | "generate" | "generate_stream");
    (is_known && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests;
