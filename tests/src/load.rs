//! Load in the background while a test changes something.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Answer, Connection, empty, full};

/// A closed loop of callers that keep their connections, half of them HTTP/2, a third of the requests with a body.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    callers: JoinSet<Summary>,
}

/// What the callers saw.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub requests: u64,
    /// What went wrong, in words.
    pub failures: Vec<String>,
    /// Answers by the name of the application that gave them.
    pub by_instance: std::collections::BTreeMap<String, u64>,
}

impl Load {
    /// `callers` that send to `host` through the sidecar at `to`, each with a pause of 2 ms between two requests: enough
    /// of them to meet a gap of some milliseconds and few enough to leave the CPU to what is tested.
    pub fn start(to: SocketAddr, host: &str, callers: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let mut set = JoinSet::new();
        for number in 0..callers {
            set.spawn(call(
                to,
                host.to_string(),
                number,
                Arc::clone(&stop),
                Arc::clone(&count),
            ));
        }
        Self {
            stop,
            count,
            callers: set,
        }
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests have been answered.
    ///
    /// # Panics
    /// When that takes longer than 20 s.
    pub async fn runs(&self, more: u64) {
        let (start, goal) = (Instant::now(), self.requests() + more);
        while self.requests() < goal {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the load has come to a stop"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets the requests under way end.
    pub async fn stop(mut self) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Summary::default();
        while let Some(caller) = self.callers.join_next().await {
            let caller = caller.expect("callers do not panic");
            all.requests += caller.requests;
            all.failures.extend(caller.failures);
            for (instance, count) in caller.by_instance {
                *all.by_instance.entry(instance).or_default() += count;
            }
        }
        all
    }
}

impl Summary {
    /// # Panics
    /// Where a request failed.
    pub fn assert_no_failure(&self) {
        let some = &self.failures[..self.failures.len().min(5)];
        assert!(
            some.is_empty(),
            "{} of {} requests failed: {some:#?}",
            self.failures.len(),
            self.requests
        );
    }

    /// Share of the answers that came from this application.
    pub fn share(&self, instance: &str) -> f64 {
        let count = self.by_instance.get(instance).copied().unwrap_or_default();
        count as f64 / self.requests.max(1) as f64
    }
}

async fn call(
    to: SocketAddr,
    host: String,
    number: usize,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Summary {
    let start = Instant::now();
    let mut summary = Summary::default();
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        let result = tokio::time::timeout(
            Duration::from_secs(20),
            one(&mut connection, to, &host, number, summary.requests),
        );
        match result
            .await
            .unwrap_or_else(|_| Err("no answer within 20 s".to_string()))
        {
            Ok(answer) => {
                *summary
                    .by_instance
                    .entry(answer.instance().to_string())
                    .or_default() += 1
            }
            Err(error) => {
                connection = None;
                summary.failures.push(format!(
                    "after {:.3} s: {error}",
                    start.elapsed().as_secs_f64()
                ));
            }
        }
        summary.requests += 1;
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    summary
}

async fn one(
    connection: &mut Option<Connection>,
    to: SocketAddr,
    host: &str,
    number: usize,
    sequence: u64,
) -> Result<Answer, String> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let opened = match number % 2 {
                0 => Connection::http1(to).await,
                _ => Connection::http2(to).await,
            };
            connection.insert(opened.map_err(|error| format!("connect: {error}"))?)
        }
    };
    let request = match sequence % 3 {
        0 => connection.request("POST", host, "/load", full("x".repeat(1000))),
        _ => connection.request("GET", host, "/load", empty()),
    };
    let response = connection
        .send(request)
        .await
        .map_err(|error| format!("{error:?}"))?;
    let answer = Answer::read(response)
        .await
        .map_err(|error| format!("body: {error:?}"))?;
    match answer.status.is_success() {
        true => Ok(answer),
        false => Err(format!(
            "{} {} {}",
            answer.status,
            answer.reason(),
            answer.text().trim()
        )),
    }
}
