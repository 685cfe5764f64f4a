//! Endpoints that sidecars keep requests away from, put together from their last reports.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use outrigger_proto::api::v1 as api;
use outrigger_proto::telemetry::v1 as wire;
use serde_json::{Value, json};
use wire::endpoint_health::State;

/// The contract's limit for a report, and for a status.
pub(super) const MAX_ENDPOINTS: usize = 1000;
/// Endpoints in the status of a service.
const MAX_IN_STATUS: usize = 20;
/// The longest text of a report: a service's name is two DNS labels, a reason a word, a detail 200 bytes.
const MAX_TEXT: usize = 256;

/// What is wrong with the endpoints of a report.
pub(super) fn check(report: &wire::ReportRequest) -> Result<(), String> {
    if report.endpoints.len() > MAX_ENDPOINTS {
        return Err(format!(
            "the report has {} endpoints, at most {MAX_ENDPOINTS} are allowed",
            report.endpoints.len()
        ));
    }
    for endpoint in &report.endpoints {
        let texts = [
            &endpoint.service,
            &endpoint.address,
            &endpoint.instance,
            &endpoint.reason,
            &endpoint.detail,
        ];
        if let Some(long) = texts.iter().find(|text| text.len() > MAX_TEXT) {
            return Err(format!(
                "the report has a text of {} bytes, at most {MAX_TEXT} are allowed",
                long.len()
            ));
        }
    }
    Ok(())
}

/// All of them, those that most sidecars name first.
pub(crate) fn all(reports: &[Arc<wire::ReportRequest>]) -> Vec<api::EndpointHealth> {
    collect(reports, |_| true)
}

/// For the `status` of a service. `None`: no sidecar keeps away from any of its endpoints.
pub(crate) fn of_service(reports: &[Arc<wire::ReportRequest>], service: &str) -> Option<Value> {
    let found = collect(reports, |name| name == service);
    if found.is_empty() {
        return None;
    }
    let entries = found.into_iter().take(MAX_IN_STATUS).map(|endpoint| {
        let mut entry = json!({
            "address": endpoint.address,
            "ejectedBy": endpoint.ejected_by,
            "unhealthyBy": endpoint.unhealthy_by,
            "probingBy": endpoint.probing_by,
            "reporting": endpoint.reporting,
            "reason": endpoint.reason,
        });
        if !endpoint.detail.is_empty() {
            entry["detail"] = endpoint.detail.into();
        }
        if let Some(since) = endpoint.since.and_then(timestamp) {
            entry["since"] = since.to_string().into();
        }
        entry
    });
    Some(entries.collect())
}

fn timestamp(time: prost_types::Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, time.nanos).ok()
}

/// What the reports say of one endpoint.
#[derive(Default)]
struct Seen<'a> {
    ejected_by: u32,
    unhealthy_by: u32,
    probing_by: u32,
    reasons: BTreeMap<&'a str, u32>,
    detail: &'a str,
    since: Option<prost_types::Timestamp>,
}

fn collect(
    reports: &[Arc<wire::ReportRequest>],
    wanted: impl Fn(&str) -> bool,
) -> Vec<api::EndpointHealth> {
    let mut seen: HashMap<(&str, &str), Seen<'_>> = HashMap::new();
    let mut reporting: HashMap<&str, u32> = HashMap::new();
    for report in reports {
        for endpoint in report.endpoints.iter().filter(|it| wanted(&it.service)) {
            let key = (endpoint.service.as_str(), endpoint.address.as_str());
            seen.entry(key).or_default().add(endpoint);
        }
        let called = report
            .edges
            .iter()
            .filter(|edge| edge.direction() == wire::Direction::Outbound)
            .map(|edge| edge.service.as_str());
        let named = report.endpoints.iter().map(|it| it.service.as_str());
        for service in called.chain(named).collect::<HashSet<_>>() {
            *reporting.entry(service).or_default() += 1;
        }
    }
    let mut all: Vec<api::EndpointHealth> = seen
        .into_iter()
        .map(|((service, address), seen)| {
            let reporting = reporting.get(service).copied().unwrap_or(0);
            seen.finish(service, address, reporting)
        })
        .collect();
    all.sort_unstable_by(|a, b| {
        let by = |it: &api::EndpointHealth| it.ejected_by + it.unhealthy_by + it.probing_by;
        by(b)
            .cmp(&by(a))
            .then_with(|| (&a.service, &a.address).cmp(&(&b.service, &b.address)))
    });
    all.truncate(MAX_ENDPOINTS);
    all
}

impl<'a> Seen<'a> {
    fn add(&mut self, endpoint: &'a wire::EndpointHealth) {
        match endpoint.state() {
            State::Ejected => self.ejected_by += 1,
            State::Unhealthy => self.unhealthy_by += 1,
            State::Probing => self.probing_by += 1,
            State::Unspecified => {}
        }
        *self.reasons.entry(&endpoint.reason).or_default() += 1;
        if self.detail.is_empty() {
            self.detail = &endpoint.detail;
        }
        let time = |time: &prost_types::Timestamp| (time.seconds, time.nanos);
        if let Some(since) = &endpoint.since
            && self
                .since
                .as_ref()
                .is_none_or(|first| time(since) < time(first))
        {
            self.since = Some(*since);
        }
    }

    fn finish(self, service: &str, address: &str, reporting: u32) -> api::EndpointHealth {
        let reason = self.reasons.iter().max_by_key(|(_, count)| **count);
        api::EndpointHealth {
            service: printable(service),
            address: printable(address),
            ejected_by: self.ejected_by,
            unhealthy_by: self.unhealthy_by,
            probing_by: self.probing_by,
            reporting,
            reason: reason
                .map(|(reason, _)| printable(reason))
                .unwrap_or_default(),
            detail: printable(self.detail),
            since: self.since,
        }
    }
}

/// Sidecars and the applications behind them make these up; they end on an administrator's terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

#[cfg(test)]
mod tests;
