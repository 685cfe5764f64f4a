//! The table of a rule's `hedge`.

use super::common::RETRY_METHODS;
use super::shape::{Field, Object, Shape};
use crate::model::Duration;

/// Longer than a minute, a request is rather given up than sent once more.
const DELAY: Shape = Shape::Duration(Duration::from_millis(1), Duration::from_secs(60));

pub(super) static HEDGE: Object = Object::new(&[
    Field::required("delay", DELAY),
    // One is no hedge; more than five would be a storm, whatever the budget says.
    Field::optional("maxRequests", Shape::Integer(2, 5)),
    Field::optional("methods", Shape::List(&RETRY_METHODS)),
]);
