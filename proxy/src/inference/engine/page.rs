//! Reads model servers' metrics: Prometheus' text format, in which each server has its own names.
//!
//! | | waiting | running | KV usage |
//! |---|---|---|---|
//! | vLLM | `vllm:num_requests_waiting` | `vllm:num_requests_running` | `vllm:kv_cache_usage_perc`, formerly `vllm:gpu_cache_usage_perc` |
//! | SGLang (`sglang:` or `sglang_`) | `num_queue_reqs` | `num_running_reqs` | `token_usage` |
//! | TGI | `tgi_queue_size` | `tgi_batch_current_size` | |
//! | Triton | `nv_inference_pending_request_count` | | |
//! | Triton with TensorRT-LLM | `nv_trt_llm_request_metrics{request_type="waiting"}` | `…{request_type="scheduled"}` | `nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}` |
//! | trtllm-serve | `trtllm_num_requests_waiting` | `trtllm_num_requests_running` | `trtllm_kv_cache_utilization` |
//! | llama.cpp | `llamacpp:requests_deferred` | `llamacpp:requests_processing` | formerly `llamacpp:kv_cache_usage_ratio` |
//!
//! Requests are summed over a server's series (one for each data-parallel engine, or for each model), of the KV usage the
//! highest counts. A series that is not there is unknown.

use std::collections::BTreeMap;

use super::Engine;

/// What a server's metrics say. `None`: they do not say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    pub engine: Engine,
    pub waiting: Option<u32>,
    pub running: Option<u32>,
    /// 0 to 1.
    pub kv_usage: Option<f32>,
}

/// Reads a page of metrics. `declared`: which server it is; else the first one of [`Engine::ALL`] that the page has figures
/// of. `None`: the page has none.
pub(crate) fn read(page: &[u8], declared: Option<Engine>) -> Option<Figures> {
    let mut sums: [Sums<'_>; Engine::ALL.len()] = Default::default();
    for line in page.split(|byte| *byte == b'\n') {
        // Most of a page are comments and the buckets of histograms, of names that begin with the same letters.
        if !matches!(line.first(), Some(b'v' | b's' | b't' | b'n' | b'l')) {
            continue;
        }
        let name_end = line
            .iter()
            .position(|byte| matches!(byte, b'{' | b' ' | b'\t'));
        let Some((name, rest)) = name_end.and_then(|end| line.split_at_checked(end)) else {
            continue;
        };
        let Some((engine, signal)) = meaning(name) else {
            continue;
        };
        if let Some((labels, value)) = series(rest) {
            sums[engine as usize].add(signal, name, labels, value);
        }
    }
    let mut engines = Engine::ALL.into_iter();
    let found = |engine: Engine| sums[engine as usize].figures(engine);
    match declared {
        Some(engine) => found(engine),
        None => engines.find_map(found),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Waiting,
    Running,
    KvUsage,
    /// Triton's own, which counts where a backend does not say how many wait.
    Pending,
    /// TensorRT-LLM's in Triton: the label says which.
    RequestType,
    BlockType,
}

fn meaning(name: &[u8]) -> Option<(Engine, Signal)> {
    let name = std::str::from_utf8(name).ok()?;
    if let Some(rest) = name.strip_prefix("vllm:") {
        let signal = match rest {
            "num_requests_waiting" => Signal::Waiting,
            "num_requests_running" => Signal::Running,
            "kv_cache_usage_perc" | "gpu_cache_usage_perc" => Signal::KvUsage,
            _ => return None,
        };
        return Some((Engine::Vllm, signal));
    }
    if let Some(rest) = name.strip_prefix("sglang") {
        let signal = match rest.strip_prefix([':', '_'])? {
            "num_queue_reqs" => Signal::Waiting,
            "num_running_reqs" => Signal::Running,
            "token_usage" => Signal::KvUsage,
            _ => return None,
        };
        return Some((Engine::Sglang, signal));
    }
    let found = match name {
        "tgi_queue_size" => (Engine::Tgi, Signal::Waiting),
        "tgi_batch_current_size" => (Engine::Tgi, Signal::Running),
        "nv_inference_pending_request_count" => (Engine::Triton, Signal::Pending),
        "nv_trt_llm_request_metrics" => (Engine::Triton, Signal::RequestType),
        "nv_trt_llm_kv_cache_block_metrics" => (Engine::Triton, Signal::BlockType),
        "trtllm_num_requests_waiting" => (Engine::TensorRtLlm, Signal::Waiting),
        "trtllm_num_requests_running" => (Engine::TensorRtLlm, Signal::Running),
        "trtllm_kv_cache_utilization" => (Engine::TensorRtLlm, Signal::KvUsage),
        "llamacpp:requests_deferred" => (Engine::LlamaCpp, Signal::Waiting),
        "llamacpp:requests_processing" => (Engine::LlamaCpp, Signal::Running),
        "llamacpp:kv_cache_usage_ratio" => (Engine::LlamaCpp, Signal::KvUsage),
        _ => return None,
    };
    Some(found)
}

/// Labels (without braces) and value of a line, from behind its name. `None`: it is not well-formed, or no number that
/// a count could be.
fn series(rest: &[u8]) -> Option<(&[u8], f64)> {
    let (labels, rest) = match rest.strip_prefix(b"{") {
        Some(inner) => {
            let end = labels_end(inner)?;
            (&inner[..end], &inner[end + 1..])
        }
        None => (&[][..], rest),
    };
    // Behind the value there may be a time.
    let value = std::str::from_utf8(rest)
        .ok()?
        .split_ascii_whitespace()
        .next()?;
    let value: f64 = value.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some((labels, value))
}

/// Where the closing brace is: one within quotes belongs to a value.
fn labels_end(inner: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    inner.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' => return !quoted,
            _ => {}
        }
        false
    })
}

