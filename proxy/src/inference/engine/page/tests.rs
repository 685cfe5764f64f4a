#![allow(clippy::unwrap_used)]
use super::read;
use crate::inference::engine::Engine;

/// What a page says: engine, waiting, running, KV usage.
fn says(page: &str) -> (Engine, Option<u32>, Option<u32>, Option<f32>) {
    let figures = read(page.as_bytes(), None).unwrap();
    (
        figures.engine,
        figures.waiting,
        figures.running,
        figures.kv_usage,
    )
}

#[test]
fn each_server_by_its_own_names() {
    let samples = [
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/vllm"),
            (Engine::Vllm, Some(7), Some(19), Some(0.625)),
        ),
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/sglang"),
            (Engine::Sglang, Some(5), Some(12), Some(0.28)),
        ),
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/tgi"),
            (Engine::Tgi, Some(3), Some(8), None),
        ),
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/triton"),
            (Engine::Triton, Some(6), None, None),
        ),
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/triton-tensorrt-llm"),
            (Engine::Triton, Some(2), Some(4), Some(0.5)),
        ),
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/trtllm-serve"),
            (Engine::TensorRtLlm, Some(1), Some(16), Some(0.75)),
        ),
        (
            include_str!("../../../../../tests/fuzz/seeds/engine_metrics/llama-cpp"),
            (Engine::LlamaCpp, Some(2), Some(4), None),
        ),
    ];
    for (page, expected) in samples {
        assert_eq!(says(page), expected);
        // As a server with other line ends would have it.
        assert_eq!(says(&page.replace('\n', "\r\n")), expected);
        let (engine, ..) = expected;
        for other in Engine::ALL.into_iter().filter(|other| *other != engine) {
            assert_eq!(read(page.as_bytes(), Some(other)), None, "{other:?}");
        }
    }
}

#[test]
fn the_former_names() {
    let page = "vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\n";
    assert_eq!(says(page), (Engine::Vllm, None, None, Some(0.5)));
    let page = "sglang_num_queue_reqs{model_name=\"m\"} 4\n";
    assert_eq!(says(page), (Engine::Sglang, Some(4), None, None));
    let page = "llamacpp:kv_cache_usage_ratio 0.25\n";
    assert_eq!(says(page), (Engine::LlamaCpp, None, None, Some(0.25)));
}

#[test]
fn ranks_of_a_group_say_the_same_and_groups_add_up() {
    let page = concat!(
        "sglang:num_running_reqs{tp_rank=\"0\",dp_rank=\"0\",priority=\"\"} 6\n",
        "sglang:num_running_reqs{tp_rank=\"1\",dp_rank=\"0\",priority=\"\"} 6\n",
        "sglang:num_running_reqs{tp_rank=\"0\",dp_rank=\"0\",priority=\"9\"} 2\n",
        "sglang:num_running_reqs{tp_rank=\"2\",dp_rank=\"1\",priority=\"\"} 5\n",
    );
    assert_eq!(says(page), (Engine::Sglang, None, Some(11), None));
}

#[test]
fn what_is_not_said_is_unknown() {
    for page in [
        "",
        "# HELP vllm:num_requests_waiting Requests\n# TYPE vllm:num_requests_waiting gauge\n",
        "process_cpu_seconds_total 4\n",
        "vllm:num_requests_waiting\n",
        "vllm:num_requests_waiting NaN\n",
        "vllm:num_requests_waiting -1\n",
        "vllm:num_requests_waiting +Inf\n",
        "vllm:num_requests_waiting{model_name=\"m\" 3\n",
        "vllm:num_requests_waiting{model_name=\"}\" 3\n",
        "vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 3\n",
        " vllm:num_requests_waiting 3\n",
        "nv_trt_llm_request_metrics{request_type=\"max\"} 64\n",
        "nv_trt_llm_request_metrics 64\n",
        "{\"loads\": []}",
    ] {
        assert_eq!(read(page.as_bytes(), None), None, "{page}");
    }
}

#[test]
fn labels_and_values_as_the_format_allows_them() {
    let lines = [
        "vllm:num_requests_waiting{model_name=\"a}b\\\"} 9\",engine=\"0\"} 3",
        "vllm:num_requests_waiting{ engine = \"0\" , } 3.0",
        "vllm:num_requests_waiting\t3e0 1700000000000",
        "vllm:num_requests_waiting 3",
    ];
    for line in lines {
        assert_eq!(says(line), (Engine::Vllm, Some(3), None, None), "{line}");
    }
    let huge = "vllm:num_requests_waiting 1e300\nvllm:kv_cache_usage_perc 1.5\n";
    assert_eq!(says(huge), (Engine::Vllm, Some(u32::MAX), None, Some(1.0)));
}

#[test]
fn a_label_behind_one_with_quotes_in_it() {
    let page =
        "nv_trt_llm_request_metrics{model=\"a\\\\\",x=\"=\\\"\",request_type=\"waiting\"} 2\n";
    assert_eq!(says(page), (Engine::Triton, Some(2), None, None));
}
