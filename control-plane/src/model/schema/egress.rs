//! The tables of what is outside the mesh.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::checks;
use super::common::{LABELS, PORT, WEIGHT_MAX};
use super::report::quote;
use super::shape::{Field, List, Object, Shape};

/// Sidecars hold them in memory, each.
const MAX_PEM: usize = 256 * 1024;

pub(super) static DNS: List = List {
    item: Shape::Object(&DNS_ENDPOINT),
    min: 0,
    max: 64,
    unique: &[],
};
static DNS_ENDPOINT: Object = Object::new(&[
    Field::required("host", Shape::Text(lookup_name)),
    Field::optional("port", PORT),
    Field::optional("weight", Shape::Integer(1, WEIGHT_MAX)),
    Field::optional("labels", Shape::Labels(&LABELS)),
    Field::optional("zone", Shape::Text(checks::label_value)),
]);

pub(super) static TLS: Object = Object::new(&[
    Field::optional("mode", Shape::OneOf(&["disable", "simple"])),
    Field::optional("sni", Shape::Text(checks::dns_name)),
    Field::optional("caCertificates", Shape::Text(certificates)),
    Field::optional("subjectAltNames", Shape::List(&NAMES)),
]);
static NAMES: List = List {
    item: Shape::Text(name_or_address),
    min: 0,
    max: 64,
    unique: &[""],
};

pub(super) static OUTBOUND: Object = Object::new(&[Field::optional(
    "unknownHosts",
    Shape::OneOf(&["refuse", "pass-through"]),
)]);

/// A name to look up.
fn lookup_name(text: &str) -> Result<(), String> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "{} is an address and no name; addresses stand under endpoints.static",
            quote(text)
        ));
    }
    checks::dns_name(text)
}

/// What a certificate can be for, besides SPIFFE ids.
fn name_or_address(text: &str) -> Result<(), String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => checks::dns_name(text),
    }
}

/// One or more certificates in PEM.
pub(super) fn certificates(text: &str) -> Result<(), String> {
    let wanted = "allowed are certificates in PEM, -----BEGIN CERTIFICATE----- and so on";
    if text.len() > MAX_PEM {
        return Err(format!(
            "the text has {} bytes; at most {MAX_PEM} are allowed",
            text.len()
        ));
    }
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        count += 1;
        let der = certificate.map_err(|error| format!("certificate {count}: {error}; {wanted}"))?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|_| format!("certificate {count} cannot be parsed; {wanted}"))?;
        if !parsed.is_ca() {
            return Err(format!(
                "certificate {count}, of {}, is not a CA's; allowed are the certificates of authorities",
                parsed.subject()
            ));
        }
    }
    if count == 0 {
        return Err(format!("there is no certificate in it; {wanted}"));
    }
    Ok(())
}
