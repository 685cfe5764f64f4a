//! The model in a message of KServe's gRPC interface: `ModelInferRequest.model_name`, field 1
//! (<https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto>).

/// Whether a call's only message is here with its end: the stream of `ModelStreamInfer` may wait for answers first.
pub(super) fn is_unary(path: &str) -> bool {
    path.ends_with("/ModelInfer")
}

/// The model's name in a message with its prefix of five bytes. The last value of a field counts, as protobuf has it.
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
    use super::model_name;

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
        assert_eq!(model_name(&[1, 0, 0, 0, 0]), None);
        assert_eq!(model_name(&[0, 0, 0, 0, 1, 0x0f]), None);
    }
}
