//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): the header `traceparent`.

use http::HeaderValue;

/// Bit of the flags: somebody keeps this trace.
const SAMPLED: u8 = 0x01;
/// Bit of the flags: the trace's id is random (level 2 of the standard).
const RANDOM: u8 = 0x02;

/// `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) flags: u8,
}

impl Context {
    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace, from another span on.
    pub(super) fn with_span(self, span: [u8; 8]) -> Context {
        Context {
            span,
            flags: self.flags & (SAMPLED | RANDOM),
            ..self
        }
    }

    /// A trace that begins here.
    pub(super) fn root(trace: [u8; 16], span: [u8; 8]) -> Context {
        Context {
            trace,
            span,
            flags: SAMPLED,
        }
    }

    /// `None`: it is none, and the trace begins anew.
    pub(super) fn parse(value: &[u8]) -> Option<Context> {
        let (head, rest) = value.split_at_checked(LENGTH)?;
        if head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
            return None;
        }
        let [version] = hex(&head[..2])?;
        // Later versions may say more behind it; 255 is forbidden.
        let well_ended = match version {
            0 => rest.is_empty(),
            255 => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let context = Context {
            trace: hex(&head[3..35])?,
            span: hex(&head[36..52])?,
            flags: hex::<1>(&head[53..])?[0],
        };
        (well_ended && context.trace != [0; 16] && context.span != [0; 8]).then_some(context)
    }

    /// As version 00, marked as sensitive: it is another one for each request, and HTTP/2's table of repeated headers is for
    /// what repeats.
    pub(super) fn header(self) -> HeaderValue {
        let mut text = [b'-'; LENGTH];
        write(&mut text[..2], &[0]);
        write(&mut text[3..35], &self.trace);
        write(&mut text[36..52], &self.span);
        write(&mut text[53..], &[self.flags]);
        // Digits and dashes only: it cannot fail.
        let value = HeaderValue::from_bytes(&text);
        let mut value = value.unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// Lower-case digits only, as the standard wants them.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write(text: &mut [u8], bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Context;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert!(context.is_sampled());
        assert_eq!(context.trace[..2], [0x4b, 0xf9]);
        assert_eq!(context.span, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(context.header(), GOOD);
        assert!(context.header().is_sensitive());
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!Context::parse(unsampled.as_bytes()).unwrap().is_sampled());
    }

    #[test]
    fn a_later_version_may_say_more() {
        for later in ["cc", "cc-", "cc-what-comes"] {
            let (version, more) = later.split_at(2);
            let text = format!("{version}{}{more}", &GOOD[2..]);
            let context = Context::parse(text.as_bytes()).unwrap();
            assert_eq!(
                context.header(),
                GOOD,
                "{later}: written as the version known"
            );
        }
        let known_bits = GOOD.replace("-01", "-ff");
        let context = Context::parse(known_bits.as_bytes()).unwrap();
        assert_eq!(context.with_span([1; 8]).flags, 3);
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.replace("00-4", "ff-4"),
            &GOOD.replace("4b", "4B"),
            &GOOD.replace("4b", "4g"),
            &GOOD.replace("36-00", "36_00"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(Context::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = Context::parse(&bytes) {
                prop_assert_eq!(Context::parse(context.header().as_bytes()), Some(context));
            }
        }
    }
}
