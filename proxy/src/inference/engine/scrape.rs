//! Reads the metrics of the model servers behind this sidecar, again and again.
//!
//! On the control thread, one task for each served port, and never for a request: what came of it is in [`Signals`]. The same task
//! follows the configuration for those who are asked ([`ask`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::MissedTickBehavior;
use tracing::info;

use super::{Engine, Figures, Scrape, Signals, ask, page};
use crate::address::Address;
use crate::balance::below;
use crate::policy::{EngineSource, InboundPort, Snapshot};
use crate::shared::Shared;

/// How soon a change of the configuration is seen.
const TICK: Duration = Duration::from_millis(100);
/// A page that takes longer says what was. A server that is busy may take some hundred milliseconds.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A longer page is not read. vLLM's has about a hundred kilobytes, with a thousand adapters some more.
const MAX_PAGE: usize = 2 << 20;
/// Head of the answer, bytes.
const MAX_HEAD: usize = 16 << 10;
/// Longest pause after failures, which begins with the interval and doubles. A server that takes minutes to load its model is
/// known seconds after it is there.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Looks come up to so many per cent earlier or later: sidecars of one machine that started together must not ask together.
const JITTER_PERCENT: u32 = 10;
const AGENT: HeaderValue = HeaderValue::from_static("outrigger-engine-signals");
/// With it, servers write the format that is read here and not OpenMetrics.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain;version=0.0.4");

/// Where llama.cpp's server says how it was started.
const PLACES_PATH: &str = "/props";

/// Where Triton has its metrics, whatever port its models are on.
const TRITON_PORT: u16 = 8002;

/// Reads one port's metrics. Dropped, it ends.
struct Running {
    port: watch::Sender<Arc<InboundPort>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs until the task is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = HashMap::new();
    let mut asking = HashMap::new();
    let mut seen: Option<Arc<Snapshot>> = None;
    loop {
        ticks.tick().await;
        let snapshot = shared.snapshot.load_full();
        let is_seen = |seen: &Arc<Snapshot>| Arc::ptr_eq(seen, &snapshot);
        if !seen.as_ref().is_some_and(is_seen) {
            reconcile(&mut running, &snapshot);
            ask::reconcile(&mut asking, &snapshot, &shared);
            seen = Some(snapshot);
        }
    }
}

/// Starts what is new, ends what is gone, and tells the rest what has changed. By the signals' address in memory: they are the
/// same for as long as a port is served.
fn reconcile(running: &mut HashMap<usize, Running>, snapshot: &Snapshot) {
    let mut before = std::mem::take(running);
    for port in snapshot.inbound.values() {
        let Some(signals) = port.signals.as_ref().filter(|_| source(port).is_some()) else {
            continue;
        };
        let key = Arc::as_ptr(signals) as usize;
        let one = match before.remove(&key) {
            Some(kept) => {
                kept.port.send_replace(Arc::clone(port));
                kept
            }
            None => {
                let (sender, receiver) = watch::channel(Arc::clone(port));
                Running {
                    port: sender,
                    task: tokio::spawn(follow(receiver)),
                }
            }
        };
        running.insert(key, one);
    }
}

fn source(port: &InboundPort) -> Option<&EngineSource> {
    port.inference.as_ref()?.engine.as_ref()
}

async fn follow(port: watch::Receiver<Arc<InboundPort>>) {
    let mut reader = Reader::default();
    let mut pause = Duration::ZERO;
    let mut known = None;
    loop {
        let current = Arc::clone(&port.borrow());
        let (Some(source), Some(signals)) = (source(&current), &current.signals) else {
            return;
        };
        let result = look(&mut reader, &current, source, signals).await;
        pause = match result {
            Ok(_) => source.interval,
            Err(_) => (pause * 2).clamp(source.interval, MAX_PAUSE.max(source.interval)),
        };
        let now_known = result.map(|figures| figures.engine);
        if known != Some(now_known) {
            tell(&current, now_known);
            known = Some(now_known);
        }
        let wait = jittered(pause);
        drop(current);
        tokio::time::sleep(wait).await;
    }
}

fn tell(port: &InboundPort, known: Result<Engine, Scrape>) {
    match known {
        Ok(engine) => info!(
            service = %port.service, port = port.port,
            "the load of the model server ({}) is known", engine.as_str()
        ),
        Err(why) => info!(
            service = %port.service, port = port.port,
            "the load of the model server is unknown, its metrics cannot be read: {}", why.as_str()
        ),
    }
}

/// Looks once.
async fn look(
    reader: &mut Reader,
    port: &InboundPort,
    source: &EngineSource,
    signals: &Signals,
) -> Result<Figures, Scrape> {
    let in_flight = signals.in_flight_at(port);
    let asking = reader.read(&port.application, source);
    let result = tokio::time::timeout(TIMEOUT, asking).await;
    let result = result.unwrap_or(Err(Scrape::Timeout));
    match result {
        Ok(figures) => {
            signals.scraped(in_flight, figures);
            if let Some(gate) = &port.gate {
                if gate.learns_batch()
                    && figures.engine == Engine::LlamaCpp
                    && let Ok(Some(places)) = tokio::time::timeout(TIMEOUT, reader.places()).await
                {
                    gate.engine_has(places);
                }
                gate.engine_says(&figures);
            }
        }
        Err(why) => {
            reader.failed(why);
            signals.failed(why);
        }
    }
    result
}

