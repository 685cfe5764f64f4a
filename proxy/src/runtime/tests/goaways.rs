//! HTTP/2 connections that end under the requests on them: what was certainly not processed moves, what may have been does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{self, post};
use super::mesh::{plain, sockets};
use super::pool::{calls, load};
use crate::policy::ConnectionPool;

/// What a server does when a request has come to its end.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    /// Says that it goes, with this last stream; `None`: the one of the request.
    GoAway(Option<u32>),
    /// Hangs up.
    Close,
}

use Act::{Answer, Close, GoAway};

/// The last stream of a GOAWAY that is but a notice (RFC 9113, section 6.8).
const NOTICE: Act = GoAway(Some(u32::MAX >> 1));

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A server that goes by `script`: what it does with the nth request on the nth connection, both from 1. It ignores requests
/// that come after a GOAWAY: the hardest way to use it that the protocol allows.
async fn server(script: fn(usize, usize) -> &'static [Act]) -> (SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = sockets(move |stream| {
        let connection = counted.fetch_add(1, Ordering::SeqCst) + 1;
        serve(stream, move |request| script(connection, request))
    })
    .await;
    (address, count)
}

async fn serve(mut stream: TcpStream, script: impl Fn(usize) -> &'static [Act]) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut out = frame(SETTINGS, 0, 0, &[]);
    let mut requests = 0;
    let mut goes = false;
    loop {
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let [_, _, _, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        let id = u32::from_be_bytes(head[5..9].try_into().unwrap());
        if kind == SETTINGS && flags == 0 {
            out = frame(SETTINGS, 1, 0, &[]);
        }
        if kind > HEADERS || flags & END_STREAM == 0 || goes {
            continue;
        }
        requests += 1;
        for act in script(requests) {
            match act {
                // `:status: 200` of the static table; END_STREAM and END_HEADERS.
                Answer => out.extend(frame(HEADERS, 5, id, &[0x88])),
                GoAway(last) => {
                    let mut payload = last.unwrap_or(id).to_be_bytes().to_vec();
                    payload.extend([0; 4]);
                    out.extend(frame(GOAWAY, 0, 0, &payload));
                    goes = true;
                }
                Close => {
                    let _ = stream.write_all(&out).await;
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_storm_of_goaways_costs_no_request() {
    let (app, _) = server(|_, request| match request {
        7 => &[Answer, GoAway(None)],
        _ => &[Answer],
    })
    .await;
    let caller = plain(calls(ConnectionPool::default()), &[app]);
    let bad = load(caller.outbound(), 32, 20).await;
    assert!(bad.is_empty(), "{} of 640 failed: {bad:?}", bad.len());
    caller
        .expect_metric(&["outrigger_pool_closed_total", "h2", "goaway"])
        .await;
}

#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_again_whatever_its_method() {
    for script in [
        |connection, _| match connection {
            1 => &[GoAway(Some(0))][..],
            _ => &[Answer],
        },
        |connection, _| match connection {
            1 => &[NOTICE, GoAway(Some(0)), Close][..],
            _ => &[Answer],
        },
        |connection, request| match (connection, request) {
            (1, 1) => &[Answer][..],
            (1, _) => &[NOTICE, GoAway(Some(1)), Close],
            _ => &[Answer],
        },
    ] as [fn(usize, usize) -> &'static [Act]; 3]
    {
        let (app, count) = server(script).await;
        let caller = plain(calls(ConnectionPool::default()), &[app]);
        for _ in 0..3 {
            let answer = post(caller.outbound(), "/", "x").await;
            assert_eq!(answer.head.status, 200);
        }
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn what_may_have_been_processed_is_sent_again_only_if_that_is_safe() {
    for script in [
        // Closed in the moment that it is used again.
        |_, request| match request {
            1 => &[Answer][..],
            _ => &[Close],
        },
        // Closed before the GOAWAY's last word.
        |connection, _| match connection % 2 {
            1 => &[NOTICE, Close][..],
            _ => &[Answer, GoAway(None), Close],
        },
        // The peer may have taken it.
        |connection, _| match connection % 2 {
            1 => &[GoAway(None), Close][..],
            _ => &[Answer, GoAway(None), Close],
        },
    ] as [fn(usize, usize) -> &'static [Act]; 3]
    {
        let (app, _) = server(script).await;
        let caller = plain(calls(ConnectionPool::default()), &[app]);
        let bad = load(caller.outbound(), 1, 20).await;
        assert!(bad.is_empty(), "{} of 20 failed: {bad:?}", bad.len());
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(post(caller.outbound(), "/", "x").await.head.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 502, 502]);
    }
}

#[tokio::test]
async fn a_new_connection_that_breaks_says_something_about_the_server() {
    let (app, count) = server(|_, _| &[Close]).await;
    let caller = plain(calls(ConnectionPool::default()), &[app]);
    let answer = client::get(caller.outbound(), "/").await;
    assert_eq!(answer.head.status, 502);
    assert_eq!(answer.head.reason(), "upstream-reset");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_closes_whatever_it_accepts_is_not_asked_for_ever() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let app = sockets(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        stream.set_zero_linger().unwrap();
        std::future::ready(())
    })
    .await;
    let caller = plain(calls(ConnectionPool::default()), &[app]);
    for _ in 0..20 {
        let answer = post(caller.outbound(), "/", "x").await;
        assert!([502, 503].contains(&answer.head.status));
    }
    let count = count.load(Ordering::SeqCst);
    assert!(count <= 20, "{count} connections for 20 requests");
}
