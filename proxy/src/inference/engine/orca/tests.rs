#![allow(clippy::unwrap_used)]
use super::{MAX_LENGTH, parse, render};
use crate::balance::LoadReport;

#[test]
fn both_forms_with_and_without_their_word() {
    let expected = LoadReport {
        waiting: Some(3),
        running: None,
        kv_usage: Some(0.42),
        prompt_tokens: None,
    };
    for value in [
        "TEXT named_metrics.kv_cache_usage_perc=0.42, named_metrics.num_requests_waiting=3",
        "named_metrics.kv_cache_usage_perc=0.42,named_metrics.num_requests_waiting=3.0",
        "TEXT cpu_utilization=0.1,named_metrics.num_requests_waiting=3 ,named_metrics.kv_cache_usage_perc = 0.42,rps_fractional=1",
        "JSON {\"named_metrics\": {\"kv_cache_usage_perc\": 0.42, \"num_requests_waiting\": 3.0}}",
        "{\"cpu_utilization\": 1, \"named_metrics\": {\"other\": 1, \"kv_cache_usage_perc\": 0.42, \"num_requests_waiting\": 3}}",
    ] {
        assert_eq!(parse(value.as_bytes()), Some(expected), "{value}");
    }
}

#[test]
fn what_says_nothing_is_unknown() {
    let long = format!(
        "TEXT {}named_metrics.num_requests_waiting=3",
        "a=1,".repeat(MAX_LENGTH / 4)
    );
    for value in [
        "",
        "TEXT",
        "TEXT cpu_utilization=0.3",
        "TEXT named_metrics.num_requests_waiting",
        "TEXT named_metrics.num_requests_waiting=",
        "TEXT named_metrics.num_requests_waiting=many",
        "TEXT named_metrics.num_requests_waiting=-1",
        "TEXT named_metrics.num_requests_waiting=NaN",
        "TEXT named_metrics.kv_cache_usage_perc=1.5",
        "JSON",
        "JSON [",
        "JSON {\"named_metrics\": []}",
        "JSON {\"named_metrics\": {\"num_requests_waiting\": \"3\"}}",
        "{}",
        &long,
    ] {
        assert_eq!(parse(value.as_bytes()), None, "{value}");
    }
    assert_eq!(parse(b"\xff"), None);
}

#[test]
fn what_is_written_is_read() {
    let report = LoadReport {
        waiting: Some(0),
        running: Some(17),
        kv_usage: Some(0.4219),
        prompt_tokens: Some(6200),
    };
    let value = render(&report).unwrap();
    assert_eq!(
        value,
        "TEXT named_metrics.num_requests_waiting=0, named_metrics.num_requests_running=17, \
         named_metrics.kv_cache_usage_perc=0.422, named_metrics.num_prompt_tokens_waiting=6200"
    );
    let again = parse(value.as_bytes()).unwrap();
    let rounded = LoadReport {
        kv_usage: Some(0.422),
        ..report
    };
    assert_eq!(again, rounded);
    assert_eq!(render(&LoadReport::default()), None);
}
