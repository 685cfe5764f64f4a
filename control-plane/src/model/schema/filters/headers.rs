//! Headers that are set, added and removed.

use super::is_set;
use crate::model::schema::checks;
use crate::model::schema::paths::header_value;
use crate::model::schema::report::quote;
use crate::model::schema::shape::{Field, List, Object, Shape};

pub(super) static HEADER_MODIFIER: Object = Object::with_rule(
    &[
        Field::optional("set", Shape::List(&SET_HEADERS)),
        Field::optional("add", Shape::List(&SET_HEADERS)),
        Field::optional("remove", Shape::List(&REMOVE_HEADERS)),
    ],
    |members, report| {
        let lists = ["set", "add", "remove"];
        if !lists.iter().any(|list| is_set(members, list)) {
            report.problem("changes nothing; it needs set, add or remove");
        }
    },
);
static SET_HEADERS: List = List {
    item: Shape::Object(&HEADER),
    min: 0,
    max: 16,
    unique: &["name"],
};
static HEADER: Object = Object::new(&[
    Field::required("name", Shape::Text(modifiable_header)),
    Field::required("value", Shape::Text(header_value)),
]);
static REMOVE_HEADERS: List = List {
    item: Shape::Text(modifiable_header),
    min: 0,
    max: 16,
    unique: &[""],
};

/// Not those of which a message's framing or its connection consists (RFC 9110, section 7.6.1), and not the mesh's own. The
/// sidecars' list.
fn modifiable_header(text: &str) -> Result<(), String> {
    checks::header_name(text)?;
    let name = text.to_ascii_lowercase();
    let found = quote(text);
    match name.as_str() {
        "host" => Err(format!(
            "{found} cannot be changed here; use a filter of type URLRewrite with a hostname"
        )),
        "connection"
        | "content-length"
        | "expect"
        | "http2-settings"
        | "keep-alive"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade" => Err(format!(
            "{found} cannot be changed: it concerns the connection or the message's framing"
        )),
        "x-forwarded-client-cert" | "x-request-id" => {
            Err(format!("{found} cannot be changed: the sidecars set it"))
        }
        _ if name.starts_with("x-outrigger-") => Err(format!(
            "{found} cannot be changed: headers that begin with x-outrigger- are the sidecars'"
        )),
        _ => Ok(()),
    }
}
