use super::*;

fn report(instance: &str, requests: u64) -> wire::ReportRequest {
    wire::ReportRequest {
        instance: instance.to_owned(),
        edges: vec![wire::Edge {
            requests,
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn the_last_report_of_each_sidecar_is_kept() {
    let reports = Reports::default();
    reports.put(report("a", 1));
    reports.put(report("b", 2));
    reports.put(report("a", 3));
    let mut requests: Vec<u64> = reports
        .latest()
        .iter()
        .map(|it| it.edges[0].requests)
        .collect();
    requests.sort_unstable();
    assert_eq!(requests, [2, 3]);
}

#[test]
fn memory_is_bounded_and_the_known_are_still_heard() {
    let reports = Reports::default();
    for number in 0..MAX_REPORTS + 100 {
        reports.put(report(&format!("sidecar-{number}"), 1));
    }
    assert_eq!(reports.latest().len(), MAX_REPORTS);
    reports.put(report("sidecar-0", 7));
    let latest = reports.latest();
    assert!(latest.iter().any(|it| it.edges[0].requests == 7));
}
