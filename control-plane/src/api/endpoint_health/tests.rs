#![allow(clippy::unwrap_used)]

use super::*;

fn endpoint(address: &str, state: State, reason: &str) -> wire::EndpointHealth {
    wire::EndpointHealth {
        service: "default/chat".into(),
        address: address.into(),
        state: state.into(),
        reason: reason.into(),
        since: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + address.len() as i64,
            nanos: 0,
        }),
        ..Default::default()
    }
}

fn report(instance: &str, endpoints: Vec<wire::EndpointHealth>) -> Arc<wire::ReportRequest> {
    Arc::new(wire::ReportRequest {
        instance: instance.into(),
        edges: vec![wire::Edge {
            direction: wire::Direction::Outbound.into(),
            service: "default/chat".into(),
            ..Default::default()
        }],
        endpoints,
        ..Default::default()
    })
}

#[test]
fn reports_are_put_together_by_endpoint() {
    let bad = "10.0.0.1:80";
    let mut unhealthy = endpoint(bad, State::Unhealthy, "health-check");
    unhealthy.detail = "status 500\u{1b}[31m".into();
    let reports = [
        report("a", vec![endpoint(bad, State::Ejected, "consecutive-5xx")]),
        report(
            "b",
            vec![
                endpoint(bad, State::Ejected, "consecutive-5xx"),
                endpoint("10.0.0.22:80", State::Probing, "success-rate"),
            ],
        ),
        report("c", vec![unhealthy]),
        report("d", Vec::new()),
    ];
    let all = all(&reports);
    assert_eq!(all.len(), 2);
    let first = &all[0];
    assert_eq!(first.address, bad, "named by most");
    assert_eq!(
        (first.ejected_by, first.unhealthy_by, first.probing_by),
        (2, 1, 0)
    );
    assert_eq!(first.reporting, 4);
    assert_eq!(first.reason, "consecutive-5xx");
    assert_eq!(first.detail, "status 500 [31m", "no escapes for terminals");
    assert_eq!(all[1].probing_by, 1);

    let status = of_service(&reports, "default/chat").unwrap();
    assert_eq!(status[0]["ejectedBy"], 2);
    assert_eq!(status[0]["detail"], "status 500 [31m");
    assert_eq!(status[0]["since"], "2023-11-14T22:13:31Z");
    assert_eq!(of_service(&reports, "default/other"), None);
}

#[test]
fn what_is_kept_is_bounded() {
    let many = (0..=MAX_ENDPOINTS)
        .map(|n| endpoint(&n.to_string(), State::Ejected, ""))
        .collect();
    assert!(
        check(&report("a", many))
            .unwrap_err()
            .contains("1001 endpoints")
    );
    let mut long = endpoint("a", State::Ejected, "");
    long.detail = "x".repeat(257);
    assert!(
        check(&report("a", vec![long]))
            .unwrap_err()
            .contains("257 bytes")
    );
    assert_eq!(
        check(&report("a", vec![endpoint("a", State::Ejected, "x")])),
        Ok(())
    );

    let reports: Vec<_> = (0..30)
        .map(|n| {
            let of = |i: u32| endpoint(&format!("{n}-{i}"), State::Ejected, "");
            report(&n.to_string(), (0..50).map(of).collect())
        })
        .collect();
    assert_eq!(all(&reports).len(), MAX_ENDPOINTS);
    let status = of_service(&reports, "default/chat").unwrap();
    assert_eq!(status.as_array().unwrap().len(), MAX_IN_STATUS);
}
