//! The table of `Mesh`.

use std::net::Ipv6Addr;

use super::checks;
use super::common::{RETRY, TIMEOUT};
use super::egress;
use super::health::OUTLIER_DETECTION;
use super::report::quote;
use super::shape::{Field, Object, Shape};

static MTLS: Object = Object::new(&[Field::optional(
    "mode",
    Shape::OneOf(&["strict", "permissive"]),
)]);

static TIMEOUTS: Object = Object::new(&[
    Field::optional("connect", TIMEOUT),
    Field::optional("request", TIMEOUT),
    Field::optional("backendRequest", TIMEOUT),
    Field::optional("responseHeaders", TIMEOUT),
    Field::optional("firstByte", TIMEOUT),
    Field::optional("streamIdle", TIMEOUT),
    Field::optional("streamLifetime", TIMEOUT),
]);

static TELEMETRY: Object = Object::new(&[
    Field::optional("accessLog", Shape::OneOf(&["off", "errors", "all"])),
    Field::optional("tracing", Shape::Object(&TRACING)),
]);

static TRACING: Object = Object::new(&[
    Field::required("endpoint", Shape::Text(receiver)),
    Field::optional("samplingPercent", Shape::Decimal(0, 100)),
    Field::optional("caCertificates", Shape::Text(egress::certificates)),
]);

/// Where traces go: a scheme, a host and a port.
fn receiver(text: &str) -> Result<(), String> {
    let place = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let is_receiver = place.is_some_and(|place| {
        let (host, port) = place.rsplit_once(':').unwrap_or_default();
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_host = match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => checks::dns_name(host).is_ok(),
        };
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_receiver {
        return Ok(());
    }
    Err(format!(
        "{} is not where a receiver is; allowed are http:// or https://, a host and a port, for example \
         http://otel-collector.monitoring:4317",
        quote(text)
    ))
}

pub(super) static SPEC: Object = Object::new(&[
    Field::optional("trustDomain", Shape::Text(checks::dns_name)),
    Field::optional("mtls", Shape::Object(&MTLS)),
    Field::optional("timeouts", Shape::Object(&TIMEOUTS)),
    Field::optional("retry", Shape::Object(&RETRY)),
    Field::optional("outlierDetection", Shape::Object(&OUTLIER_DETECTION)),
    Field::optional("telemetry", Shape::Object(&TELEMETRY)),
    Field::optional("outbound", Shape::Object(&egress::OUTBOUND)),
]);

#[cfg(test)]
mod tests {
    use super::receiver;

    #[test]
    fn where_traces_may_go() {
        for good in [
            "http://otel-collector.monitoring:4317",
            "https://10.0.0.5:4317",
            "http://[fd00::17]:4317",
        ] {
            assert_eq!(receiver(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "otel-collector:4317",
            "grpc://otel-collector:4317",
            "http://otel-collector",
            "http://otel-collector:0",
            "http://otel-collector:99999",
            "http://:4317",
            "http://a b:4317",
            "http://user@host:4317",
            "http://otel-collector:4317/v1/traces",
            "http://[otel]:4317",
        ] {
            let why = receiver(bad).unwrap_err();
            assert!(why.contains("allowed are http://"), "{bad}: {why}");
        }
    }
}
