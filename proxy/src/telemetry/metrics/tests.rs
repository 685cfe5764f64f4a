#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::error::Reason;
use crate::policy::Snapshot;
use crate::telemetry::{Outcome, testing};

/// Value of a sample, by everything in front of it.
fn value(page: &str, sample: &str) -> Option<f64> {
    page.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

fn outcome(status: u16, millis: u64) -> Outcome {
    Outcome {
        status: Some(StatusCode::from_u16(status).unwrap()),
        duration: Duration::from_millis(millis),
        first_byte: Some(Duration::from_millis(millis / 2)),
        request_bytes: 100,
        response_bytes: 2000,
        ..Outcome::default()
    }
}

fn finish(handles: &RequestMetrics, outcome: Outcome) {
    handles.begin();
    handles.finish(&outcome);
}

#[test]
fn requests_are_counted_by_code_and_reason() {
    let shared = testing::shared(Snapshot::default());
    let peer = "spiffe://outrigger.local/ns/default/sa/caller";
    let handles = shared
        .metrics
        .request(Direction::Inbound, "default/chat", "", peer);
    (0..3).for_each(|_| finish(&handles, outcome(200, 20)));
    let timeout = Outcome {
        reason: Some(Reason::RequestTimeout),
        ..outcome(504, 1000)
    };
    finish(&handles, timeout);
    // A stream that stood still: it had its 200.
    finish(
        &handles,
        Outcome {
            reason: Some(Reason::StreamIdleTimeout),
            ..outcome(200, 400_000)
        },
    );
    // TCP has no status; a client that left before the head has none either.
    finish(
        &handles,
        Outcome {
            status: None,
            first_byte: None,
            ..outcome(200, 1)
        },
    );
    finish(&handles, outcome(599, 1));
    finish(&handles, outcome(700, 1));
    handles.begin();

    let page = shared.metrics.render(&shared);
    let count = |code: &str, reason: &str| {
        value(
            &page,
            &format!(
                r#"outrigger_requests_total{{direction="inbound",service="default/chat",route="",peer="{peer}",code="{code}",reason="{reason}"}}"#
            ),
        )
    };
    assert_eq!(count("2xx", ""), Some(3.0));
    assert_eq!(count("5xx", "request-timeout"), Some(1.0));
    assert_eq!(count("2xx", "stream-idle-timeout"), Some(1.0));
    assert_eq!(count("5xx", ""), Some(1.0));
    assert_eq!(count("none", ""), Some(2.0));
    assert_eq!(count("4xx", ""), None, "only what occurred");
    let of_service = |name: &str| {
        value(
            &page,
            &format!(r#"{name}{{direction="inbound",service="default/chat"}}"#),
        )
    };
    assert_eq!(of_service("outrigger_requests_in_flight"), Some(1.0));
    assert_eq!(of_service("outrigger_request_bytes_total"), Some(800.0));
    assert_eq!(of_service("outrigger_response_bytes_total"), Some(16_000.0));
}

#[test]
fn every_reason_has_its_own_counter() {
    let shared = testing::shared(Snapshot::default());
    let handles = shared
        .metrics
        .request(Direction::Outbound, "default/chat", "", "");
    for reason in Reason::ALL {
        finish(
            &handles,
            Outcome {
                status: Some(reason.status()),
                reason: Some(reason),
                ..Outcome::default()
            },
        );
    }
    let page = shared.metrics.render(&shared);
    for reason in Reason::ALL {
        let class = reason.status().as_u16() / 100;
        let sample = format!(r#"code="{class}xx",reason="{}"}} 1"#, reason.as_str());
        assert_eq!(page.matches(&sample).count(), 1, "{sample}");
    }
    // 499 is the client's doing; a 404 of ours is a failure all the same.
    assert_eq!(handles.totals().failures, Reason::ALL.len() as u64 - 1);
}

#[test]
fn histograms_are_cumulative_and_complete() {
    let shared = testing::shared(Snapshot::default());
    // Two peers, one histogram.
    for peer in ["a", "b"] {
        let handles =
            shared
                .metrics
                .request(Direction::Outbound, "default/chat", "default/canary", peer);
        for millis in [0, 1, 2, 3, 40, 299_999, 300_000, 300_001] {
            finish(&handles, outcome(200, millis));
        }
    }
    let page = shared.metrics.render(&shared);
    let labels = r#"direction="outbound",service="default/chat",route="default/canary""#;
    let bucket = |le: &str| {
        value(
            &page,
            &format!(r#"outrigger_request_duration_seconds_bucket{{{labels},le="{le}"}}"#),
        )
    };
    assert_eq!(bucket("0.001"), Some(4.0), "a bound is part of its bucket");
    assert_eq!(bucket("0.005"), Some(8.0));
    assert_eq!(bucket("0.025"), Some(8.0));
    assert_eq!(bucket("0.05"), Some(10.0));
    assert_eq!(bucket("120"), Some(10.0));
    assert_eq!(bucket("300"), Some(14.0));
    assert_eq!(bucket("+Inf"), Some(16.0));
    assert_eq!(
        value(
            &page,
            &format!("outrigger_request_duration_seconds_count{{{labels}}}")
        ),
        Some(16.0)
    );
    let sum = value(
        &page,
        &format!("outrigger_request_duration_seconds_sum{{{labels}}}"),
    )
    .unwrap();
    assert!((sum - 1800.092).abs() < 1e-6, "{sum}");
    assert_eq!(
        value(
            &page,
            &format!("outrigger_time_to_first_byte_seconds_count{{{labels}}}")
        ),
        Some(16.0)
    );
}

#[test]
fn the_same_labels_are_the_same_handles() {
    let metrics = Metrics::new();
    let get = |route: &str| {
        metrics.request(
            Direction::Outbound,
            "default/chat",
            route,
            "default/chat-v2",
        )
    };
    assert!(Arc::ptr_eq(&get("default/canary"), &get("default/canary")));
    assert!(!Arc::ptr_eq(&get("default/canary"), &get("")));
}

#[test]
fn peers_beyond_the_bound_are_one() {
    let metrics = Metrics::new();
    let get = |peer: usize, service: &str| {
        metrics.request(
            Direction::Inbound,
            service,
            "",
            &format!("spiffe://outrigger.local/ns/default/sa/c{peer}"),
        )
    };
    let first = get(0, "default/chat");
    (0..MAX_PEERS + 50).for_each(|peer| drop(get(peer, "default/chat")));
    let late = get(MAX_PEERS + 7, "default/chat");
    assert_eq!(&**late.peer(), OTHER);
    assert!(Arc::ptr_eq(&late, &get(MAX_PEERS + 8, "default/chat")));
    assert!(
        Arc::ptr_eq(&first, &get(0, "default/chat")),
        "who was known stays known"
    );
    assert_eq!(
        &**get(0, "default/other-service").peer(),
        "spiffe://outrigger.local/ns/default/sa/c0"
    );
    assert_eq!(
        metrics
            .request(Direction::Inbound, "default/chat", "", "")
            .peer()
            .len(),
        0,
        "no peer is no new peer"
    );
    assert!(metrics.all_requests().len() <= MAX_PEERS + 3);
    let backend = metrics.request(Direction::Outbound, "default/chat", "", "default/late");
    assert_eq!(
        &**backend.peer(),
        "default/late",
        "backends come from the configuration"
    );
}

#[test]
fn kinds_beyond_the_bound_are_one() {
    let metrics = Metrics::new();
    (0..MAX_KINDS + 100).for_each(|n| {
        drop(metrics.request(
            Direction::Outbound,
            "default/chat",
            &format!("default/r{n}"),
            "",
        ))
    });
    let late = metrics.request(Direction::Outbound, "default/late", "default/late", "");
    assert_eq!((&**late.service(), &**late.peer()), (OTHER, OTHER));
    assert!(metrics.all_requests().len() <= MAX_KINDS + Direction::ALL.len());
}

#[test]
fn connections_and_handshakes() {
    let shared = testing::shared(Snapshot::default());
    let metrics = &shared.metrics;
    let first = metrics.connection(Direction::Inbound, Side::Downstream, Wire::Http2);
    let second = metrics.connection(Direction::Inbound, Side::Downstream, Wire::Tcp);
    let _third = metrics.connection(Direction::Inbound, Side::Upstream, Wire::Http1);
    drop(first);
    metrics.handshake(Direction::Inbound, Ok(()));
    for failure in HandshakeFailure::ALL {
        metrics.handshake(Direction::Outbound, Err(failure));
    }
    let page = metrics.render(&shared);
    let open = |side: &str| {
        value(
            &page,
            &format!(r#"outrigger_connections_open{{direction="inbound",side="{side}"}}"#),
        )
    };
    assert_eq!(
        (open("downstream"), open("upstream")),
        (Some(1.0), Some(1.0))
    );
    drop(second);
    assert_eq!(
        metrics
            .connections
            .open(Direction::Inbound, Side::Downstream),
        0
    );
    let total =
        r#"outrigger_connections_total{direction="inbound",side="downstream",protocol="h2"}"#;
    assert_eq!(value(&page, total), Some(1.0));
    let handshakes = |direction: &str, result: &str| {
        value(
            &page,
            &format!(
                r#"outrigger_tls_handshakes_total{{direction="{direction}",result="{result}"}}"#
            ),
        )
    };
    assert_eq!(handshakes("inbound", "ok"), Some(1.0));
    assert_eq!(
        handshakes("outbound", "ok"),
        Some(0.0),
        "there from the start, so that a rate can be had of it"
    );
    for failure in HandshakeFailure::ALL {
        assert_eq!(handshakes("outbound", failure.as_str()), Some(1.0));
    }
}

#[test]
fn retries_are_summed_over_backends() {
    let shared = testing::shared(Snapshot::default());
    for backend in ["default/a", "default/b"] {
        let handles = shared.metrics.request(
            Direction::Outbound,
            "default/chat",
            "default/canary",
            backend,
        );
        RetryCause::ALL
            .into_iter()
            .for_each(|cause| handles.retries.made(cause));
        RetryRefusal::ALL
            .into_iter()
            .for_each(|why| handles.retries.refused(why));
    }
    let page = shared.metrics.render(&shared);
    let labels = r#"service="default/chat",route="default/canary""#;
    for cause in RetryCause::ALL {
        let sample = format!(
            r#"outrigger_retries_total{{{labels},cause="{}"}}"#,
            cause.as_str()
        );
        assert_eq!(value(&page, &sample), Some(2.0), "{sample}");
    }
    for why in RetryRefusal::ALL {
        let sample = format!(
            r#"outrigger_retries_refused_total{{{labels},why="{}"}}"#,
            why.as_str()
        );
        assert_eq!(value(&page, &sample), Some(2.0), "{sample}");
    }
}

#[test]
fn what_the_control_side_sets() {
    let shared = testing::shared(Snapshot {
        version: 42,
        ..Snapshot::default()
    });
    let metrics = &shared.metrics;
    metrics.config_updated();
    metrics.config_rejected("service");
    metrics.config_rejected("something-new");
    metrics.control_plane_connected(true);
    metrics.certificate_renewed(true);
    metrics.certificate_renewed(false);
    metrics.certificate_renewed(false);
    let page = metrics.render(&shared);
    for (sample, expected) in [
        ("outrigger_config_version", 42.0),
        ("outrigger_config_updates_total", 1.0),
        (r#"outrigger_config_rejections_total{kind="service"}"#, 1.0),
        (r#"outrigger_config_rejections_total{kind="other"}"#, 1.0),
        (r#"outrigger_config_rejections_total{kind="mesh"}"#, 0.0),
        ("outrigger_control_plane_connected", 1.0),
        (r#"outrigger_certificate_renewals_total{result="ok"}"#, 1.0),
        (
            r#"outrigger_certificate_renewals_total{result="failed"}"#,
            2.0,
        ),
        ("outrigger_access_log_dropped_total", 0.0),
        (
            concat!(
                r#"outrigger_build_info{version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""}"#
            ),
            1.0,
        ),
    ] {
        assert_eq!(value(&page, sample), Some(expected), "{sample}");
    }
}

#[test]
fn each_sample_has_help_and_type_and_the_labels_of_the_catalog() {
    let shared = testing::shared(Snapshot::default());
    let handles = shared
        .metrics
        .request(Direction::Inbound, "default/chat", "a\\b\n\"c\"", "");
    finish(&handles, outcome(200, 1));
    handles.retries.made(RetryCause::Reset);
    handles.retries.refused(RetryRefusal::Budget);
    let page = shared.metrics.render(&shared);
    let mut helped = BTreeSet::new();
    let mut typed = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(
                helped.insert(rest.split(' ').next().unwrap()),
                "twice: {line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            typed.insert(name, kind);
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = catalog::ALL.iter().find(|family| {
                name.strip_prefix(family.name)
                    .is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
            });
            let family = family.unwrap_or_else(|| panic!("{name} is not in the catalog"));
            assert!(
                helped.contains(family.name) && typed.contains_key(family.name),
                "{line}"
            );
            for label in family.labels {
                assert!(line.contains(&format!("{label}=\"")), "{label} in {line}");
            }
        }
    }
    assert!(page.contains(r#"route="a\\b\n\"c\"""#), "escaped");
}

#[test]
fn the_catalog_keeps_to_the_conventions() {
    let mut names = BTreeSet::new();
    for family in catalog::ALL {
        assert!(names.insert(family.name), "{} twice", family.name);
        assert!(family.help.ends_with('.'), "{}", family.name);
        let is_counter = family.kind == prometheus::proto::MetricType::COUNTER;
        assert_eq!(
            family.name.ends_with("_total"),
            is_counter,
            "{}",
            family.name
        );
        // The names of OpenTelemetry's conventions are theirs.
        let prefixes = ["outrigger_", "process_", "gen_ai_"];
        assert!(
            prefixes
                .iter()
                .any(|prefix| family.name.starts_with(prefix))
        );
        if family.kind == prometheus::proto::MetricType::HISTOGRAM
            && family.name != catalog::GEN_AI_TOKEN_USAGE.name
        {
            assert!(family.name.ends_with("_seconds"));
        }
    }
}

/// What operators read says what the program exports, row by row.
#[test]
fn the_documented_metrics_are_the_ones_there_are() {
    let page = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/metrics.md"
    ))
    .unwrap();
    let rows: BTreeSet<&str> = page
        .lines()
        .filter(|line| {
            let prefixes = ["| `outrigger_", "| `process_", "| `gen_ai_"];
            prefixes.iter().any(|prefix| line.starts_with(prefix))
        })
        .collect();
    let expected: BTreeSet<String> = catalog::ALL
        .iter()
        .map(|family| {
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels: Vec<String> = family
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            format!(
                "| `{}` | {kind} | {} | {} |",
                family.name,
                labels.join(", "),
                family.help
            )
        })
        .collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|row| !rows.contains(row.as_str()))
        .collect();
    let unknown: Vec<_> = rows
        .iter()
        .filter(|row| !expected.contains(**row))
        .collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "missing rows: {missing:#?}\nrows of no metric: {unknown:#?}"
    );
}

#[test]
fn threads_lose_nothing() {
    let shared = testing::shared(Snapshot::default());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    let handles =
                        shared
                            .metrics
                            .request(Direction::Inbound, "default/chat", "", "");
                    finish(
                        &handles,
                        Outcome {
                            reason: Some(Reason::NoEndpoints),
                            ..outcome(503, 1)
                        },
                    );
                }
            })
        })
        .collect();
    for _ in 0..20 {
        // A scrape in the middle of it sees no request that ended before it began.
        let page = shared.metrics.render(&shared);
        let in_flight = value(
            &page,
            r#"outrigger_requests_in_flight{direction="inbound",service="default/chat"}"#,
        );
        assert!(
            in_flight.is_none_or(|count| (0.0..=4.0).contains(&count)),
            "{in_flight:?}"
        );
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let totals = shared
        .metrics
        .request(Direction::Inbound, "default/chat", "", "")
        .totals();
    assert_eq!(
        (totals.requests, totals.failures, totals.in_flight),
        (4000, 4000, 0)
    );
    assert_eq!(totals.response_bytes, 8_000_000);
}
