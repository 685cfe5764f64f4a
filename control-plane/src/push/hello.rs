//! Checks what a sidecar says of itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_proto::dataplane::v1::{
    Announce, AnnouncedEndpoint, EndpointState as WireState, Hello, Refusal,
};

use super::sidecars::About;
use crate::ca::SpiffeId;
use crate::compile::Compiled;
use crate::discovery::{Announced, Sidecar};
use crate::model::EndpointState;

/// Names that one sidecar may be subscribed to.
pub(super) const MAX_NAMES: usize = 10_000;
/// Longest name: `host/`, a DNS name of 253 characters, a port; and some room.
pub(super) const MAX_NAME: usize = 512;
/// Endpoints that one sidecar may announce.
const MAX_ENDPOINTS: usize = 256;
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 256;
/// As for the zone of a static endpoint.
const MAX_ZONE: usize = 63;

/// Reads a Hello. The error says what is wrong with it.
pub(super) fn read(hello: &Hello, identity: Arc<SpiffeId>) -> Result<(About, Sidecar), String> {
    let instance = &hello.instance;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if !(8..=64).contains(&instance.len()) || !instance.bytes().all(allowed) {
        return Err(format!(
            "instance {:?}: 8 to 64 letters, digits and '-' are allowed",
            cut(instance)
        ));
    }
    if !hello.inbound_address.is_empty() {
        check_address("inbound_address", &hello.inbound_address)?;
    }
    if !hello.metrics_address.is_empty() && hello.metrics_address.parse::<SocketAddr>().is_err() {
        return Err(format!(
            "metrics_address {:?} is not ip:port",
            cut(&hello.metrics_address)
        ));
    }
    let long = |(key, value): (&String, &String)| key.len() > MAX_LABEL || value.len() > MAX_LABEL;
    if hello.labels.len() > MAX_LABELS || hello.labels.iter().any(long) {
        return Err(format!(
            "labels: at most {MAX_LABELS} of at most {MAX_LABEL} bytes are allowed"
        ));
    }
    if hello.zone.len() > MAX_ZONE {
        return Err(format!("zone: at most {MAX_ZONE} bytes are allowed"));
    }
    check_names(hello.held.keys())?;
    if hello.held.len() > MAX_NAMES {
        return Err(format!("held: at most {MAX_NAMES} names are allowed"));
    }
    let instance: Arc<str> = instance.to_ascii_lowercase().into();
    let certificate_expires_at = hello
        .certificate_expires_at
        .and_then(|at| SystemTime::try_from(at).ok());
    let about = About {
        instance: instance.clone(),
        identity: identity.clone(),
        address: hello.inbound_address.clone(),
        metrics_address: hello.metrics_address.clone(),
        version: cut(&hello.proxy_version),
        certificate_expires_at,
    };
    let address = hello.inbound_address.as_str();
    let sidecar = Sidecar {
        instance,
        identity,
        address: (!address.is_empty()).then(|| address.into()),
        labels: Arc::new(hello.labels.clone().into_iter().collect()),
        zone: hello.zone.as_str().into(),
    };
    Ok((about, sidecar))
}

fn check_address(field: &str, text: &str) -> Result<(), String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => Ok(()),
        Ok(_) => Err(format!("{field} {text:?}: peers cannot reach this")),
        Err(_) => Err(format!("{field} {:?} is not ip:port", cut(text))),
    }
}

/// Checks names of resources.
pub(super) fn check_names<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    match names.find(|name| name.is_empty() || name.len() > MAX_NAME) {
        None => Ok(()),
        Some(name) => Err(format!(
            "name {:?}: 1 to {MAX_NAME} bytes are allowed",
            cut(name)
        )),
    }
}

/// Reads an announcement. What cannot be understood is refused here; what can be is kept even if it is refused, since
/// services come and change.
pub(super) fn announced(
    announce: &Announce,
    sidecar: &Sidecar,
    state: &Compiled,
) -> Result<(Vec<Announced>, Vec<Refusal>), String> {
    if announce.endpoints.len() > MAX_ENDPOINTS {
        return Err(format!(
            "{} endpoints are announced, at most {MAX_ENDPOINTS} are allowed",
            announce.endpoints.len()
        ));
    }
    let mut kept: Vec<Announced> = Vec::with_capacity(announce.endpoints.len());
    let mut refusals = Vec::new();
    for endpoint in &announce.endpoints {
        let mut refuse = |reason: String| {
            refusals.push(Refusal {
                name: cut(&endpoint.service),
                reason,
            });
        };
        match understood(endpoint, sidecar) {
            Ok(understood) => {
                let twice = |it: &&Announced| {
                    (&it.service, it.port) == (&understood.service, understood.port)
                };
                if kept.iter().find(twice).is_some() {
                    refuse(format!("port {} is announced twice", endpoint.port));
                    continue;
                }
                if let Some(reason) = refusal(&understood, sidecar, state) {
                    refuse(reason);
                }
                kept.push(understood);
            }
            Err(reason) => refuse(reason),
        }
    }
    Ok((kept, refusals))
}

fn understood(endpoint: &AnnouncedEndpoint, sidecar: &Sidecar) -> Result<Announced, String> {
    let service = &endpoint.service;
    let parts = service.split_once('/');
    let named = parts.is_some_and(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    });
    if !named || service.len() > MAX_NAME {
        return Err("a service is named <namespace>/<name>".to_owned());
    }
    if sidecar.address.is_none() {
        return Err("this sidecar gave no inbound address in its Hello".to_owned());
    }
    let port = u16::try_from(endpoint.port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| format!("port {}: 1 to 65535 are allowed", endpoint.port))?;
    let state = match endpoint.state() {
        WireState::Ready => EndpointState::Ready,
        WireState::NotReady => EndpointState::NotReady,
        WireState::Draining => EndpointState::Draining,
        WireState::Unspecified => return Err("its state is not set".to_owned()),
    };
    Ok(Announced {
        service: service.as_str().into(),
        port,
        weight: endpoint.weight.max(1),
        state,
    })
}

/// Why callers do not get an endpoint; none where they do once it is ready.
fn refusal(endpoint: &Announced, sidecar: &Sidecar, state: &Compiled) -> Option<String> {
    let Some(service) = state.service(&endpoint.service) else {
        return Some(
            "there is no such service yet; the endpoint counts when it is created".to_owned(),
        );
    };
    let service = &service.compiled;
    if !service.may_be_served_by(&sidecar.identity) {
        return Some(format!(
            "{} may not serve it; allowed: {}",
            sidecar.identity,
            service.server_identities.join(", ")
        ));
    }
    if service.inbound_port(endpoint.port.into()).is_none() {
        let ports: Vec<String> = service
            .inbound
            .iter()
            .map(|it| it.port.to_string())
            .collect();
        return Some(format!(
            "it has no port {}; it has {}",
            endpoint.port,
            ports.join(", ")
        ));
    }
    None
}

/// A text from outside, short enough for a message.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}
