#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::time::Duration;

use super::{Scrape, Signals};
use crate::balance::LoadReport;
use crate::inference::engine::{Engine, Figures};

fn figures(waiting: Option<u32>, running: Option<u32>) -> Figures {
    Figures {
        engine: Engine::Vllm,
        waiting,
        running,
        kv_usage: Some(0.5),
    }
}

/// Waiting and running, as reported with so many in flight now.
fn says(signals: &Signals, in_flight: u32) -> (Option<u32>, Option<u32>) {
    let report = signals.report(in_flight, None);
    (report.waiting, report.running)
}

#[tokio::test(start_paused = true)]
async fn figures_are_corrected_by_what_came_and_went_since() {
    let signals = Signals::default();
    signals.scraped(10, figures(Some(0), Some(8)));
    assert_eq!(says(&signals, 10), (Some(0), Some(8)));
    // Where none wait there is room.
    assert_eq!(says(&signals, 13), (Some(0), Some(11)));
    assert_eq!(says(&signals, 7), (Some(0), Some(5)));
    signals.scraped(12, figures(Some(4), Some(8)));
    assert_eq!(says(&signals, 15), (Some(7), Some(8)));
    assert_eq!(says(&signals, 9), (Some(1), Some(8)));
    assert_eq!(says(&signals, 2), (Some(0), Some(2)));
    // More than all cannot have gone.
    signals.scraped(100, figures(Some(1), Some(1)));
    assert_eq!(says(&signals, 0), (Some(0), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_say_is_in_the_own_counts() {
    let signals = Signals::default();
    assert_eq!(says(&signals, 5), (None, Some(5)));
    let queued = signals.report(5, Some(2));
    assert_eq!((queued.waiting, queued.running), (Some(2), Some(5)));
    signals.scraped(5, figures(Some(2), None));
    assert_eq!(says(&signals, 5), (Some(2), Some(3)));
    signals.scraped(5, figures(None, Some(4)));
    assert_eq!(says(&signals, 5), (Some(1), Some(4)));
    assert_eq!(signals.report(5, Some(3)).waiting, Some(4));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_unknown_and_so_is_what_is_old() {
    let signals = Signals::default();
    signals.set_interval(Duration::from_millis(200));
    signals.scraped(0, figures(Some(3), Some(8)));
    tokio::time::advance(Duration::from_millis(599)).await;
    assert_eq!(says(&signals, 0), (Some(3), Some(8)));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(says(&signals, 0), (None, Some(0)));
    assert_eq!(signals.report(0, None).kv_usage, None);
    signals.scraped(0, figures(Some(3), Some(8)));
    signals.failed(Scrape::Unreachable);
    assert_eq!(says(&signals, 0), (None, Some(0)));
    assert_eq!(signals.scrapes(Scrape::Unreachable), 1);
    assert_eq!(signals.last_scrape(), Some(Scrape::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn what_the_application_says_itself_counts_too() {
    let signals = Signals::default();
    signals.scraped(1, figures(Some(0), Some(1)));
    let told = LoadReport {
        waiting: Some(6),
        kv_usage: Some(0.75),
        ..LoadReport::default()
    };
    signals.told(1, &told);
    let report = signals.report(1, None);
    assert_eq!(
        (report.waiting, report.running, report.kv_usage),
        (Some(6), Some(1), Some(0.75))
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_is_made_once_for_as_long_as_the_load_is_the_same() {
    let signals = Arc::new(Signals::default());
    signals.scraped(0, figures(Some(3), Some(8)));
    let first = signals.header(0, None).unwrap();
    let again = signals.header(0, None).unwrap();
    assert_eq!(first.as_bytes().as_ptr(), again.as_bytes().as_ptr());
    let other = signals.header(1, None).unwrap();
    assert_ne!(first, other);
}
