//! WebSocket frames, RFC 6455, from the server's side: heads in and out, and the mask.
//!
//! Payloads are never gathered: whoever reads unmasks them as they come, so a frame of any length costs no memory. Data
//! frames are a byte stream here; where messages begin and end does not matter to NATS.

/// A head is at most this long: two bytes, eight of length, four of mask.
pub const HEAD_BYTES_MAX: usize = 14;
/// A control frame's payload is at most this long.
pub const CONTROL_BYTES_MAX: usize = 125;

/// What a client's frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Text, binary, or the continuation of either.
    Data,
    Close,
    Ping,
    Pong,
}

/// The head of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub opcode: Opcode,
    pub payload_bytes: u64,
    pub mask: [u8; 4],
    /// The first frame of its message: not a continuation.
    pub is_first: bool,
    /// The last frame of its message.
    pub is_final: bool,
    /// The first frame of a compressed message.
    pub is_compressed: bool,
}

/// A frame no client may send. The text is the reason in the close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a client's frames are masked")]
    NotMasked,
    #[error("reserved bits set")]
    ReservedBits,
    #[error("unknown opcode")]
    Opcode,
    #[error("a control frame is short and whole")]
    Control,
    #[error("the length is not written as it should be")]
    Length,
    #[error("a message begins within another, or goes on without one")]
    Order,
}

impl Head {
    /// Reads a head and how many bytes it takes; `None` while it is not there whole. `deflate`: compressed messages may come
    /// (RFC 7692).
    ///
    /// # Errors
    /// [`FrameError`]; the connection is of no use any more.
    pub fn parse(input: &[u8], deflate: bool) -> Result<Option<(Head, usize)>, FrameError> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        let is_compressed = first & 0x40 != 0;
        let may_be_compressed = deflate && matches!(first & 0x0f, 1 | 2);
        if first & 0x30 != 0 || is_compressed && !may_be_compressed {
            return Err(FrameError::ReservedBits);
        }
        let opcode = match first & 0x0f {
            0..=2 => Opcode::Data,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(FrameError::Opcode),
        };
        if second & 0x80 == 0 {
            return Err(FrameError::NotMasked);
        }
        let short = second & 0x7f;
        if opcode != Opcode::Data && (first & 0x80 == 0 || short > CONTROL_BYTES_MAX as u8) {
            return Err(FrameError::Control);
        }
        let (payload_bytes, rest, taken) = match short {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), rest, 4)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*length), rest, 10)
            }
            short => (u64::from(short), rest, 2),
        };
        let shortest = match short {
            126 => payload_bytes >= 126,
            127 => payload_bytes > 0xffff && payload_bytes >> 63 == 0,
            _ => true,
        };
        if !shortest {
            return Err(FrameError::Length);
        }
        let Some(mask) = rest.first_chunk::<4>() else { return Ok(None) };
        let (is_first, is_final) = (first & 0x0f != 0, first & 0x80 != 0);
        let head = Head { opcode, payload_bytes, mask: *mask, is_first, is_final, is_compressed };
        Ok(Some((head, taken + 4)))
    }
}

/// Takes the mask off (or puts it on) `payload`, which begins `offset` bytes into its frame.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: u64) {
    let mut turned = mask;
    turned.rotate_left((offset % 4) as usize);
    let word =
        u64::from_ne_bytes([turned[0], turned[1], turned[2], turned[3], turned[0], turned[1], turned[2], turned[3]]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= turned[at % 4];
    }
}

/// Appends the head of a whole binary frame.
pub fn data_head(out: &mut impl Extend<u8>, payload_bytes: usize, is_compressed: bool) {
    out.extend([if is_compressed { 0xc2 } else { 0x82 }]);
    match payload_bytes {
        0..=125 => out.extend([payload_bytes as u8]),
        126..=0xffff => {
            out.extend([126]);
            out.extend((payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.extend([127]);
            out.extend((payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Appends a PONG with the payload of its PING, of at most [`CONTROL_BYTES_MAX`] bytes.
pub fn pong(out: &mut impl Extend<u8>, payload: &[u8]) {
    control(out, 0x8a, payload);
}

/// Appends a close frame.
pub fn close(out: &mut impl Extend<u8>, code: u16, reason: &str) {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload.truncate(CONTROL_BYTES_MAX);
    control(out, 0x88, &payload);
}

fn control(out: &mut impl Extend<u8>, first: u8, payload: &[u8]) {
    out.extend([first, payload.len() as u8]);
    out.extend(payload.iter().copied());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_of_every_length() {
        let mask = [1, 2, 3, 4];
        let check = |bytes: &[u8], payload_bytes| {
            let mut input = bytes.to_vec();
            input.extend(mask);
            for cut in 0..input.len() {
                assert_eq!(Head::parse(&input[..cut], false), Ok(None), "{input:?} cut at {cut}");
            }
            let is_final = bytes[0] & 0x80 != 0;
            let is_first = bytes[0] & 0x0f != 0;
            let head = Head { opcode: Opcode::Data, payload_bytes, mask, is_first, is_final, is_compressed: false };
            assert_eq!(Head::parse(&input, false), Ok(Some((head, input.len()))));
            input[0] |= 0x40;
            let compressed = Head::parse(&input, true);
            match bytes[0] & 0x0f {
                // Only the first frame of a message says so.
                0 => assert_eq!(compressed, Err(FrameError::ReservedBits)),
                _ => assert!(compressed.is_ok_and(|head| head.is_some_and(|(head, _)| head.is_compressed))),
            }
        };
        check(&[0x82, 0x80], 0);
        check(&[0x01, 0x80 | 125], 125);
        check(&[0x80, 0xfe, 0, 126], 126);
        check(&[0x82, 0xfe, 0xff, 0xff], 0xffff);
        check(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 0x10000);
    }

    #[test]
    fn what_no_client_may_send() {
        for (input, expected) in [
            (&[0x82, 0x05][..], FrameError::NotMasked),
            (&[0xc2, 0x85], FrameError::ReservedBits),
            (&[0x83, 0x85], FrameError::Opcode),
            (&[0x89, 0xfe], FrameError::Control),
            (&[0x09, 0x80], FrameError::Control),
            (&[0x82, 0xfe, 0, 125], FrameError::Length),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], FrameError::Length),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
        ] {
            assert_eq!(Head::parse(input, false), Err(expected), "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn unmasking_piece_by_piece(bytes in prop::collection::vec(any::<u8>(), 0..100), mask in any::<[u8; 4]>(), cut in 0usize..100) {
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            let cut = cut.min(bytes.len());
            let mut pieces = bytes;
            let (left, right) = pieces.split_at_mut(cut);
            unmask(left, mask, 0);
            unmask(right, mask, cut as u64);
            prop_assert_eq!(pieces, expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(Some((_, taken))) = Head::parse(&bytes, true) {
                prop_assert!(taken <= bytes.len() && taken <= HEAD_BYTES_MAX);
            }
        }
    }
}
