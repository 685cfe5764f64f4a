//! How the status looks.

use std::fmt::Write as _;

use jiff::Timestamp;
use outrigger_control_plane::model::Kind;
use outrigger_proto::api::v1::{EndpointHealth, Rejection, Sidecar, SidecarSync};
use serde_json::{Value, json};

use super::Report;
use crate::output::style::{GREEN, RED, YELLOW, paint};
use crate::output::table::{Cell, Table};
use crate::output::{age, json as convert};

/// A certificate that ends sooner than this was not renewed when it should have been: sidecars renew at about half of
/// the lifetime, 12 of 24 hours by default, and an hour is short for lifetimes that people choose themselves.
const EXPIRES_SOON: i64 = 3600;

/// For people.
pub fn text(report: &Report, wide: bool, now: Timestamp, color: bool) -> String {
    let mut text = head(report, now, color);
    if report.sidecars.is_empty() {
        text.push_str("\nNo sidecar has connected yet. `outriggerctl token create` makes a token to join with.\n");
        return text;
    }
    text.push('\n');
    text.push_str(&table(report, wide, now).render(color));
    text.push_str(&refusals(report, now, color));
    text.push_str(&unavailable(report, color));
    text
}

fn head(report: &Report, now: Timestamp, color: bool) -> String {
    let status = &report.control_plane;
    let time = |time: &Option<prost_types::Timestamp>| convert::time(time.as_ref());
    let up = time(&status.started_at)
        .map_or_else(String::new, |at| format!(", up {}", age::age(at, now)));
    let expiry = time(&status.ca_expires_at).map_or_else(
        || "no expiry known".to_owned(),
        |at| {
            format!(
                "expires {} ({})",
                at.strftime("%Y-%m-%d"),
                age::relative(at, now)
            )
        },
    );
    let count = |kind: Kind| status.resources.get(kind.as_str()).copied().unwrap_or(0);
    let resources: Vec<String> = Kind::ALL
        .into_iter()
        .filter(|kind| count(*kind) > 0)
        .map(|kind| plural(count(kind), kind))
        .collect();
    let resources = if resources.is_empty() {
        "nothing applied yet".to_owned()
    } else {
        resources.join(", ")
    };

    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<15}{value}");
    };
    line(
        "Control plane",
        format!("{}, version {}{up}", report.server, status.version),
    );
    line("Trust domain", status.trust_domain.clone());
    line(
        "CA",
        format!(
            "sha256:{}, {expiry}",
            status
                .ca_fingerprint
                .get(..16)
                .unwrap_or(&status.ca_fingerprint)
        ),
    );
    line(
        "Config",
        format!("version {}: {resources}", report.config_version),
    );
    line("Sidecars", summary(&report.sidecars, color));
    text
}

/// `3 connected: 2 in sync, 1 refused something; 1 disconnected`.
fn summary(sidecars: &[Sidecar], color: bool) -> String {
    let count = |sync: SidecarSync| {
        sidecars
            .iter()
            .filter(|s| s.connected && s.sync() == sync)
            .count()
    };
    let connected = sidecars.iter().filter(|sidecar| sidecar.connected).count();
    let mut text = format!("{connected} connected");
    let states = [
        (SidecarSync::Synced, "in sync", GREEN),
        (SidecarSync::Pending, "pending", YELLOW),
        (SidecarSync::Rejected, "refused something", RED),
    ];
    let mut separator = ": ";
    for (sync, words, tint) in states {
        let count = count(sync);
        if count > 0 {
            text.push_str(separator);
            text.push_str(&paint(tint, &format!("{count} {words}"), color));
            separator = ", ";
        }
    }
    if connected < sidecars.len() {
        let _ = write!(text, "; {} disconnected", sidecars.len() - connected);
    }
    text
}

