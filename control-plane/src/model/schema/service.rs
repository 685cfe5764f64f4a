//! The table of `Service`.

use serde_json::{Map, Value};

use super::balancing::LOAD_BALANCING;
use super::checks;
use super::common::{HOSTS, LABELS, PORT, RETRY, TIMEOUT, WEIGHT_MAX};
use super::connection_pool::CONNECTION_POOL;
use super::egress;
use super::health::{HEALTH_CHECKS, OUTLIER_DETECTION, check_ports};
use super::inference::INFERENCE;
use super::limits::{LIMITS, check_batch_has_model};
use super::report::Report;
use super::shape::{Field, List, Object, Shape};
use crate::model::Duration;

static PORTS: List = List {
    item: Shape::Object(&PORT_OBJECT),
    min: 1,
    max: 64,
    unique: &["port", "name"],
};
static PORT_OBJECT: Object = Object::with_rule(
    &[
        Field::optional("name", Shape::Text(checks::name)),
        Field::required("port", PORT),
        Field::required(
            "protocol",
            Shape::OneOf(&["http", "http2", "grpc", "tcp", "tls", "auto"]),
        ),
        Field::optional("detectionTimeout", DETECTION),
        Field::optional("serverFirst", Shape::Bool),
    ],
    check_detection,
);
/// A client of a server that speaks first waits for so long.
const DETECTION: Shape = Shape::Duration(Duration::from_millis(1), Duration::from_secs(60));

fn check_detection(members: &Map<String, Value>, report: &mut Report) {
    if members.get("protocol").and_then(Value::as_str) == Some("auto") {
        return;
    }
    for field in ["detectionTimeout", "serverFirst"] {
        if members.get(field).is_some_and(|value| !value.is_null()) {
            let problem = "is for ports with protocol auto; nothing is detected on others";
            report.problem_at(field, problem.to_owned());
        }
    }
}

static ACCOUNTS: List = List {
    item: Shape::Text(checks::name),
    min: 0,
    max: 64,
    unique: &[""],
};
static IDENTITIES: List = List {
    item: Shape::Text(checks::spiffe_pattern),
    min: 0,
    max: 64,
    unique: &[""],
};

static ENDPOINTS: Object = Object::new(&[
    Field::optional("static", Shape::List(&STATIC)),
    Field::optional("dns", Shape::List(&egress::DNS)),
]);
static STATIC: List = List {
    item: Shape::Object(&STATIC_ENDPOINT),
    min: 0,
    max: 1000,
    unique: &["address"],
};
static STATIC_ENDPOINT: Object = Object::new(&[
    Field::required("address", Shape::Text(checks::address)),
    Field::optional("weight", Shape::Integer(1, WEIGHT_MAX)),
    Field::optional("labels", Shape::Labels(&LABELS)),
    Field::optional("zone", Shape::Text(checks::label_value)),
    Field::optional("mtls", Shape::Bool),
]);

static TIMEOUTS: Object = Object::new(&[
    Field::optional("connect", TIMEOUT),
    Field::optional("request", TIMEOUT),
    Field::optional("backendRequest", TIMEOUT),
    Field::optional("responseHeaders", TIMEOUT),
    Field::optional("firstByte", TIMEOUT),
    Field::optional("streamIdle", TIMEOUT),
    Field::optional("streamLifetime", TIMEOUT),
    Field::optional("tcpIdle", TIMEOUT),
    Field::optional("tcpLifetime", TIMEOUT),
]);

pub(super) static SPEC: Object = Object::with_rule(FIELDS, check_spec);

fn check_spec(members: &Map<String, Value>, report: &mut Report) {
    check_ports(members, report);
    check_batch_has_model(members, report);
}

const FIELDS: &[Field] = &[
    Field::optional("hosts", Shape::List(&HOSTS)),
    Field::required("ports", Shape::List(&PORTS)),
    Field::optional("serviceAccounts", Shape::List(&ACCOUNTS)),
    Field::optional("identities", Shape::List(&IDENTITIES)),
    Field::optional("endpoints", Shape::Object(&ENDPOINTS)),
    Field::optional("tls", Shape::Object(&egress::TLS)),
    Field::optional("loadBalancing", Shape::Object(&LOAD_BALANCING)),
    Field::optional("timeouts", Shape::Object(&TIMEOUTS)),
    Field::optional("retry", Shape::Object(&RETRY)),
    Field::optional("connectionPool", Shape::Object(&CONNECTION_POOL)),
    Field::optional("limits", Shape::Object(&LIMITS)),
    Field::optional("outlierDetection", Shape::Object(&OUTLIER_DETECTION)),
    Field::optional("healthChecks", Shape::List(&HEALTH_CHECKS)),
    Field::optional("inference", Shape::Object(&INFERENCE)),
];
