//! One stream to the control plane, from Hello to its end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};
use wire::dataplane_service_client::DataplaneServiceClient;
use wire::discover_request::Message as Up;
use wire::discover_response::Message as Down;

use super::channel::{Connection, MAX_MESSAGE};
use super::state::State;
use super::{LookupQueue, Settings, leases};
use crate::identity::keeper::IdentityReceiver;
use crate::telemetry::report;

/// The control plane's first answer has to be there within this time.
const WELCOME: Duration = Duration::from_secs(5);
/// Messages on their way up. More than this and the control plane does not read them: the connection is given up.
const QUEUE: usize = 256;
/// Lookups that go into one message.
const BATCH: usize = 64;
/// Between two looks for subscriptions that nobody uses.
const SWEEP: Duration = Duration::from_secs(60);
/// A lease shorter than this would be mostly heartbeats.
const LEAST_LEASE: Duration = Duration::from_millis(300);
/// From the control plane's word that it knows of the drain to the end of accepting: its push to the callers is under way.
const GRACE: Duration = Duration::from_millis(200);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the control plane did not answer within {} s", WELCOME.as_secs())]
    NoWelcome,
    #[error("the control plane's first message was not a welcome")]
    NotWelcome,
    #[error("the control plane ended the stream: {} ({:?})", .0.message(), .0.code())]
    Status(#[from] Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read")]
    Stuck,
    /// The control plane ends a stream together with the certificate that it was opened with: better now, between two
    /// messages, than then.
    #[error("the certificate was renewed")]
    Renewed,
}

/// What a stream works on.
pub(super) struct Session<'a> {
    pub state: &'a mut State,
    pub queue: &'a mut LookupQueue,
    pub settings: &'a Settings,
    /// One for each application.
    pub ready: watch::Receiver<Vec<bool>>,
    /// The one in use has been seen.
    pub identity: IdentityReceiver,
}

impl Session<'_> {
    /// Runs a stream until it ends. `welcomed` is called when it is up.
    pub(super) async fn run(
        mut self,
        connection: Connection,
        expires_at: std::time::SystemTime,
        welcomed: impl FnOnce(),
    ) -> Ended {
        let (up, requests) = mpsc::channel(QUEUE);
        let link = Link {
            up,
            announced: None,
            refused: HashSet::new(),
            told_drain: false,
        };
        let shared = self.state.shared().clone();
        let report = report::run(
            shared,
            self.settings.instance.clone(),
            connection.channel.clone(),
        );
        let leases = leases::run(
            self.state.shared().clone(),
            self.state.budgets(),
            self.settings.instance.clone(),
            connection.channel.clone(),
        );
        let (held, subscribe) = self.state.resume();
        let hello = self.settings.hello(connection.local, held, expires_at);
        let stream = match link.send(Up::Hello(hello)) {
            Ok(()) => open(connection, requests).await,
            Err(ended) => return ended,
        };
        let (stream, lease) = match stream {
            Ok(opened) => opened,
            Err(ended) => return ended,
        };
        welcomed();
        if !subscribe.names.is_empty()
            && let Err(ended) = link.send(Up::Subscribe(subscribe))
        {
            return ended;
        }
        tokio::select! {
            ended = self.follow(link, stream, lease) => ended,
            // Never ends by itself.
            () = report => Ended::Closed,
            () = leases => Ended::Closed,
        }
    }

    async fn follow(
        &mut self,
        mut link: Link,
        mut stream: Streaming<wire::DiscoverResponse>,
        lease: Duration,
    ) -> Ended {
        let beat = lease.max(LEAST_LEASE) / 3;
        let mut heartbeats = interval_at(Instant::now() + beat, beat);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps = interval_at(Instant::now() + SWEEP, SWEEP);
        let drain = self.state.shared().drain.clone();
        let mut draining = pin!(drain.started());
        let mut names = Vec::with_capacity(BATCH);
        loop {
            if let Err(ended) = self.announce(&mut link) {
                return ended;
            }
            let save_at = self.state.save_at();
            let sent = tokio::select! {
                response = stream.message() => match response {
                    Ok(Some(response)) => self.receive(&mut link, response),
                    Ok(None) => return Ended::Closed,
                    Err(status) => return status.into(),
                },
                count = self.queue.wanted.recv_many(&mut names, BATCH), if !self.queue.wanted.is_closed() => {
                    debug!(count, "looking up");
                    let subscribe = self.state.ask(&names);
                    names.clear();
                    subscribe.map_or(Ok(()), |subscribe| link.send(Up::Subscribe(subscribe)))
                }
                () = self.queue.resolved.notified() => {
                    self.state.publish();
                    Ok(())
                }
                // The loop begins with the announcement.
                Ok(()) = self.ready.changed() => Ok(()),
                Ok(()) = self.identity.changed() => return Ended::Renewed,
                () = &mut draining, if !drain.is_draining() => Ok(()),
                _ = heartbeats.tick() => link.send(Up::Heartbeat(wire::Heartbeat {})),
                _ = sweeps.tick() => {
                    let subscribe = self.state.sweep();
                    subscribe.map_or(Ok(()), |subscribe| link.send(Up::Subscribe(subscribe)))
                }
                () = sleep_until_some(save_at) => {
                    self.state.save().await;
                    Ok(())
                }
            };
            if let Err(ended) = sent {
                return ended;
            }
        }
    }

    fn receive(&mut self, link: &mut Link, response: wire::DiscoverResponse) -> Result<(), Ended> {
        match response.message {
            Some(Down::Delta(delta)) => {
                let nonce = delta.nonce.clone();
                let (version, resources, removed) =
                    (delta.version, delta.resources.len(), delta.removed.len());
                let refusals = self.state.apply(delta);
                debug!(
                    version,
                    resources,
                    removed,
                    refused = refusals.len(),
                    "configuration"
                );
                for refusal in &refusals {
                    warn!("refused {}: {}", refusal.name, refusal.reason);
                }
                link.send(match refusals.is_empty() {
                    true => Up::Ack(wire::Ack { nonce }),
                    false => Up::Nack(wire::Nack { nonce, refusals }),
                })
            }
            Some(Down::AnnounceResult(result)) => {
                link.announce_result(result);
                if link.told_drain {
                    let drain = self.state.shared().drain.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(GRACE).await;
                        drain.announced();
                    });
                }
                Ok(())
            }
            // A control plane may say hello twice, or something that this version does not know.
            Some(Down::Welcome(_)) | None => Ok(()),
        }
    }

    /// Tells the control plane what is served, if that is news.
    fn announce(&mut self, link: &mut Link) -> Result<(), Ended> {
        let draining = self.state.shared().drain.is_draining();
        let ready = self.ready.borrow_and_update().clone();
        let endpoints: Vec<_> = self
            .settings
            .served
            .iter()
            .zip(ready)
            .map(|(served, ready)| wire::AnnouncedEndpoint {
                service: served.service.to_string(),
                port: served.port.into(),
                weight: served.weight,
                state: match () {
                    () if draining => wire::EndpointState::Draining,
                    // Not before the inbound side knows the port: the first request would be refused.
                    () if ready && self.state.serves(&served.service, served.port) => {
                        wire::EndpointState::Ready
                    }
                    () => wire::EndpointState::NotReady,
                }
                .into(),
            })
            .collect();
        if draining && endpoints.is_empty() {
            self.state.shared().drain.announced();
        }
        if endpoints.is_empty() || link.announced.as_ref() == Some(&endpoints) {
            return Ok(());
        }
        link.told_drain = draining;
        link.announced = Some(endpoints.clone());
        link.send(Up::Announce(wire::Announce { endpoints }))
    }
}

