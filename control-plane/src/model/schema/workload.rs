//! The table of `Workload`. Users do not write it; what the control plane writes has the same form.

use super::checks;
use super::common::{LABELS, PORT, WEIGHT_MAX};
use super::shape::{Field, List, Object, Shape};

static ENDPOINTS: List = List {
    item: Shape::Object(&ENDPOINT),
    min: 0,
    max: 1000,
    unique: &[],
};
static ENDPOINT: Object = Object::new(&[
    Field::required("service", Shape::Text(qualified)),
    Field::required("port", PORT),
    Field::required("weight", Shape::Integer(1, WEIGHT_MAX)),
    Field::required("state", Shape::OneOf(&["Ready", "NotReady", "Draining"])),
]);

fn qualified(text: &str) -> Result<(), String> {
    match text.split_once('/') {
        Some((namespace, name)) => checks::name(namespace).and_then(|()| checks::name(name)),
        None => Err(format!(
            "{text:?} is not the name of a service; allowed is <namespace>/<name>"
        )),
    }
}

pub(super) static SPEC: Object = Object::new(&[
    Field::required("instance", Shape::Text(checks::anything)),
    Field::required("identity", Shape::Text(checks::spiffe_id)),
    Field::optional("address", Shape::Text(checks::address)),
    Field::optional("labels", Shape::Labels(&LABELS)),
    Field::optional("zone", Shape::Text(checks::label_value)),
    Field::optional("endpoints", Shape::List(&ENDPOINTS)),
]);
