//! Hedges and fallbacks in words.

use outrigger_control_plane::model::{Continuation, Fallback, Hedge};

use crate::commands::get::{local, subset, word};

/// `after 50ms without an answer, up to 2 requests at a time` and the methods.
pub fn hedge(hedge: &Hedge) -> String {
    format!(
        "after {} without an answer, up to {} requests at a time; methods {}",
        hedge.delay,
        hedge.max_requests(),
        hedge.methods().join(", ")
    )
}

/// `broken token streams, by token ids or text (auto), up to 2 times, of answers up to 262144 bytes`.
pub fn continuation(continuation: &Continuation) -> String {
    format!(
        "broken token streams by {}, up to {} times, answers up to {} bytes",
        word(&continuation.mode()),
        continuation.max_attempts(),
        continuation.max_bytes()
    )
}

/// One line for each fallback: where it leads, and on what.
pub fn fallbacks(fallbacks: &[Fallback], own_namespace: &str) -> String {
    let line = |fallback: &Fallback| {
        let to = match (&fallback.backend_ref, &fallback.direct_response) {
            (Some(to), _) => {
                let name = local(to.namespace.as_deref(), &to.name, own_namespace);
                let port = to.port.map_or_else(String::new, |port| format!(":{port}"));
                let labels = match subset(&to.subset) {
                    labels if labels.is_empty() => labels,
                    labels => format!(" where {labels}"),
                };
                format!("service {name}{port}{labels}")
            }
            (None, Some(response)) => format!("a response {}", response.status_code),
            (None, None) if fallback.model.is_some() => "the same backend".to_owned(),
            (None, None) => "nothing".to_owned(),
        };
        let model = fallback.model.as_ref();
        let model = model.map_or_else(String::new, |model| format!(" with model {model}"));
        let causes: Vec<String> = fallback.on().iter().map(word).collect();
        format!("{to}{model} on {}", causes.join(", "))
    };
    fallbacks.iter().map(line).collect::<Vec<_>>().join("\n")
}
