use wire::health_check::Check;

use super::*;

const MESH: &str = "
apiVersion: outrigger.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {outlierDetection: {consecutive5xx: 7, successRate: {stdevFactor: 2.5}}}
";

fn service(further: &str) -> String {
    format!(
        "
apiVersion: outrigger.dev/v1alpha1
kind: Service
metadata: {{name: chat}}
spec:
  ports: [{{port: 9000, protocol: tcp}}, {{port: 8080, protocol: http}}]
  {further}
"
    )
}

#[test]
fn outlier_detection_is_the_services_or_the_meshs() {
    let mut bench = bench();
    bench.put(&service(""));
    assert_eq!(bench.service("default/chat").outlier_detection, None);
    bench.put(&service("outlierDetection: {}"));
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let defaults = wire::OutlierDetection {
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
    };
    assert_eq!(
        bench.service("default/chat").outlier_detection,
        Some(defaults)
    );
    bench.put(MESH);
    bench.put(&service(""));
    let mesh = bench.service("default/chat").outlier_detection.unwrap();
    assert_eq!(mesh.consecutive_5xx, 7);
    assert_eq!(mesh.success_rate.unwrap().stdev_factor_thousandths, 2500);
    bench.put(&service("outlierDetection: {enabled: false}"));
    assert_eq!(bench.service("default/chat").outlier_detection, None);
    bench.put(&service(
        "outlierDetection: {successRate: {minimumHosts: 0}}",
    ));
    let policy = bench.service("default/chat").outlier_detection.unwrap();
    assert_eq!((policy.consecutive_5xx, policy.success_rate), (5, None));
}

#[test]
fn checks_have_their_defaults_filled_in() {
    let mut bench = bench();
    bench.put(&service(
        "healthChecks: [{http: {path: /health}}, {grpc: {}, interval: 5s}, {tcp: {}}]",
    ));
    let checks = bench.service("default/chat").health_checks;
    let [http, grpc, tcp] = checks.as_slice() else {
        panic!("{checks:?}");
    };
    // The first port that speaks HTTP; a tcp check asks the same one.
    assert_eq!((http.port, grpc.port, tcp.port), (8080, 8080, 8080));
    assert_eq!((http.unhealthy_threshold, http.healthy_threshold), (3, 2));
    assert_eq!(http.interval.as_ref().unwrap().seconds, 10);
    assert_eq!(grpc.interval.as_ref().unwrap().seconds, 5);
    assert_eq!(http.timeout.as_ref().unwrap().seconds, 1);
    let Some(Check::Http(asked)) = &http.check else {
        panic!("{http:?}");
    };
    assert_eq!(asked.host, "chat.default");
    let range = asked.expected_statuses[0];
    assert_eq!((range.first, range.last), (200, 299));
}
