//! The model in a message of KServe's gRPC interface: `ModelInferRequest.model_name`, field 1
//! (<https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto>).

/// A call whose messages name a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Its only message is here with its end.
    Unary,
    /// The first of its messages counts. Those after it may wait for answers.
    Stream,
}

/// Which call it is. `None`: one that names no model.
pub(super) fn call(path: &str) -> Option<Call> {
    match path.rsplit_once('/')?.1 {
        "ModelInfer" => Some(Call::Unary),
        "ModelStreamInfer" => Some(Call::Stream),
        _ => None,
    }
}

/// Length of a message and its prefix of five bytes: a flag for compression, and the message's length
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
pub(super) fn framed_length([_, length @ ..]: [u8; 5]) -> u64 {
    5 + u64::from(u32::from_be_bytes(length))
}

/// The model's name in a message with its prefix, whatever comes after it. The last value of a field counts, as protobuf has it.
pub(super) fn model_name(framed: &[u8]) -> Option<&str> {
    let (prefix, message) = framed.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 {
        return None;
    }
    let mut rest = message.get(..usize::try_from(length).ok()?)?;
    let mut name = None;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                varint(&mut rest)?;
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (value, after) = rest.split_at_checked(length)?;
                if tag >> 3 == 1 {
                    name = std::str::from_utf8(value).ok();
                }
                rest = after;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    name.filter(|name| !name.is_empty() && name.len() <= 512)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Call, call, framed_length, model_name};

    #[test]
    fn finds_the_first_field() {
        let message = [
            &[0, 0, 0, 0, 13][..],
            // Field 3, a number; field 2, a text; field 1.
            &[0x18, 0x80, 0x01],
            &[0x12, 1, b'1'],
            &[0x0a, 5],
            b"resne",
        ]
        .concat();
        assert_eq!(model_name(&message), Some("resne"));
        for end in 0..message.len() {
            assert_eq!(model_name(&message[..end]), None);
        }
        assert_eq!(framed_length([0, 0, 0, 0, 13]), message.len() as u64);
        let next = [&message[..], &message[..7]].concat();
        assert_eq!(model_name(&next), Some("resne"));
        assert_eq!(model_name(&[1, 0, 0, 0, 0]), None);
        assert_eq!(model_name(&[0, 0, 0, 0, 1, 0x0f]), None);
    }

    #[test]
    fn calls_that_name_a_model() {
        let of = |method: &str| call(&format!("/inference.GRPCInferenceService/{method}"));
        assert_eq!(of("ModelInfer"), Some(Call::Unary));
        assert_eq!(of("ModelStreamInfer"), Some(Call::Stream));
        assert_eq!(of("ModelReady"), None);
    }
}
