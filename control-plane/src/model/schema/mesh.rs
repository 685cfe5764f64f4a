//! The table of `Mesh`.

use super::checks;
use super::common::{RETRY, TIMEOUT};
use super::egress;
use super::health::OUTLIER_DETECTION;
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

static TELEMETRY: Object = Object::new(&[Field::optional(
    "accessLog",
    Shape::OneOf(&["off", "errors", "all"]),
)]);

pub(super) static SPEC: Object = Object::new(&[
    Field::optional("trustDomain", Shape::Text(checks::dns_name)),
    Field::optional("mtls", Shape::Object(&MTLS)),
    Field::optional("timeouts", Shape::Object(&TIMEOUTS)),
    Field::optional("retry", Shape::Object(&RETRY)),
    Field::optional("outlierDetection", Shape::Object(&OUTLIER_DETECTION)),
    Field::optional("telemetry", Shape::Object(&TELEMETRY)),
    Field::optional("outbound", Shape::Object(&egress::OUTBOUND)),
]);
