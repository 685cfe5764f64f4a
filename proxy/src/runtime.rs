//! Workers: the threads of the data path.
//!
//! Each worker is a thread with a runtime, listeners and upstream connections of its own, so nothing on a request's path
//! takes a lock or moves to another core. With more than one worker the kernel spreads connections over their listeners
//! (`SO_REUSEPORT`).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;

use crate::listener::{self, Connections, Sockets};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::telemetry::Direction;
use crate::telemetry::metrics::RequestMetrics;
use crate::{detect, inbound, outbound, tcp};

/// Where a sidecar listens. `None`: not at all.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    /// Plain HTTP from the application.
    pub outbound: Option<SocketAddr>,
    /// Mutual TLS from peers.
    pub inbound: Option<SocketAddr>,
    /// TLS of the application's own, for whichever service its ClientHello names.
    pub tls: Option<SocketAddr>,
    /// Opaque bytes from the application, one listener for each service.
    pub tcp: Vec<TcpBinding>,
    pub proxy_protocol: ProxyProtocol,
}

/// Which listeners' connections begin with a PROXY protocol header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    pub outbound: bool,
    pub inbound: bool,
    /// Those for bytes: of single services, and for TLS.
    pub tcp: bool,
}

/// A listener for one TCP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpBinding {
    /// `<namespace>/<name>`.
    pub service: Arc<str>,
    /// Port of the service.
    pub port: u16,
    pub listen: SocketAddr,
}

/// The addresses that were bound, in the order of [`Bindings`]: they differ where port 0 was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    pub outbound: Option<SocketAddr>,
    pub inbound: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    pub tcp: Vec<SocketAddr>,
    pub proxy_protocol: ProxyProtocol,
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    bound: Bound,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Ends the workers, with whatever connections are still open, and waits for their threads. Call it when a drain is
    /// over (or was given up). Blocks.
    pub fn join(self) {
        // No receiver is left where every worker has ended by itself.
        let _ = self.stop.send(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// Binds all sockets, then starts the workers.
///
/// # Errors
/// A socket that cannot be bound (the message names the address), or a thread or runtime that cannot be made.
pub fn spawn(shared: Arc<Shared>, bindings: Bindings, workers: usize) -> io::Result<Workers> {
    let workers = workers.max(1);
    let mut sockets = Vec::with_capacity(workers);
    let first = Sockets::bind(&bindings, workers > 1)?;
    let bound = first.bound()?;
    sockets.push(first);
    let again = Bindings {
        outbound: bound.outbound,
        inbound: bound.inbound,
        tls: bound.tls,
        proxy_protocol: bindings.proxy_protocol,
        tcp: bindings
            .tcp
            .iter()
            .zip(&bound.tcp)
            .map(|(binding, listen)| TcpBinding {
                listen: *listen,
                ..binding.clone()
            })
            .collect(),
    };
    for _ in 1..workers {
        sockets.push(Sockets::bind(&again, true)?);
    }

    let (stop, stopped) = watch::channel(false);
    let mut threads = Vec::with_capacity(workers);
    for (number, sockets) in sockets.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        let bound = bound.clone();
        let stopped = stopped.clone();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                if let Err(error) = run(shared, sockets, bound, stopped) {
                    tracing::error!(worker = number, %error, "worker could not start");
                }
            })?;
        threads.push(thread);
    }
    Ok(Workers {
        bound,
        stop,
        threads,
    })
}

/// What everything on one worker shares.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    /// Ports whose servers speak first.
    pub(crate) learnt: detect::Learnt,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) connections: Connections,
    pub(crate) bound: Bound,
    /// Requests from the application that no service takes.
    pub(crate) unrouted: Arc<RequestMetrics>,
    /// Requests from peers for what is not served here.
    pub(crate) unserved: Arc<RequestMetrics>,
    /// An empty name, to share.
    pub(crate) nothing: Arc<str>,
    /// Set once a drain has begun.
    pub(crate) draining: Cell<bool>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, bound: Bound) -> Rc<Worker> {
        let unrouted = shared.metrics.request(Direction::Outbound, "", "", "");
        let unserved = shared.metrics.request(Direction::Inbound, "", "", "");
        Rc::new(Worker {
            pool: Pool::default(),
            learnt: detect::Learnt::default(),
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            connections: Connections::default(),
            bound,
            unrouted,
            unserved,
            nothing: Arc::from(""),
            draining: Cell::new(false),
            shared,
        })
    }

    /// Whether a connection to this address would come back to this sidecar as a request of its own application.
    pub(crate) fn is_own_outbound(&self, address: SocketAddr) -> bool {
        self.bound
            .outbound
            .is_some_and(|own| listener::reaches(address, own))
    }

    /// Whether a connection to this address would come back as one of a peer.
    pub(crate) fn is_own_inbound(&self, address: SocketAddr) -> bool {
        self.bound
            .inbound
            .is_some_and(|own| listener::reaches(address, own))
    }
}

/// One worker, from its first connection to its last.
fn run(
    shared: Arc<Shared>,
    sockets: Sockets,
    bound: Bound,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let worker = Worker::new(shared, bound);
        let listeners = sockets.into_tokio()?;
        tokio::task::spawn_local(Rc::clone(&worker).sweep());
        if let Some(socket) = listeners.outbound {
            tokio::task::spawn_local(outbound::listen(Rc::clone(&worker), socket));
        }
        if let Some(socket) = listeners.inbound {
            tokio::task::spawn_local(inbound::listen(Rc::clone(&worker), socket));
        }
        if let Some(socket) = listeners.tls {
            tokio::task::spawn_local(tcp::tls::listen(Rc::clone(&worker), socket));
        }
        for (socket, binding) in listeners.tcp {
            tokio::task::spawn_local(tcp::listen(Rc::clone(&worker), socket, binding));
        }

        let stop = async {
            // The sender lives in `Workers`; when it is dropped, nobody waits for this thread any more.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stop => {}
            () = worker.drained() => {}
        }
        Ok(())
    })
}

impl Worker {
    /// Waits for the beginning of a drain, tells the connections, and waits until the last one is closed.
    async fn drained(&self) {
        self.shared.drain.signaled().await;
        self.draining.set(true);
        self.pool.close_idle();
        self.connections.wake_all();
        self.connections.none_left().await;
    }

    /// Closes upstream connections that were idle for too long or that the configuration no longer names.
    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(crate::pool::SWEEP_INTERVAL).await;
            self.pool.sweep();
            self.pool.report(&self.shared.metrics);
            crate::pool::warm(&self);
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("bound", &self.bound)
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
