//! A model server that behaves like an inference engine, for demonstrations and tests of the mesh.
//!
//! A request goes through [`server`] (connections), [`api`] (OpenAI's HTTP API), [`engine`] (batch, queue, KV cache,
//! time) and [`tokens`] (the text itself). [`metrics`] has vLLM's names; [`faults`] makes things go wrong on demand.

pub mod api;
pub mod engine;
pub mod faults;
pub mod metrics;
pub mod server;
pub mod tokens;
