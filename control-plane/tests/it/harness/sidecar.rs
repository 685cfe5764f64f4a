//! The sidecar's end of a stream.

use std::collections::HashMap;

use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{Down, PATIENCE, QUIET, Up};

/// The sidecar's end of a stream.
pub struct Sidecar {
    up: mpsc::Sender<wire::DiscoverRequest>,
    down: Streaming<wire::DiscoverResponse>,
    /// What it holds after all acknowledged deltas.
    pub held: HashMap<String, wire::Resource>,
}

impl Sidecar {
    pub fn new(
        up: mpsc::Sender<wire::DiscoverRequest>,
        down: Streaming<wire::DiscoverResponse>,
    ) -> Sidecar {
        Sidecar {
            up,
            down,
            held: HashMap::new(),
        }
    }

    pub async fn send(&self, message: Up) {
        let message = Some(message);
        self.up
            .send(wire::DiscoverRequest { message })
            .await
            .unwrap();
    }

    pub async fn subscribe(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let unsubscribe = Vec::new();
        self.send(Up::Subscribe(wire::Subscribe { names, unsubscribe }))
            .await;
    }

    pub async fn unsubscribe(&self, names: &[&str]) {
        let unsubscribe = names.iter().map(|name| (*name).to_owned()).collect();
        let names = Vec::new();
        self.send(Up::Subscribe(wire::Subscribe { names, unsubscribe }))
            .await;
    }

    pub async fn ack(&self, nonce: &str) {
        let nonce = nonce.to_owned();
        self.send(Up::Ack(wire::Ack { nonce })).await;
    }

    pub async fn beat(&self) {
        self.send(Up::Heartbeat(wire::Heartbeat {})).await;
    }

    /// Announces endpoints (service, port, state) and returns the refusals.
    pub async fn announce(
        &mut self,
        endpoints: &[(&str, u32, wire::EndpointState)],
    ) -> Vec<wire::Refusal> {
        let endpoints = endpoints
            .iter()
            .map(|(service, port, state)| wire::AnnouncedEndpoint {
                service: (*service).to_owned(),
                port: *port,
                weight: 0,
                state: (*state).into(),
            });
        self.send(Up::Announce(wire::Announce {
            endpoints: endpoints.collect(),
        }))
        .await;
        loop {
            match self.next().await {
                Down::AnnounceResult(result) => return result.refusals,
                Down::Delta(delta) => self.take(delta).await,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    pub async fn message(&mut self) -> Result<Down, Status> {
        let message = tokio::time::timeout(PATIENCE, self.down.message()).await;
        let message = message.map_err(|_| Status::deadline_exceeded("nothing came"))??;
        Ok(message
            .ok_or_else(|| Status::cancelled("closed"))?
            .message
            .unwrap())
    }

    pub async fn next(&mut self) -> Down {
        self.message().await.unwrap()
    }

    /// The next delta, neither acknowledged nor applied.
    pub async fn delta(&mut self) -> wire::Delta {
        match self.next().await {
            Down::Delta(delta) => delta,
            other => panic!("not a delta: {other:?}"),
        }
    }

    /// Applies and acknowledges.
    pub async fn take(&mut self, delta: wire::Delta) {
        for resource in delta.resources {
            self.held.insert(resource.name.clone(), resource);
        }
        for name in delta.removed {
            self.held.remove(&name);
        }
        self.ack(&delta.nonce).await;
    }

    /// Applies deltas until what is held is as wanted.
    pub async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&HashMap<String, wire::Resource>) -> bool,
    ) {
        let reached = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.held) {
                match self.down.message().await.unwrap().unwrap().message.unwrap() {
                    Down::Delta(delta) => self.take(delta).await,
                    Down::AnnounceResult(_) => {}
                    other => panic!("unexpected: {other:?}"),
                }
            }
        })
        .await;
        assert!(
            reached.is_ok(),
            "{what}: not reached; held: {:#?}",
            self.held
        );
    }

    /// Waits a little and fails if something comes.
    pub async fn quiet(&mut self) {
        let message = tokio::time::timeout(QUIET, self.down.message()).await;
        assert!(message.is_err(), "something came: {message:?}");
    }

    /// The status that ends the stream; what comes before it is dropped.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.message().await {
                Ok(_) => {}
                Err(status) if status.code() == Code::DeadlineExceeded => panic!("it does not end"),
                Err(status) => return status,
            }
        }
    }

    pub fn endpoints(&self, service: &str) -> Option<Vec<wire::Endpoint>> {
        endpoints(&self.held, service)
    }

    pub fn service(&self, service: &str) -> Option<wire::Service> {
        match self.held.get(&format!("service/{service}"))?.body.clone()? {
            wire::resource::Body::Service(service) => Some(service),
            other => panic!("{other:?}"),
        }
    }

    /// Versions by name, as in Hello.
    pub fn versions(&self) -> HashMap<String, u64> {
        self.held
            .iter()
            .map(|(name, it)| (name.clone(), it.version))
            .collect()
    }
}

pub fn endpoints(
    held: &HashMap<String, wire::Resource>,
    service: &str,
) -> Option<Vec<wire::Endpoint>> {
    match held.get(&format!("endpoints/{service}"))?.body.clone()? {
        wire::resource::Body::Endpoints(endpoints) => Some(endpoints.endpoints),
        other => panic!("{other:?}"),
    }
}

/// Waits for a number of endpoints.
pub fn count(
    service: &'static str,
    wanted: usize,
) -> impl Fn(&HashMap<String, wire::Resource>) -> bool {
    move |held| endpoints(held, service).is_some_and(|endpoints| endpoints.len() == wanted)
}
