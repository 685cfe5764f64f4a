#![allow(clippy::unwrap_used)]

use prost_types::Duration as WireDuration;

use super::*;
use crate::policy::Protocol;

fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

fn defaults() -> wire::OutlierDetection {
    wire::OutlierDetection {
        consecutive_5xx: 5,
        consecutive_gateway_failures: 5,
        consecutive_connect_failures: 5,
        interval: seconds(10),
        base_ejection_time: seconds(30),
        max_ejection_time: seconds(300),
        max_ejection_percent: 10,
        min_healthy_percent: 0,
        success_rate: Some(wire::SuccessRate {
            minimum_hosts: 5,
            request_volume: 100,
            stdev_factor_thousandths: 1900,
        }),
    }
}

#[test]
fn outlier_detection_is_taken_as_it_comes() {
    assert_eq!(outlier_detection(None), Ok(None));
    let policy = outlier_detection(Some(&defaults())).unwrap().unwrap();
    assert_eq!(*policy, Policy::default());
    let problem = |change: fn(&mut wire::OutlierDetection)| {
        let mut wire = defaults();
        change(&mut wire);
        outlier_detection(Some(&wire)).unwrap_err()
    };
    assert_eq!(
        problem(|wire| wire.max_ejection_percent = 0),
        "outlier_detection.max_ejection_percent: 0 is not within 1 to 100"
    );
    assert_eq!(
        problem(|wire| wire.interval = None),
        "outlier_detection.interval: unset"
    );
    assert_eq!(
        problem(|wire| wire.base_ejection_time = seconds(0)),
        "outlier_detection.base_ejection_time: 0.000000000 s is not above 0"
    );
}

fn http() -> wire::HealthCheck {
    wire::HealthCheck {
        check: Some(Check::Http(wire::HttpCheck {
            path: "/health".into(),
            host: "chat.models".into(),
            expected_statuses: vec![wire::StatusRange {
                first: 200,
                last: 299,
            }],
        })),
        port: 80,
        interval: seconds(10),
        timeout: seconds(1),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
    }
}

#[test]
fn checks_that_cannot_be_made_are_refused() {
    let ports = [ServicePort {
        port: 80,
        name: "".into(),
        protocol: Protocol::Http,
        detection: Default::default(),
    }];
    let read = |change: fn(&mut wire::HealthCheck)| {
        let mut wire = http();
        change(&mut wire);
        checks(&[wire], &ports)
    };
    let good = read(|_| {}).unwrap();
    assert_eq!(good[0].port, 80);
    assert_eq!(good[0].kind.as_str(), "http");
    let problem = |change| read(change).unwrap_err();
    assert_eq!(
        problem(|wire| wire.check = None),
        "health_checks[0].check: neither http nor grpc nor tcp"
    );
    assert_eq!(
        problem(|wire| wire.port = 81),
        "health_checks[0].port: 81 is not one of the service's"
    );
    assert_eq!(
        problem(|wire| wire.healthy_threshold = 0),
        "health_checks[0].healthy_threshold: 0 is not above 0"
    );
    fn change_http(wire: &mut wire::HealthCheck, change: fn(&mut wire::HttpCheck)) {
        if let Some(Check::Http(http)) = &mut wire.check {
            change(http);
        }
    }
    assert_eq!(
        problem(|wire| change_http(wire, |http| http.path = "health\r\nx: y".into())),
        "health_checks[0].http.path: \"health\\r\\nx: y\" is not a path"
    );
    assert_eq!(
        problem(|wire| change_http(wire, |http| http.host = "a b".into())),
        "health_checks[0].http.host: \"a b\" is not an authority"
    );
    assert_eq!(
        problem(|wire| change_http(wire, |http| http.expected_statuses[0].last = 600)),
        "health_checks[0].http.expected_statuses[0]: 200 to 600 is not a range of statuses (100 to 599)"
    );
    let many = vec![http(); 5];
    assert_eq!(
        checks(&many, &ports).unwrap_err(),
        "health_checks: 5 of them, at most 4 are allowed"
    );
}
