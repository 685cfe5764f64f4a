//! Arbitrary outlier detection and active checks.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use crate::model::{
    Duration, GrpcCheck, HealthCheck, HttpCheck, OutlierDetection, SuccessRate, TcpCheck,
    Thousandths,
};

pub(super) fn outlier_detection() -> impl Strategy<Value = OutlierDetection> {
    let count = || of(0u32..1000);
    let rate = (count(), of(1u32..1000), of(0u32..100_000)).prop_map(
        |(minimum_hosts, request_volume, factor)| SuccessRate {
            minimum_hosts,
            request_volume,
            stdev_factor: factor.map(Thousandths),
        },
    );
    // The longest is never below the base.
    let times = of((100u64..60_000, 300_000u64..600_000));
    (
        (of(any::<bool>()), count(), count(), count()),
        of((100u64..60_000).prop_map(Duration::from_millis)),
        times,
        (of(1u32..=100), of(0u32..=100)),
        of(rate),
    )
        .prop_map(|(first, interval, times, percents, success_rate)| {
            let (enabled, consecutive5xx, gateway, connect) = first;
            OutlierDetection {
                enabled,
                consecutive5xx,
                consecutive_gateway_failures: gateway,
                consecutive_connect_failures: connect,
                interval,
                base_ejection_time: times.map(|(base, _)| Duration::from_millis(base)),
                max_ejection_time: times.map(|(_, longest)| Duration::from_millis(longest)),
                max_ejection_percent: percents.0,
                min_healthy_percent: percents.1,
                success_rate,
            }
        })
}

/// Of all kinds; only tcp checks name no port, for services of any protocol.
pub(super) fn health_checks() -> impl Strategy<Value = Vec<HealthCheck>> {
    let tcp = Just(HealthCheck {
        tcp: Some(TcpCheck {}),
        ..HealthCheck::default()
    });
    let duration = || of((100u64..60_000).prop_map(Duration::from_millis));
    let check = (tcp, duration(), duration(), of(1u32..100), of(1u32..100));
    let check = check.prop_map(
        |(check, interval, timeout, unhealthy, healthy)| HealthCheck {
            interval,
            timeout,
            unhealthy_threshold: unhealthy,
            healthy_threshold: healthy,
            ..check
        },
    );
    vec(check, 0..3)
}

#[test]
fn what_the_types_say_is_what_was_written() {
    let read = |yaml: &str| serde_yaml::from_str::<HealthCheck>(yaml).unwrap();
    let http = read("http: {path: /h, expectedStatuses: [\"204\", 300-399]}\nport: 80");
    assert_eq!(
        http.http,
        Some(HttpCheck {
            path: "/h".into(),
            host: None,
            expected_statuses: vec!["204".into(), "300-399".into()],
        })
    );
    assert_eq!(http.http.unwrap().expected(), [(204, 204), (300, 399)]);
    assert_eq!(read("grpc: {}").grpc, Some(GrpcCheck::default()));
    let policy: OutlierDetection = serde_yaml::from_str("successRate: {stdevFactor: 2}").unwrap();
    assert_eq!(policy.success_rate().stdev_factor(), Thousandths(2000));
    let longest: OutlierDetection = serde_yaml::from_str("baseEjectionTime: 1h").unwrap();
    assert_eq!(longest.max_ejection_time(), Duration::from_secs(3600));
}
