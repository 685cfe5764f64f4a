//! HTTP/2 frames by hand: no library sends what these tests need.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `CANCEL` (RFC 9113, section 7).
const CANCEL: u32 = 8;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame of a test is small");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block with `GET / HTTP`, `:authority chat`, by HPACK's static table.
pub fn get_chat() -> Vec<u8> {
    // :method GET, :scheme http, :path / are indexed; :authority (1) is literal, without indexing.
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 4];
    block.extend(b"chat");
    block
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A literal field without indexing and with a new name.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x00];
    for text in [name, value] {
        // Seven-bit lengths are enough here.
        block.push(u8::try_from(text.len()).expect("short") & 0x7f);
        block.extend(text.as_bytes());
    }
    block
}

/// A connection whose preface and settings are sent; what comes back is read and counted by a task.
pub struct Raw {
    pub write: OwnedWriteHalf,
    received: JoinHandle<Vec<u8>>,
}

impl Raw {
    pub async fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (read, mut write) = stream.into_split();
        let received = tokio::spawn(read_all(read));
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[]));
        write.write_all(&hello).await.unwrap();
        Self { write, received }
    }

    /// Writes until all is written, or the peer has had enough (`false`).
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    /// Types of the frames that came until the peer closed the connection.
    pub async fn ended(self) -> Vec<u8> {
        drop(self.write);
        self.received.await.unwrap_or_default()
    }
}

/// Types of the frames, in order.
async fn read_all(mut read: OwnedReadHalf) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut head = [0; 9];
    while read.read_exact(&mut head).await.is_ok() {
        kinds.push(head[3]);
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        let mut payload = (&mut read).take(length);
        if tokio::io::copy(&mut payload, &mut tokio::io::sink())
            .await
            .is_err()
        {
            break;
        }
    }
    kinds
}
