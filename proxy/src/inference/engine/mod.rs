//! What model servers say of their load, and what sidecars tell each other of it.
//!
//! The sidecar beside the model server reads the server's own metrics ([`page`]), and writes what it knows into the head of
//! every response that goes to another sidecar ([`orca`]). Who has heard nothing for a while asks ([`ask`]). Nothing is taken for idle because nothing is known of it.

pub(crate) mod ask;
pub(crate) mod orca;
pub(crate) mod page;
pub(crate) mod scrape;
mod signals;

pub use page::Figures;
pub use signals::{AtModel, Scrape, Signals};

/// A model server whose metrics are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Engine {
    Vllm,
    Sglang,
    Tgi,
    /// With any backend; of TensorRT-LLM's own figures where it has them.
    Triton,
    /// `trtllm-serve`.
    TensorRtLlm,
    LlamaCpp,
}

impl Engine {
    /// In the order of the discriminants.
    pub const ALL: [Engine; 6] = [
        Engine::Vllm,
        Engine::Sglang,
        Engine::Tgi,
        Engine::Triton,
        Engine::TensorRtLlm,
        Engine::LlamaCpp,
    ];

    /// The word used in resources.
    pub const fn as_str(self) -> &'static str {
        match self {
            Engine::Vllm => "vllm",
            Engine::Sglang => "sglang",
            Engine::Tgi => "tgi",
            Engine::Triton => "triton",
            Engine::TensorRtLlm => "tensorrt-llm",
            Engine::LlamaCpp => "llama-cpp",
        }
    }
}
