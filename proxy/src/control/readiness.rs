//! Whether the applications behind this sidecar take requests: found out by asking them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::info;

use crate::address::Address;
use crate::config::{Readiness, Serve};

/// An application that is not ready is asked this often at least: it is to be taken in as soon as it is.
const WHILE_NOT_READY: Duration = Duration::from_millis(250);
/// So many failures in a row make an application not ready: a model server that is busy may miss one probe. A refused
/// connection counts at once, nobody listens there. Kubernetes' default for readiness probes.
const FAILURES: u32 = 3;
/// Least time for an answer, where the interval is shorter.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// As much of an answer as is looked at: its status line.
const STATUS_LINE: usize = 64;

/// How a probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Ready,
    /// It answered too late or wrongly.
    Failed,
    /// Nobody listens.
    Refused,
}

/// Starts one task for each application. The receiver has a value for each, in order; all are false at first.
pub(super) fn watch(serve: &[Serve]) -> watch::Receiver<Vec<bool>> {
    let (sender, receiver) = watch::channel(vec![false; serve.len()]);
    for (index, serve) in serve.iter().enumerate() {
        let sender = sender.clone();
        let serve = serve.clone();
        tokio::spawn(async move { follow(&serve, index, &sender).await });
    }
    receiver
}

async fn follow(serve: &Serve, index: usize, states: &watch::Sender<Vec<bool>>) {
    let mut ready = false;
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let probe = probe(&serve.application, &serve.readiness).await;
        failures = if probe == Probe::Ready {
            0
        } else {
            failures + 1
        };
        let now_ready = match probe {
            Probe::Ready => true,
            Probe::Refused => false,
            Probe::Failed => ready && failures < FAILURES,
        };
        if now_ready != ready {
            ready = now_ready;
            info!(
                service = serve.service,
                port = serve.port,
                application = %serve.application,
                "the application is {}",
                if ready { "ready" } else { "not ready" }
            );
            states.send_modify(|states| states[index] = ready);
        }
        let interval = serve.readiness.interval;
        let interval = if ready {
            interval
        } else {
            interval.min(WHILE_NOT_READY)
        };
        tokio::select! {
            () = tokio::time::sleep_until(begun + interval) => {}
            // Nobody is left to be told.
            () = states.closed() => return,
        }
    }
}

async fn probe(application: &Address, readiness: &Readiness) -> Probe {
    let patience = readiness.interval.max(LEAST_PATIENCE);
    let probe = async {
        match application {
            Address::Ip(address) => {
                let stream = TcpStream::connect(address).await;
                ask(stream, &address.to_string(), readiness).await
            }
            // A socket has no name that a host header could have.
            Address::Unix(path) => {
                ask(UnixStream::connect(path).await, "localhost", readiness).await
            }
        }
    };
    timeout(patience, probe).await.unwrap_or(Probe::Failed)
}

async fn ask<S>(stream: io::Result<S>, host: &str, readiness: &Readiness) -> Probe
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = match stream {
        Ok(stream) => stream,
        // A Unix socket that is not there yet is nobody listening, too.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Probe::Refused;
        }
        Err(_) => return Probe::Failed,
    };
    match &readiness.path {
        None => Probe::Ready,
        Some(path) => match get(&mut stream, host, path).await {
            Some(200..=399) => Probe::Ready,
            _ => Probe::Failed,
        },
    }
}

/// The status of a GET. Only the status line is read: a health page may be long.
async fn get<S>(stream: &mut S, host: &str, path: &str) -> Option<u16>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: outrigger-readiness\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(STATUS_LINE);
    while answer.len() < STATUS_LINE && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            break;
        }
    }
    let line = answer
        .split(|byte| *byte == b'\r' || *byte == b'\n')
        .next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words
        .next()
        .filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests;
