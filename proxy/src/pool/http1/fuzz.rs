//! What the fuzz target calls: a response, read without a socket.

use super::body::Incoming;
use super::head::{Asked, HeadReader};

/// Status, body and whether it is whole. `None`: it is no response, or its head does not end.
pub(crate) fn read_response(bytes: &[u8], piece: usize) -> Option<(u16, Vec<u8>, bool)> {
    let mut reader = HeadReader::default();
    let mut body: Option<(u16, Incoming)> = None;
    let mut data = Vec::new();
    for mut input in bytes.chunks(piece.max(1)) {
        while body.is_none() && !input.is_empty() {
            let Some(head) = reader.next(&mut input, Asked::default()).ok()? else {
                break;
            };
            if !head.is_interim() {
                body = Some((head.parts.status.as_u16(), Incoming::new(head.framing)));
            }
        }
        let Some((_, incoming)) = &mut body else {
            continue;
        };
        if incoming.end.is_none() {
            incoming.read(input).ok()?;
            data.extend_from_slice(&std::mem::take(&mut incoming.data));
        }
    }
    let (status, mut incoming) = body?;
    let whole = incoming.end.is_some() || incoming.read(&[]).is_ok() && incoming.end.is_some();
    let whole = whole || incoming.close();
    Some((status, data, whole))
}
