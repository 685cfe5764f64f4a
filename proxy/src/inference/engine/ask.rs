//! Load beside requests. A caller's sidecar knows of an endpoint what its last response said. Where endpoints are chosen by
//! that, those of which it has heard nothing for a while are asked: a `GET` of [`PATH`] over mTLS, answered by the sidecar beside the
//! model server, whose answer says it in its head as every other one ([`orca`]).
//!
//! On the control thread, one task for each port of a service, which asks nobody unless requests are sent there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use h2::client::SendRequest;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::orca;
use crate::balance::{Endpoint, EndpointKey, below};
use crate::policy::{Inference, Snapshot, Upstream};
use crate::pool::{self, Alpn, Target};
use crate::shared::Shared;
use crate::tls::TlsState;

/// What is asked for. Answered by the sidecar and never passed on, where a sidecar asks for a port with `inference`.
pub(crate) const PATH: &str = "/.well-known/outrigger/load";

/// A service to which nothing was sent for so long is not used: nobody is asked.
const USED: Duration = Duration::from_secs(60);
/// For a connection and the answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Asked at the same time.
const AT_ONCE: usize = 16;
/// Asked in one round; those that nothing was heard of for the longest time.
const MOST: usize = 256;
/// Connections that are kept for the next time.
const KEPT: usize = 64;
/// One that was not needed for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Who does not answer is left alone for so long.
const PAUSE: Duration = Duration::from_secs(5);
/// Rounds come up to so many per cent earlier or later: callers that started together must not ask together.
const JITTER_PERCENT: u32 = 20;
const AGENT: HeaderValue = HeaderValue::from_static("outrigger-load");

/// Whether a request asks for the load.
pub(crate) fn is_question(head: &Parts) -> bool {
    head.method == Method::GET && head.uri.path() == PATH
}

/// The answer, without what it says: every response's head gets that.
pub(crate) fn answer() -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A port of a service whose endpoints are asked.
#[derive(Clone)]
struct Subject {
    upstream: Arc<Upstream>,
    inference: Arc<Inference>,
    port: u16,
    server_name: ServerName<'static>,
    after: Duration,
}

/// Service and port.
pub(super) type Key = (Arc<str>, u16);

/// Asks for one port. Dropped, it ends.
pub(super) struct Running {
    subject: watch::Sender<Subject>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts what is new, ends what is gone, and tells the rest what has changed.
pub(super) fn reconcile(
    running: &mut HashMap<Key, Running>,
    snapshot: &Snapshot,
    shared: &Arc<Shared>,
) {
    let mut before = std::mem::take(running);
    for subject in subjects(snapshot) {
        let key = (Arc::clone(&subject.upstream.service), subject.port);
        if running.contains_key(&key) {
            continue;
        }
        let one = match before.remove(&key) {
            Some(kept) => {
                kept.subject.send_replace(subject);
                kept
            }
            None => {
                let (sender, receiver) = watch::channel(subject);
                Running {
                    subject: sender,
                    task: tokio::spawn(follow(receiver, Arc::clone(shared))),
                }
            }
        };
        running.insert(key, one);
    }
}

/// All that requests may go to, and that chooses by load. Several rules may lead to the same.
fn subjects(snapshot: &Snapshot) -> impl Iterator<Item = Subject> {
    let rules = snapshot.services.values().flat_map(|it| &it.rules);
    rules.flat_map(|rule| &rule.backends).filter_map(|backend| {
        let upstream = &backend.upstream;
        let inference = upstream.inference.as_ref()?;
        let after = inference.ask_load_after?;
        upstream.endpoints.wants_prompt().then(|| Subject {
            upstream: Arc::clone(upstream),
            inference: Arc::clone(inference),
            port: backend.port,
            server_name: backend.server_name.clone(),
            after,
        })
    })
}

async fn follow(subject: watch::Receiver<Subject>, shared: Arc<Shared>) {
    let mut known = HashMap::new();
    let mut used = Used::default();
    // What is new is about to be used.
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        let current = subject.borrow().clone();
        pause = jittered(current.after / 2);
        if used.is_used(&current.upstream) {
            round(&current, &shared, &mut known).await;
        } else {
            known.clear();
        }
    }
}

/// Whether requests are sent to a service.
#[derive(Default)]
struct Used {
    begun: u64,
    since: Option<Instant>,
}

impl Used {
    fn is_used(&mut self, upstream: &Upstream) -> bool {
        let endpoints = upstream.endpoints.endpoints().iter();
        let begun = endpoints.map(|it| it.load.begun()).sum();
        let now = Instant::now();
        let since = match self.since {
            Some(since) if self.begun == begun => since,
            _ => *self.since.insert(now),
        };
        self.begun = begun;
        now.saturating_duration_since(since) < USED
    }
}

