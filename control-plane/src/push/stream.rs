//! The task of one sidecar's stream.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::dataplane::v1 as wire;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use wire::discover_request::Message as Request;
use wire::discover_response::Message as Response;
use wire::resource::Body;

use super::Context;
use super::codec::{Delta, Outgoing};
use super::hello;
use super::holdings::Holdings;
use super::sidecars::Ticket;
use crate::compile::{Compiled, Shared};
use crate::discovery::{Announced, Sidecar};
use crate::tls::PeerCertificate;

/// A sidecar that opens a stream says who it is by then.
const HELLO: Duration = Duration::from_secs(10);

type Responses = mpsc::Sender<Result<Outgoing, Status>>;

/// Serves a stream until either side ends it.
pub(super) async fn run(
    context: Context,
    certificate: PeerCertificate,
    mut requests: Streaming<wire::DiscoverRequest>,
    responses: Responses,
) {
    let expires = until(certificate.not_after);
    let opened = open(&context, certificate, &mut requests).await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(status) => {
            tracing::warn!(reason = status.message(), "refused a stream");
            let _ = responses.send(Err(status)).await;
            return;
        }
    };
    let about = &stream.sidecar;
    let (instance, identity) = (about.instance.clone(), about.identity.clone());
    tracing::info!(%instance, %identity, "sidecar connected");
    context.metrics.sidecars.inc();
    let end = stream.serve(&mut requests, &responses, expires).await;
    context.metrics.sidecars.dec();
    if context.sidecars.close(&stream.ticket) {
        context.registry.disconnect(&instance);
    }
    match end {
        Some(status) => {
            tracing::info!(%instance, %identity, reason = status.message(), "ended a sidecar's stream");
            let _ = responses.try_send(Err(status));
        }
        None => tracing::info!(%instance, %identity, "sidecar disconnected"),
    }
}

async fn open(
    context: &Context,
    certificate: PeerCertificate,
    requests: &mut Streaming<wire::DiscoverRequest>,
) -> Result<Stream, Status> {
    let first = tokio::time::timeout(HELLO, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
    let Some(Request::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument(
            "the first message must be a Hello",
        ));
    };
    let (about, sidecar) =
        hello::read(&hello, certificate.identity).map_err(Status::invalid_argument)?;
    context
        .registry
        .connect(sidecar.clone())
        .map_err(|error| Status::permission_denied(error.to_string()))?;
    let ticket = context.sidecars.open(about, &hello.held);
    let announced = context.registry.announced(&sidecar.instance);
    Ok(Stream {
        context: context.clone(),
        holdings: Holdings::new(sidecar.identity.namespace(), hello.held),
        announced: announced
            .map(|(_, endpoints)| endpoints)
            .unwrap_or_default(),
        ticket,
        sidecar,
        workload: None,
        nonces: 0,
        waiting: false,
        dirty: true,
        seen: 0,
    })
}

struct Stream {
    context: Context,
    sidecar: Sidecar,
    ticket: Ticket,
    holdings: Holdings,
    announced: Vec<Announced>,
    /// Made last time, with what it was made from.
    workload: Option<(Vec<wire::InboundPort>, Arc<Shared>)>,
    nonces: u64,
    /// A delta was sent and not answered. Further ones wait and become one.
    waiting: bool,
    /// Something may have to be sent.
    dirty: bool,
    /// Version of the configuration that was looked at last.
    seen: u64,
}

