//! The kinds of load: as fast as it goes, at a fixed rate, and token streams.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::upstream::written_at;
use crate::wire::{Caller, Target, Version};

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) connections: usize,
}

/// What the load saw in the measured time.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Answers, or tokens.
    pub(crate) count: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// Called when the measured time starts and when it ends.
pub(crate) trait Meter {
    fn start(&mut self);
    fn stop(&mut self);
}

/// Microseconds up to a minute, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

fn record(histogram: &RefCell<Histogram<u64>>, latency: Duration) {
    histogram
        .borrow_mut()
        .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

/// Lets callers run through the warm-up and the measured time, and hands back what they counted in the latter.
async fn measure(
    shape: Shape,
    mut callers: JoinSet<anyhow::Result<()>>,
    count: &Cell<u64>,
    latency: &RefCell<Histogram<u64>>,
    meter: &mut dyn Meter,
) -> anyhow::Result<Outcome> {
    run(&mut callers, shape.warmup).await?;
    count.set(0);
    latency.borrow_mut().reset();
    meter.start();
    let start = Instant::now();
    run(&mut callers, shape.duration).await?;
    let elapsed = start.elapsed();
    meter.stop();
    Ok(Outcome {
        count: count.get(),
        elapsed,
        latency: latency.borrow().clone(),
    })
}

/// A caller that ends, ends with an error.
async fn run(callers: &mut JoinSet<anyhow::Result<()>>, time: Duration) -> anyhow::Result<()> {
    match tokio::time::timeout(time, callers.join_next()).await {
        Err(_) => Ok(()),
        Ok(Some(ended)) => ended?,
        Ok(None) => anyhow::bail!("there are no callers"),
    }
}

/// Each caller sends its next request when it has the answer to the last: finds the highest rate. Its latencies say
/// nothing about users, who do not wait for each other.
pub(crate) async fn closed_loop(
    target: &Target,
    version: Version,
    shape: Shape,
    meter: &mut dyn Meter,
) -> anyhow::Result<Outcome> {
    let (count, latency) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(histogram())));
    let mut callers = JoinSet::new();
    for mut caller in Caller::open(target, version, shape.connections).await? {
        let (count, latency) = (Rc::clone(&count), Rc::clone(&latency));
        callers.spawn_local(async move {
            loop {
                let start = Instant::now();
                caller.plain().await?;
                record(&latency, start.elapsed());
                count.set(count.get() + 1);
            }
        });
    }
    measure(shape, callers, &count, &latency, meter).await
}

/// Requests that are due, and the callers that wait for one.
#[derive(Default)]
struct Queue {
    due: RefCell<VecDeque<Instant>>,
    more: Notify,
}

/// Requests at a fixed rate whatever the answers do. A latency counts from when the request was due, so that a stall of
/// the proxy is in the figures of all requests that it delayed.
pub(crate) async fn open_loop(
    target: &Target,
    version: Version,
    shape: Shape,
    rate: f64,
    meter: &mut dyn Meter,
) -> anyhow::Result<Outcome> {
    let (count, latency) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(histogram())));
    let queue = Rc::new(Queue::default());
    let mut callers = JoinSet::new();
    for mut caller in Caller::open(target, version, shape.connections).await? {
        let (count, latency, queue) = (Rc::clone(&count), Rc::clone(&latency), Rc::clone(&queue));
        callers.spawn_local(async move {
            loop {
                let due = queue.due.borrow_mut().pop_front();
                let Some(due) = due else {
                    queue.more.notified().await;
                    continue;
                };
                caller.plain().await?;
                record(&latency, due.elapsed());
                count.set(count.get() + 1);
            }
        });
    }
    let pacer = Rc::clone(&queue);
    callers.spawn_local(async move {
        let mut due = Instant::now();
        loop {
            due += Duration::from_secs_f64(1.0 / rate);
            // Spins instead of sleeping: the runtime's timer is a millisecond wide, many times what is measured. A busy
            // core does not go to sleep either, whose wake-up would be counted as the proxy's.
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            pacer.due.borrow_mut().push_back(due);
            pacer.more.notify_one();
        }
    });
    measure(shape, callers, &count, &latency, meter).await
}

/// As many token streams as there are connections. Counts tokens; a latency is from the application's write of an event
/// to its arrival.
pub(crate) async fn token_streams(
    target: &Target,
    version: Version,
    shape: Shape,
    epoch: Instant,
    meter: &mut dyn Meter,
) -> anyhow::Result<Outcome> {
    let (count, latency) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(histogram())));
    let mut callers = JoinSet::new();
    for mut caller in Caller::open(target, version, shape.connections).await? {
        let (count, latency) = (Rc::clone(&count), Rc::clone(&latency));
        callers.spawn_local(async move {
            let mut pending = String::new();
            let streamed = caller.chat(|bytes| {
                pending.push_str(&String::from_utf8_lossy(bytes));
                while let Some(end) = pending.find("\n\n") {
                    if let Some(at) = written_at(&pending[..end]) {
                        record(&latency, epoch.elapsed().saturating_sub(at));
                        count.set(count.get() + 1);
                    }
                    pending.drain(..end + 2);
                }
            });
            streamed.await?;
            anyhow::bail!("a stream ended")
        });
    }
    measure(shape, callers, &count, &latency, meter).await
}
