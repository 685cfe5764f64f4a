//! The table of a service's `connectionPool`.

use super::common::TIMEOUT;
use super::shape::{Field, Object, Shape};
use crate::model::Duration;

/// Shorter: connections would be made for single requests. Longer than a day is never.
const AGE: Shape = Shape::Duration(Duration::from_secs(1), Duration::from_secs(30 * 86_400));
/// Shorter than a round trip across a loaded machine, and every pause would look like a death.
const SIGN_OF_LIFE: Shape =
    Shape::Duration(Duration::from_millis(100), Duration::from_secs(86_400));

static HTTP1: Object = Object::new(&[
    Field::optional("idleTimeout", TIMEOUT),
    Field::optional("maxIdle", Shape::Integer(1, 65_536)),
]);
static KEEP_ALIVE: Object = Object::new(&[
    Field::optional("interval", SIGN_OF_LIFE),
    Field::optional("timeout", SIGN_OF_LIFE),
]);
static HTTP2: Object = Object::new(&[
    Field::optional("maxConcurrentStreams", Shape::Integer(1, 65_536)),
    Field::optional("maxConnections", Shape::Integer(1, 1024)),
    Field::optional("keepAlive", Shape::Object(&KEEP_ALIVE)),
]);

pub(super) static CONNECTION_POOL: Object = Object::new(&[
    Field::optional("http1", Shape::Object(&HTTP1)),
    Field::optional("http2", Shape::Object(&HTTP2)),
    Field::optional("maxConnectionAge", AGE),
    Field::optional("maxRequestsPerConnection", Shape::Integer(1, 1_000_000_000)),
    // To each endpoint, from each caller.
    Field::optional("preWarm", Shape::Integer(0, 16)),
]);