fn table(report: &Report, wide: bool, now: Timestamp) -> Table {
    let mut header = vec![
        "NAME",
        "IDENTITY",
        "ADDRESS",
        "SERVES",
        "CONNECTED",
        "SYNC",
        "SENT",
        "ACKED",
        "LATENCY",
        "CERT",
    ];
    if wide {
        header.extend(["VERSION", "METRICS", "SUBSCRIPTIONS", "INSTANCE"]);
    }
    let mut table = Table::new(header);
    for sidecar in &report.sidecars {
        let mut row = vec![
            name(sidecar).into(),
            identity(&sidecar.identity, &report.control_plane.trust_domain, wide).into(),
            sidecar.address.as_str().into(),
            sidecar.serves.join(",").into(),
            connected(sidecar, now),
            sync(sidecar),
            version(sidecar.sent_version).into(),
            version(sidecar.acked_version).into(),
            sidecar
                .ack_latency
                .as_ref()
                .map_or_else(|| "-".to_owned(), latency)
                .into(),
            certificate(sidecar, now),
        ];
        if wide {
            row.extend([
                sidecar.version.as_str().into(),
                sidecar.metrics_address.as_str().into(),
                sidecar.subscriptions.join(",").into(),
                sidecar.instance.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

/// `<account>-<first 8 of the instance>`, as the sidecar's Workload is named.
pub fn name(sidecar: &Sidecar) -> String {
    let account = sidecar
        .identity
        .rsplit('/')
        .next()
        .filter(|account| !account.is_empty())
        .unwrap_or("sidecar");
    let instance: String = sidecar.instance.chars().take(8).collect();
    format!("{account}-{instance}")
}

/// The identity without what all share, unless there is room.
fn identity(id: &str, trust_domain: &str, wide: bool) -> String {
    let short = id
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.strip_prefix(trust_domain)?.strip_prefix('/'));
    match short {
        Some(short) if !wide => short.to_owned(),
        _ => id.to_owned(),
    }
}

fn connected(sidecar: &Sidecar, now: Timestamp) -> Cell {
    if sidecar.connected {
        let since = convert::time(sidecar.connected_at.as_ref());
        return since
            .map_or_else(|| "yes".to_owned(), |since| age::age(since, now))
            .into();
    }
    let gone = convert::time(sidecar.last_seen.as_ref());
    let text = gone.map_or_else(
        || "no".to_owned(),
        |at| format!("no, seen {} ago", age::age(at, now)),
    );
    Cell::colored(text, YELLOW)
}

fn sync(sidecar: &Sidecar) -> Cell {
    match sidecar.sync() {
        SidecarSync::Synced => Cell::colored("synced", GREEN),
        SidecarSync::Pending => Cell::colored("pending", YELLOW),
        SidecarSync::Rejected => Cell::colored("REFUSED", RED),
        SidecarSync::Disconnected => Cell::colored("disconnected", YELLOW),
        SidecarSync::Unspecified => "unknown".into(),
    }
}

fn version(version: u64) -> String {
    if version == 0 {
        "-".to_owned()
    } else {
        version.to_string()
    }
}

/// Three digits and a unit.
fn latency(latency: &prost_types::Duration) -> String {
    let micros = latency
        .seconds
        .saturating_mul(1_000_000)
        .saturating_add(i64::from(latency.nanos) / 1000);
    match micros {
        ..1_000 => format!("{}µs", micros.max(0)),
        1_000..10_000 => format!("{:.1}ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{}ms", micros / 1000),
        _ => format!("{:.1}s", micros as f64 / 1e6),
    }
}

fn certificate(sidecar: &Sidecar, now: Timestamp) -> Cell {
    let Some(end) = convert::time(sidecar.certificate_expires_at.as_ref()) else {
        return "-".into();
    };
    let left = end.as_second() - now.as_second();
    if left <= 0 {
        Cell::colored("EXPIRED", RED)
    } else if left < EXPIRES_SOON && sidecar.connected {
        Cell::colored(age::short(left), YELLOW)
    } else {
        age::short(left).into()
    }
}

fn refusals(report: &Report, now: Timestamp, color: bool) -> String {
    let mut text = String::new();
    for sidecar in report
        .sidecars
        .iter()
        .filter(|sidecar| !sidecar.rejections.is_empty())
    {
        let title = format!(
            "{} refused, and keeps the last good version of:",
            name(sidecar)
        );
        let _ = writeln!(text, "\n{}", paint(RED, &title, color));
        for Rejection {
            resource,
            reason,
            at,
        } in &sidecar.rejections
        {
            let ago = convert::time(at.as_ref())
                .map_or_else(String::new, |at| format!(" ({} ago)", age::age(at, now)));
            let _ = writeln!(text, "  {resource}{ago}\n    {reason}");
        }
    }
    text
}

/// Endpoints that the table shows; all are in the documents for programs.
const MAX_UNAVAILABLE: usize = 20;

fn unavailable(report: &Report, color: bool) -> String {
    let endpoints = &report.control_plane.endpoints;
    if endpoints.is_empty() {
        return String::new();
    }
    let mut table = Table::new(vec![
        "SERVICE",
        "ENDPOINT",
        "EJECTED BY",
        "UNHEALTHY BY",
        "PROBING BY",
        "OF",
        "REASON",
    ]);
    for endpoint in endpoints.iter().take(MAX_UNAVAILABLE) {
        let reason = if endpoint.detail.is_empty() {
            endpoint.reason.clone()
        } else {
            format!("{}: {}", endpoint.reason, endpoint.detail)
        };
        table.row(vec![
            endpoint.service.as_str().into(),
            endpoint.address.as_str().into(),
            endpoint.ejected_by.to_string().into(),
            endpoint.unhealthy_by.to_string().into(),
            endpoint.probing_by.to_string().into(),
            endpoint.reporting.to_string().into(),
            reason.into(),
        ]);
    }
    let title = "Endpoints that sidecars do not use, as of their last reports:";
    let mut text = format!("\n{}\n{}", paint(YELLOW, title, color), table.render(color));
    if endpoints.len() > MAX_UNAVAILABLE {
        let _ = writeln!(text, "… and {} more", endpoints.len() - MAX_UNAVAILABLE);
    }
    text
}

fn plural(count: u32, kind: Kind) -> String {
    let [singular, plural, _] = crate::kind::words(kind);
    format!("{count} {}", if count == 1 { singular } else { plural })
}

/// For programs.
pub fn json(report: &Report) -> Value {
    let status = &report.control_plane;
    json!({
        "controlPlane": {
            "server": report.server,
            "version": status.version,
            "trustDomain": status.trust_domain,
            "caFingerprint": status.ca_fingerprint,
            "caExpiresAt": convert::time(status.ca_expires_at.as_ref()),
            "configVersion": report.config_version,
            "connectedSidecars": status.connected_sidecars,
            "startedAt": convert::time(status.started_at.as_ref()),
            "resources": status.resources,
        },
        "unavailableEndpoints": status.endpoints.iter().map(endpoint_json).collect::<Vec<_>>(),
        "sidecars": report.sidecars.iter().map(sidecar_json).collect::<Vec<_>>(),
    })
}

fn endpoint_json(endpoint: &EndpointHealth) -> Value {
    json!({
        "service": endpoint.service,
        "address": endpoint.address,
        "ejectedBy": endpoint.ejected_by,
        "unhealthyBy": endpoint.unhealthy_by,
        "probingBy": endpoint.probing_by,
        "reporting": endpoint.reporting,
        "reason": endpoint.reason,
        "detail": endpoint.detail,
        "since": convert::time(endpoint.since.as_ref()),
    })
}

fn sidecar_json(sidecar: &Sidecar) -> Value {
    let time = |time: &Option<prost_types::Timestamp>| convert::time(time.as_ref());
    let sync = match sidecar.sync() {
        SidecarSync::Synced => "synced",
        SidecarSync::Pending => "pending",
        SidecarSync::Rejected => "rejected",
        SidecarSync::Disconnected => "disconnected",
        SidecarSync::Unspecified => "unknown",
    };
    let rejections: Vec<Value> = sidecar
        .rejections
        .iter()
        .map(|r| json!({"resource": r.resource, "reason": r.reason, "at": time(&r.at)}))
        .collect();
    json!({
        "name": name(sidecar),
        "instance": sidecar.instance,
        "identity": sidecar.identity,
        "address": sidecar.address,
        "metricsAddress": sidecar.metrics_address,
        "version": sidecar.version,
        "serves": sidecar.serves,
        "connected": sidecar.connected,
        "connectedAt": time(&sidecar.connected_at),
        "lastSeen": time(&sidecar.last_seen),
        "sync": sync,
        "sentVersion": sidecar.sent_version,
        "ackedVersion": sidecar.acked_version,
        "ackLatencySeconds": sidecar.ack_latency.as_ref().map(|d| d.seconds as f64 + f64::from(d.nanos) / 1e9),
        "certificateExpiresAt": time(&sidecar.certificate_expires_at),
        "subscriptions": sidecar.subscriptions,
        "rejections": rejections,
    })
}
