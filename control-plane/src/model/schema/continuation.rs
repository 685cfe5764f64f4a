//! The table of a rule's `continuation`.

use super::shape::{Field, Object, Shape};

pub(super) static CONTINUATION: Object = Object::new(&[
    Field::optional("mode", Shape::OneOf(&["auto", "tokens", "text"])),
    // A stream that breaks more often has another trouble than a replica that went away.
    Field::optional("maxAttempts", Shape::Integer(1, 3)),
    // Every such stream holds it: a thousand streams of 4 MiB are more than a sidecar has.
    Field::optional("maxBytes", Shape::Integer(1024, 4 << 20)),
]);