/// What is kept of an endpoint between two questions.
#[derive(Default)]
struct Known {
    open: Option<Open>,
    /// Not to be asked before.
    next: Option<Instant>,
}

/// A connection, and what it was made with.
struct Open {
    send: SendRequest<Bytes>,
    driver: AbortHandle,
    tls: Option<Arc<TlsState>>,
    used: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Asks all of whom nothing was heard.
async fn round(current: &Subject, shared: &Shared, known: &mut HashMap<EndpointKey, Known>) {
    let now = Instant::now();
    known.retain(|_, it| {
        it.open
            .take_if(|open| now.saturating_duration_since(open.used) >= IDLE);
        it.open.is_some() || it.next.is_some_and(|next| next > now)
    });
    let age = |endpoint: &Endpoint| endpoint.load.reported().map_or(Duration::MAX, |it| it.1);
    let endpoints = current.upstream.endpoints.endpoints().iter();
    let mut silent: Vec<_> = endpoints
        // Nobody else would be believed.
        .filter(|it| it.mtls && it.serves(current.port))
        .map(|it| (age(it), it))
        .filter(|(age, it)| {
            let waits = known.get(&it.key()).and_then(|it| it.next);
            *age >= current.after && waits.is_none_or(|next| next <= now)
        })
        .collect();
    silent.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
    silent.truncate(MOST);
    let questions: Vec<_> = silent
        .into_iter()
        .map(|(_, endpoint)| {
            let open = known.remove(&endpoint.key()).and_then(|it| it.open);
            async move { (endpoint.key(), ask(current, shared, endpoint, open).await) }
        })
        .collect();
    let mut asked = stream::iter(questions).buffer_unordered(AT_ONCE);
    while let Some((key, result)) = asked.next().await {
        shared.metrics.load_reports.asked(result.is_some());
        let kept = match result {
            Some(_) if known.len() >= KEPT => continue,
            Some(open) => Known {
                open: Some(open),
                next: None,
            },
            None => Known {
                open: None,
                next: Some(Instant::now() + PAUSE),
            },
        };
        known.insert(key, kept);
    }
}

/// Asks one endpoint, and takes in what it says. `None`: it does not say it.
async fn ask(
    current: &Subject,
    shared: &Shared,
    endpoint: &Endpoint,
    open: Option<Open>,
) -> Option<Open> {
    let asking = async {
        let tls = shared.tls.load_full();
        let is_current = |open: &Open| match (&open.tls, &tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if let Some(mut open) = open.filter(is_current)
            // It may have been closed since: that says nothing.
            && let Some(response) = exchange(&mut open, current).await
        {
            return Some((open, response));
        }
        let target = Target::of(endpoint, &current.upstream, &current.server_name);
        let mut open = connect(shared, target, tls).await?;
        let response = exchange(&mut open, current).await?;
        Some((open, response))
    };
    let answered = tokio::time::timeout(TIMEOUT, asking).await.ok()?;
    let (open, mut response) = answered?;
    let says = response.headers().contains_key(orca::HEADER);
    let counts = &shared.metrics.load_reports;
    orca::take(&current.inference, endpoint, counts, response.headers_mut());
    says.then_some(open)
}

async fn connect(shared: &Shared, target: Target<'_>, tls: Option<Arc<TlsState>>) -> Option<Open> {
    let connected = Box::pin(pool::dial(shared, target, Alpn::Http2))
        .await
        .ok()?;
    let handshake = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(16 << 10)
        .handshake::<_, Bytes>(connected.stream);
    let (send, connection) = handshake.await.ok()?;
    let driver = tokio::spawn(async move {
        // How it ends shows in the requests on it.
        let _ = connection.await;
    });
    Some(Open {
        send,
        driver: driver.abort_handle(),
        tls,
        used: Instant::now(),
    })
}

/// `None`: it was not answered.
async fn exchange(open: &mut Open, current: &Subject) -> Option<Response<()>> {
    open.used = Instant::now();
    let (namespace, name) = current.upstream.service.split_once('/')?;
    let uri = Uri::builder()
        .scheme("http")
        .authority(format!("{name}.{namespace}"))
        .path_and_query(PATH);
    let request = Request::get(uri.build().ok()?).header(USER_AGENT, AGENT);
    let mut send = open.send.clone().ready().await.ok()?;
    let (response, _) = send.send_request(request.body(()).ok()?, true).ok()?;
    // What else it may say is not read: the stream is reset with the body.
    let (head, _) = response.await.ok()?.into_parts();
    Some(Response::from_parts(head, ()))
}

fn jittered(interval: Duration) -> Duration {
    let spread = interval / 100 * JITTER_PERCENT;
    let nanos = u64::try_from((spread * 2).as_nanos()).unwrap_or(u64::MAX);
    interval - spread + Duration::from_nanos(below(&mut rand::rng(), nanos.max(1)))
}