/// The value of a label as it is written. `None`: the series does not have it.
fn label<'a>(labels: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let mut rest = labels;
    loop {
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let name = rest[..equals].trim_ascii();
        let name = name.strip_prefix(b",").unwrap_or(name).trim_ascii();
        let value = rest[equals + 1..].trim_ascii_start().strip_prefix(b"\"")?;
        let mut escaped = false;
        let end = value.iter().position(|byte| match byte {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' => {
                escaped = true;
                false
            }
            byte => *byte == b'"',
        })?;
        if name == wanted.as_bytes() {
            return Some(&value[..end]);
        }
        rest = &value[end + 1..];
    }
}

/// What the series of one engine add up to.
#[derive(Debug, Default)]
struct Sums<'a> {
    waiting: Sum<'a>,
    running: Sum<'a>,
    pending: Sum<'a>,
    kv_usage: Option<f64>,
}

/// Series of one data-parallel engine stand for the same requests and those of different ones for different requests.
#[derive(Debug, Default)]
struct Sum<'a>(BTreeMap<(&'a [u8], &'a [u8]), f64>);

impl<'a> Sum<'a> {
    fn add(&mut self, key: (&'a [u8], &'a [u8]), value: f64) {
        let sum = self.0.entry(key).or_insert(0.0);
        *sum = sum.max(value);
    }

    /// `None`: there is no series.
    fn get(&self) -> Option<u32> {
        // Casts of floats saturate.
        (!self.0.is_empty()).then(|| self.0.values().sum::<f64>().round() as u32)
    }
}

impl<'a> Sums<'a> {
    fn add(&mut self, signal: Signal, name: &'a [u8], labels: &'a [u8], value: f64) {
        let signal = match signal {
            Signal::RequestType => match label(labels, "request_type") {
                Some(b"waiting") => Signal::Waiting,
                Some(b"scheduled") => Signal::Running,
                _ => return,
            },
            Signal::BlockType => match label(labels, "kv_cache_block_type") {
                Some(b"fraction") => Signal::KvUsage,
                _ => return,
            },
            signal => signal,
        };
        let sum = match signal {
            Signal::KvUsage => {
                let value = value.min(1.0);
                self.kv_usage = Some(self.kv_usage.map_or(value, |other| other.max(value)));
                return;
            }
            Signal::Running => &mut self.running,
            Signal::Pending => &mut self.pending,
            _ => &mut self.waiting,
        };
        let key = if name.starts_with(b"sglang") {
            // Each tensor-parallel rank may say the same of its group, and each priority a part of the whole.
            (&b""[..], label(labels, "dp_rank").unwrap_or_default())
        } else {
            (name, labels)
        };
        sum.add(key, value);
    }

    fn figures(&self, engine: Engine) -> Option<Figures> {
        let figures = Figures {
            engine,
            waiting: self.waiting.get().or_else(|| self.pending.get()),
            running: self.running.get(),
            kv_usage: self.kv_usage.map(|usage| usage as f32),
        };
        let says =
            figures.waiting.is_some() || figures.running.is_some() || figures.kv_usage.is_some();
        says.then_some(figures)
    }
}

/// For the fuzzer: whatever comes, figures are within their bounds, and declaring what was detected changes nothing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(figures) = read(bytes, None) else {
        for engine in Engine::ALL {
            assert!(read(bytes, Some(engine)).is_none());
        }
        return;
    };
    assert_eq!(read(bytes, Some(figures.engine)), Some(figures));
    if let Some(usage) = figures.kv_usage {
        assert!((0.0..=1.0).contains(&usage));
    }
}

#[cfg(test)]
mod tests;
