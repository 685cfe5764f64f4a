use std::net::SocketAddr;
use std::time::Duration;

use outrigger_tests::{Sidecar, eventually, within};

use super::Before;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, Raw, SETTINGS, frame, get_chat,
    literal, reset,
};
use crate::mesh::Mesh;

const GOAWAY: u8 = 7;

/// Most CPU that an attack of these tests may cost; a debug build on a busy machine. Without bounds it would be minutes.
const CPU: Duration = Duration::from_secs(20);

/// Runs `attack` against the caller's sidecar while another connection is served, and looks at what it left.
async fn others_are_served<F>(attack: impl Fn(SocketAddr) -> F) -> Mesh
where
    F: Future<Output = ()>,
{
    let mut mesh = Mesh::start("").await;
    let before = Before::of(&mut mesh.caller);
    let served = async {
        for _ in 0..50 {
            assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let both = async { tokio::join!(attack(mesh.caller.outbound()), served) };
    within("the attack and the others", Duration::from_secs(60), both).await;
    before.assert_bounded(&mut mesh.caller, CPU);
    mesh
}

/// Nothing is left of it: no request in flight, here or at the peer's sidecar.
async fn nothing_in_flight(sidecar: &Sidecar) {
    eventually("all is over", Duration::from_secs(10), async || {
        let metrics = sidecar.metrics().await;
        match metrics.sum("outrigger_requests_in_flight", &[]) {
            0.0 => Ok(()),
            left => Err(format!("{left} in flight")),
        }
    })
    .await;
}

/// CVE-2023-44487: requests that are cancelled as soon as they are sent.
#[tokio::test]
async fn rapid_reset() {
    let mesh = others_are_served(async |to| {
        for _ in 0..4 {
            let mut raw = Raw::open(to).await;
            let mut stream = 1;
            for _ in 0..200 {
                let mut burst = Vec::new();
                for _ in 0..50 {
                    burst.extend(frame(
                        HEADERS,
                        END_STREAM | END_HEADERS,
                        stream,
                        &get_chat(),
                    ));
                    burst.extend(reset(stream));
                    stream += 2;
                }
                if !raw.send(&burst).await {
                    break;
                }
            }
            raw.ended().await;
        }
    })
    .await;
    nothing_in_flight(&mesh.caller).await;
    nothing_in_flight(&mesh.server).await;
}

/// CVE-2024-27316: a head that never ends.
#[tokio::test]
async fn continuation_flood() {
    others_are_served(async |to| {
        let mut raw = Raw::open(to).await;
        raw.send(&frame(HEADERS, END_STREAM, 1, &get_chat())).await;
        let mut block = Vec::new();
        while block.len() < 16_000 {
            block.extend(literal("x-flood", "................................"));
        }
        let part = frame(CONTINUATION, 0, 1, &block);
        let mut sent = 0;
        // 64 MiB, if anybody reads them.
        while sent < 4096 && raw.send(&part).await {
            sent += 1;
        }
        assert!(sent < 4096, "a head of 64 MiB was read");
        let kinds = raw.ended().await;
        assert!(kinds.contains(&GOAWAY), "no GOAWAY: {kinds:?}");
    })
    .await;
}

/// The same with frames that carry nothing.
#[tokio::test]
async fn empty_continuation_flood() {
    others_are_served(async |to| {
        let mut raw = Raw::open(to).await;
        raw.send(&frame(HEADERS, END_STREAM, 1, &get_chat())).await;
        let part = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
        let mut sent = 0;
        while sent < 1000 && raw.send(&part).await {
            sent += 1;
        }
        assert!(sent < 1000, "a million empty frames were taken");
    })
    .await;
}

/// A header that is small on the wire and large in memory: one long entry of the dynamic table, named again and again.
#[tokio::test]
async fn header_bomb() {
    others_are_served(async |to| {
        for _ in 0..10 {
            let mut raw = Raw::open(to).await;
            // With indexing (0x40): a name of 1 byte and a value of 3,900; its length in HPACK's integer form (7 bits).
            let value = vec![b'b'; 3900];
            let rest = value.len() - 127;
            let length = [0x7f, (rest % 128) as u8 | 0x80, (rest / 128) as u8];
            let mut block = get_chat();
            block.extend([0x40, 1, b'b']);
            block.extend(length);
            block.extend(&value);
            // Index 62 is the newest entry of the dynamic table: 3.9 KB for each byte.
            block.extend(vec![0x80 | 62; 12_000]);
            raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
                .await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            raw.ended().await;
        }
    })
    .await;
}

/// Answers to control frames nobody reads must not pile up (CVE-2019-9512, CVE-2019-9515).
#[tokio::test]
async fn ping_and_settings_floods() {
    for part in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        others_are_served(async |to| {
            let mut raw = Raw::open(to).await;
            let burst = part.repeat(2000);
            for _ in 0..100 {
                if !raw.send(&burst).await {
                    break;
                }
            }
            raw.ended().await;
        })
        .await;
    }
}

/// CVE-2019-9518: DATA frames without data, on a request that never ends.
#[tokio::test]
async fn empty_data_flood() {
    let mesh = others_are_served(async |to| {
        let mut raw = Raw::open(to).await;
        // :method POST is 0x83.
        let mut block = get_chat();
        block[0] = 0x83;
        raw.send(&frame(HEADERS, END_HEADERS, 1, &block)).await;
        let burst = frame(DATA, 0, 1, &[]).repeat(2000);
        for _ in 0..100 {
            if !raw.send(&burst).await {
                break;
            }
        }
        raw.ended().await;
    })
    .await;
    nothing_in_flight(&mesh.caller).await;
}

/// Many requests for large answers with a window of nothing: what waits is bounded by windows, not by the answers.
#[tokio::test]
async fn answers_that_nobody_reads() {
    let mut mesh = Mesh::start("").await;
    let before = Before::of(&mut mesh.caller);
    let server_before = Before::of(&mut mesh.server);
    let mut raw = Raw::open(mesh.caller.outbound()).await;
    // SETTINGS_INITIAL_WINDOW_SIZE (4) = 0.
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    // :path (4) literal: 1 GiB for each request.
    let path = b"/bytes/1073741824";
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path);
    block.extend([0x01, 4]);
    block.extend(b"chat");
    for stream in 0..100 {
        raw.send(&frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            2 * stream + 1,
            &block,
        ))
        .await;
    }
    for _ in 0..30 {
        assert_eq!(mesh.caller.get("chat", "/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    before.assert_bounded(&mut mesh.caller, CPU);
    server_before.assert_bounded(&mut mesh.server, CPU);
    raw.ended().await;
    nothing_in_flight(&mesh.caller).await;
    nothing_in_flight(&mesh.server).await;
}