fn jittered(interval: Duration) -> Duration {
    let spread = interval / 100 * JITTER_PERCENT;
    let nanos = u64::try_from((spread * 2).as_nanos()).unwrap_or(u64::MAX);
    interval - spread + Duration::from_nanos(below(&mut rand::rng(), nanos.max(1)))
}

/// Asks one server, over a connection that is kept.
#[derive(Default)]
struct Reader {
    open: Option<Open>,
    /// Which of the paths is tried, where it is not known.
    attempt: usize,
    /// The server was asked how many places it has.
    asked_places: bool,
}

struct Open {
    to: Address,
    send: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Reader {
    /// Whatever it was, the next look begins anew, and perhaps elsewhere.
    fn failed(&mut self, why: Scrape) {
        self.open = None;
        // It may have been started anew, with others.
        self.asked_places = false;
        if matches!(why, Scrape::Status | Scrape::Unrecognised) {
            self.attempt = self.attempt.wrapping_add(1);
        }
    }

    /// How many places llama.cpp's server has, once after it was found. `None`: it was asked, or does not say.
    async fn places(&mut self) -> Option<u32> {
        if self.asked_places {
            return None;
        }
        let mut open = self.open.take()?;
        // Also where it hangs: the next looks are not to.
        self.asked_places = true;
        let Ok(page) = get(&mut open, PLACES_PATH).await else {
            // It was not answered: with the next look, on another connection.
            self.asked_places = false;
            return None;
        };
        self.open = Some(open);
        places(&page.ok()?)
    }

    async fn read(
        &mut self,
        application: &Address,
        source: &EngineSource,
    ) -> Result<Figures, Scrape> {
        let to = place(application, source);
        let path = path(source, self.attempt);
        if let Some(mut open) = self.open.take_if(|open| open.to == to)
            // It may have been closed since: that says nothing.
            && let Ok(page) = get(&mut open, path).await
        {
            self.open = Some(open);
            return figures(&page?, source);
        }
        self.open = None;
        let mut open = connect(to).await.map_err(|_| Scrape::Unreachable)?;
        let page = get(&mut open, path)
            .await
            .map_err(|Broken| Scrape::Unreachable)?;
        self.open = Some(open);
        figures(&page?, source)
    }
}

/// `total_slots` of llama.cpp's properties. `None`: they do not say it.
fn places(page: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Properties {
        total_slots: u32,
    }
    let properties: Properties = serde_json::from_slice(page).ok()?;
    (properties.total_slots > 0).then_some(properties.total_slots)
}

fn figures(page: &[u8], source: &EngineSource) -> Result<Figures, Scrape> {
    page::read(page, source.engine).ok_or(Scrape::Unrecognised)
}

/// Where the metrics are: on the application's host.
fn place(application: &Address, source: &EngineSource) -> Address {
    let usual = (source.engine == Some(Engine::Triton)).then_some(TRITON_PORT);
    match (application, source.port.or(usual)) {
        (Address::Ip(address), Some(port)) => SocketAddr::new(address.ip(), port).into(),
        (Address::Unix(_), Some(port)) => SocketAddr::from(([127, 0, 0, 1], port)).into(),
        (application, None) => application.clone(),
    }
}

fn path(source: &EngineSource, attempt: usize) -> &str {
    const USUAL: &str = "/metrics";
    const TENSORRT_LLM: &str = "/prometheus/metrics";
    if let Some(path) = &source.path {
        return path;
    }
    match source.engine {
        Some(Engine::TensorRtLlm) => TENSORRT_LLM,
        Some(_) => USUAL,
        None => [USUAL, TENSORRT_LLM][attempt % 2],
    }
}

async fn connect(to: Address) -> Result<Open, Broken> {
    match &to {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await.map_err(|_| Broken)?;
            handshake(stream, to).await
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|_| Broken)?;
            handshake(stream, to).await
        }
    }
}

async fn handshake<S>(stream: S, to: Address) -> Result<Open, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream));
    let (send, connection) = handshake.await.map_err(|_| Broken)?;
    let driver = tokio::spawn(async move {
        // How it ends shows in the requests on it.
        let _ = connection.await;
    });
    Ok(Open {
        to,
        send,
        driver: driver.abort_handle(),
    })
}

/// The connection is not good.
#[derive(Debug)]
struct Broken;

/// One request. The outer error: it was not answered.
async fn get(open: &mut Open, path: &str) -> Result<Result<Bytes, Scrape>, Broken> {
    open.send.ready().await.map_err(|_| Broken)?;
    let host = match &open.to {
        Address::Ip(address) => HeaderValue::from_str(&address.to_string()).ok(),
        Address::Unix(_) => None,
    };
    let request = Request::get(path)
        // A socket has no name that a host header could have.
        .header(HOST, host.unwrap_or(HeaderValue::from_static("localhost")))
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, FORMAT)
        .body(Empty::new())
        .map_err(|_| Broken)?;
    let response = open.send.send_request(request).await.map_err(|_| Broken)?;
    if response.status() != StatusCode::OK {
        return Ok(Err(Scrape::Status));
    }
    match Limited::new(response.into_body(), MAX_PAGE).collect().await {
        Ok(page) => Ok(Ok(page.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(Scrape::TooLarge)),
        Err(_) => Err(Broken),
    }
}

#[cfg(test)]
mod tests;