/// The way up, and what was said on it.
struct Link {
    up: mpsc::Sender<wire::DiscoverRequest>,
    announced: Option<Vec<wire::AnnouncedEndpoint>>,
    /// Services of the last refusals, with the reason.
    refused: HashSet<(String, String)>,
    told_drain: bool,
}

impl Link {
    fn send(&self, message: Up) -> Result<(), Ended> {
        let request = wire::DiscoverRequest {
            message: Some(message),
        };
        self.up.try_send(request).map_err(|_| Ended::Stuck)
    }

    fn announce_result(&mut self, result: wire::AnnounceResult) {
        let refused: HashSet<_> = result
            .refusals
            .into_iter()
            .map(|refusal| (refusal.name, refusal.reason))
            .collect();
        for (service, reason) in refused.difference(&self.refused) {
            warn!("{service} is not offered to callers at this sidecar: {reason}");
        }
        self.refused = refused;
    }
}

/// Opens the stream and waits for the welcome; returns the lease too.
async fn open(
    connection: Connection,
    requests: mpsc::Receiver<wire::DiscoverRequest>,
) -> Result<(Streaming<wire::DiscoverResponse>, Duration), Ended> {
    let mut client = DataplaneServiceClient::new(connection.channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let welcome = async {
        let mut stream = client
            .discover(ReceiverStream::new(requests))
            .await?
            .into_inner();
        match stream.message().await?.and_then(|first| first.message) {
            Some(Down::Welcome(welcome)) => Ok((stream, welcome)),
            Some(_) => Err(Ended::NotWelcome),
            None => Err(Ended::Closed),
        }
    };
    let (stream, welcome) = timeout(WELCOME, welcome)
        .await
        .unwrap_or(Err(Ended::NoWelcome))?;
    let lease = welcome
        .lease
        .and_then(|lease| Duration::try_from(lease).ok())
        .unwrap_or(DEFAULT_LEASE);
    info!(
        version = welcome.control_plane_version,
        "connected to the control plane"
    );
    Ok((stream, lease))
}

/// The control plane's own default.
const DEFAULT_LEASE: Duration = Duration::from_secs(5);

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Settings {
    fn hello(
        &self,
        local: SocketAddr,
        held: std::collections::HashMap<String, u64>,
        expires_at: std::time::SystemTime,
    ) -> wire::Hello {
        let address = |listen: SocketAddr| match listen.ip().is_unspecified() {
            true => SocketAddr::new(local.ip(), listen.port()),
            false => listen,
        };
        wire::Hello {
            instance: self.instance.clone(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            inbound_address: match (self.inbound_advertise, self.inbound_listen) {
                (_, None) => String::new(),
                (Some(advertise), Some(_)) => advertise.to_string(),
                (None, Some(listen)) => address(listen).to_string(),
            },
            metrics_address: address(self.metrics_listen).to_string(),
            labels: self.labels.clone().into_iter().collect(),
            held,
            certificate_expires_at: Some(expires_at.into()),
            zone: self.zone.to_string(),
        }
    }
}