impl Stream {
    /// Returns why the control plane ends the stream; none where the sidecar did.
    async fn serve(
        &mut self,
        requests: &mut Streaming<wire::DiscoverRequest>,
        responses: &Responses,
        expires: tokio::time::Instant,
    ) -> Option<Status> {
        let mut state = self.context.state.clone();
        let mut shutdown = self.context.shutdown.clone();
        let mut replaced = self.ticket.replaced.clone();
        let expired = tokio::time::sleep_until(expires);
        tokio::pin!(expired);
        let welcome = Response::Welcome(wire::Welcome {
            lease: self.context.registry.lease().try_into().ok(),
            control_plane_version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        send(responses, welcome).await?;
        loop {
            let now = state.borrow_and_update().clone();
            let news = self.look_at(&now);
            if !self.waiting && self.dirty {
                self.dirty = false;
                self.push(&now, responses).await?;
            } else if !self.waiting && news {
                self.update(|record| record.up_to_date(now.version));
            }
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        if let Err(status) = self.take(request, &now, responses).await? {
                            return Some(status);
                        }
                    }
                    Ok(None) | Err(_) => return None,
                },
                changed = state.changed() => if changed.is_err() {
                    return Some(Status::unavailable("the control plane stops"));
                },
                () = is_true(&mut replaced) => {
                    return Some(Status::aborted("another stream of this instance took its place"));
                }
                () = is_true(&mut shutdown) => {
                    return Some(Status::unavailable("the control plane stops"));
                }
                () = &mut expired => {
                    return Some(Status::unauthenticated(
                        "the certificate that this stream was opened with has expired; connect again with the renewed one",
                    ));
                }
            }
        }
    }

    /// Notes whether a new version concerns this sidecar. Returns whether it is a new one.
    fn look_at(&mut self, state: &Compiled) -> bool {
        if state.version == self.seen {
            return false;
        }
        let serves = |name: &Arc<str>| self.announced.iter().any(|it| it.service == *name);
        self.dirty |= state.version != self.seen + 1
            || self.holdings.is_concerned(&state.changed)
            || state.changed.services.iter().any(serves);
        self.seen = state.version;
        true
    }

    /// Takes one message. None: the sidecar does not read any more.
    async fn take(
        &mut self,
        request: wire::DiscoverRequest,
        state: &Compiled,
        responses: &Responses,
    ) -> Option<Result<(), Status>> {
        self.context.registry.touch(&self.sidecar.instance);
        self.update(|record| record.last_seen = SystemTime::now());
        let result = match request.message {
            Some(Request::Subscribe(subscribe)) => self.subscribe(subscribe),
            Some(Request::Ack(ack)) => {
                self.answered(&ack.nonce, &[]);
                Ok(())
            }
            Some(Request::Nack(nack)) => {
                let refusals = nack.refusals.into_iter().map(|it| {
                    let name: Arc<str> = it.name.into();
                    (name, hello::cut(&it.reason))
                });
                self.answered(&nack.nonce, &refusals.collect::<Vec<_>>());
                Ok(())
            }
            Some(Request::Announce(announce)) => {
                match hello::announced(&announce, &self.sidecar, state) {
                    Ok((announced, refusals)) => {
                        self.announced.clone_from(&announced);
                        self.dirty = true;
                        self.context
                            .registry
                            .announce(&self.sidecar.instance, announced);
                        let result = Response::AnnounceResult(wire::AnnounceResult { refusals });
                        send(responses, result).await?;
                        Ok(())
                    }
                    Err(problem) => Err(problem),
                }
            }
            Some(Request::Heartbeat(_)) => Ok(()),
            Some(Request::Hello(_)) => Err("a second Hello on one stream".to_owned()),
            // A message of a newer sidecar.
            None => Ok(()),
        };
        Some(result.map_err(Status::invalid_argument))
    }

    fn subscribe(&mut self, subscribe: wire::Subscribe) -> Result<(), String> {
        hello::check_names(subscribe.names.iter())?;
        self.holdings.unsubscribe(&subscribe.unsubscribe);
        self.holdings.subscribe(subscribe.names);
        self.dirty = true;
        if self.holdings.subscriptions() > hello::MAX_NAMES {
            return Err(format!(
                "at most {} names can be subscribed to",
                hello::MAX_NAMES
            ));
        }
        let names = self.holdings.names().cloned().collect();
        self.update(|record| {
            record.forget(&subscribe.unsubscribe);
            record.subscriptions = names;
        });
        Ok(())
    }

    fn answered(&mut self, nonce: &str, refusals: &[(Arc<str>, String)]) {
        let took = self.update(|record| {
            // An answer to something else says nothing about what is on its way.
            record
                .expects(nonce)
                .then(|| record.answered(refusals))
                .flatten()
        });
        let Some(Some(took)) = took else { return };
        self.waiting = false;
        // What came meanwhile, and what was cut off.
        self.dirty = true;
        let metrics = &self.context.metrics;
        metrics.push.observe(took.as_secs_f64());
        if refusals.is_empty() {
            metrics.acks.inc();
        } else {
            metrics.nacks.inc();
        }
        for (resource, reason) in refusals {
            tracing::warn!(
                instance = %self.sidecar.instance, identity = %self.sidecar.identity,
                %resource, reason, "a sidecar refused a resource"
            );
        }
    }

    /// Sends what the sidecar lacks. None: it does not read any more.
    async fn push(&mut self, state: &Compiled, responses: &Responses) -> Option<()> {
        let workload = self.workload(state);
        let Some(difference) = self.holdings.difference(state, &workload) else {
            self.update(|record| record.up_to_date(state.version));
            return Some(());
        };
        self.nonces += 1;
        let delta = Delta {
            nonce: self.nonces.to_string(),
            version: state.version,
            resources: difference.resources,
            removed: difference.removed,
        };
        self.update(|record| record.sent(&delta));
        self.waiting = true;
        self.context.metrics.pushes.inc();
        responses.send(Ok(Outgoing::Delta(delta))).await.ok()
    }

    /// What the sidecar serves: of what it announced, what it may.
    fn workload(&mut self, state: &Compiled) -> Arc<Shared> {
        let ports: Vec<wire::InboundPort> = self
            .announced
            .iter()
            .filter_map(|endpoint| {
                let service = &state.service(&endpoint.service)?.compiled;
                let port = service.inbound_port(endpoint.port.into())?;
                service
                    .may_be_served_by(&self.sidecar.identity)
                    .then(|| port.clone())
            })
            .collect();
        if let Some((same, workload)) = &self.workload
            && *same == ports
        {
            return workload.clone();
        }
        let mut serves: Vec<Arc<str>> = ports.iter().map(|it| it.service.as_str().into()).collect();
        serves.sort();
        serves.dedup();
        let body = wire::Workload {
            ports: ports.clone(),
        };
        let workload = Arc::new(Shared::new("workload", Body::Workload(body)));
        self.update(|record| {
            record.serves = serves;
            record.workload = Some((ports.as_slice().into(), workload.version));
        });
        self.workload = Some((ports, workload.clone()));
        workload
    }

    fn update<T>(&self, change: impl FnOnce(&mut super::sidecars::Record) -> T) -> Option<T> {
        self.context.sidecars.update(&self.ticket, change)
    }
}

async fn send(responses: &Responses, message: Response) -> Option<()> {
    let message = Some(message);
    let response = wire::DiscoverResponse { message };
    responses.send(Ok(Outgoing::Message(response))).await.ok()
}

/// Ends when the value is true; never where that cannot happen any more.
async fn is_true(receiver: &mut watch::Receiver<bool>) {
    if receiver.wait_for(|it| *it).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn until(at: SystemTime) -> tokio::time::Instant {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::Instant::now() + left
}
