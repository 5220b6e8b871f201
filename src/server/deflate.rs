//! permessage-deflate (RFC 7692) for WebSockets, each message by itself: no side keeps what it has seen
//! (`server_no_context_takeover`, `client_no_context_takeover`), so an idle client costs no memory for it.
//!
//! Inflating is a stream too: it fills what it is given to fill and goes on later, so a small message that inflates to a huge
//! one meets the parser's limits like any other bytes.

use std::cell::RefCell;
use std::io;

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::ReadBuf;

/// What INFO and the like gain is not worth the work below this (nats-server `wsCompressThreshold`).
const COMPRESSED_BYTES_MIN: usize = 64;
/// Ends every flushed block; left out on the wire.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The answer to a client's `Sec-WebSocket-Extensions`.
pub const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Whether one of the offers in a header can be taken: all but those that want a smaller window of us.
pub fn is_offered(extensions: &str) -> bool {
    extensions.split(',').any(|offer| {
        let mut words = offer.split(';').map(str::trim);
        let is_deflate = words.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"));
        let narrow = |word: &str| word.strip_prefix("server_max_window_bits").is_some_and(|rest| rest != "=15");
        is_deflate && !words.any(narrow)
    })
}

/// One message on its way in.
pub struct Inflater {
    state: Decompress,
    /// Compressed and not looked at yet.
    input: BytesMut,
    /// The last call had no more room: there may be more without further input.
    has_more: bool,
}

impl Inflater {
    pub fn new() -> Inflater {
        Inflater { state: Decompress::new(false), input: BytesMut::new(), has_more: false }
    }

    pub fn push(&mut self, compressed: &[u8]) {
        self.input.extend_from_slice(compressed);
    }

    /// All of the message has been pushed.
    pub fn finish(&mut self) {
        self.input.extend_from_slice(&TAIL);
    }

    /// Inflates into `buffer` what there is room for; true when that was something.
    ///
    /// # Errors
    /// When the bytes are not deflated.
    pub fn fill(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        while (!self.input.is_empty() || self.has_more) && buffer.remaining() > 0 {
            let (taken, given) = (self.state.total_in(), self.state.total_out());
            let output = buffer.initialize_unfilled();
            let room = output.len();
            let status = self.state.decompress(&self.input, output, FlushDecompress::Sync)?;
            let taken = (self.state.total_in() - taken) as usize;
            let given = (self.state.total_out() - given) as usize;
            self.input.advance(taken);
            buffer.advance(given);
            self.has_more = given == room;
            match status {
                Status::StreamEnd => {
                    // A client may end its stream; what follows is the next one.
                    self.state.reset(false);
                    self.has_more = false;
                }
                _ if taken == 0 && given == 0 && !self.input.is_empty() => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "deflated bytes that lead nowhere"));
                }
                _ => {}
            }
            if given > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all that was pushed has come out.
    pub fn is_done(&self) -> bool {
        self.input.is_empty() && !self.has_more
    }
}

thread_local! {
    /// A compressor takes hundreds of KiB; with nothing kept from message to message, one a thread will do.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// The payload as one compressed message; `None` when that is not shorter.
pub fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < COMPRESSED_BYTES_MIN {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        // Deflate grows incompressible bytes by little; what does not fit is not worth it.
        let mut out = Vec::with_capacity(payload.len() + TAIL.len());
        compressor.compress_vec(payload, &mut out, FlushCompress::Sync).ok()?;
        let whole = compressor.total_in() == payload.len() as u64 && out.ends_with(&TAIL);
        out.truncate(out.len().saturating_sub(TAIL.len()));
        (whole && out.len() < payload.len()).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflate(pieces: &[&[u8]], room: usize) -> io::Result<Vec<u8>> {
        let mut inflater = Inflater::new();
        let mut plain = Vec::new();
        let mut chunk = vec![0; room];
        let mut drain = |inflater: &mut Inflater, plain: &mut Vec<u8>| loop {
            let mut buffer = ReadBuf::new(&mut chunk);
            match inflater.fill(&mut buffer)? {
                true => plain.extend_from_slice(buffer.filled()),
                false => return io::Result::Ok(()),
            }
        };
        for piece in pieces {
            inflater.push(piece);
            drain(&mut inflater, &mut plain)?;
        }
        inflater.finish();
        drain(&mut inflater, &mut plain)?;
        assert!(inflater.is_done());
        Ok(plain)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7692, 7.2.3: a block, a block without compression, a final block.
        for bytes in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ] {
            assert_eq!(inflate(&[bytes], 100).unwrap(), b"Hello", "{bytes:x?}");
            let (left, right) = bytes.split_at(3);
            assert_eq!(inflate(&[left, right], 1).unwrap(), b"Hello", "{bytes:x?}");
        }
        assert!(inflate(&[&[0x07; 20]], 100).is_err());
    }

    #[test]
    fn a_bomb_fills_no_more_than_the_buffer() {
        let bomb = deflate(&vec![0; 1 << 20]).unwrap();
        let mut inflater = Inflater::new();
        inflater.push(&bomb);
        let mut chunk = [1; 512];
        let mut buffer = ReadBuf::new(&mut chunk);
        assert!(inflater.fill(&mut buffer).unwrap() && !inflater.is_done());
        assert_eq!(buffer.filled(), [0; 512]);
    }

    #[test]
    fn offers_that_can_be_taken() {
        for (offer, expected) in [
            ("permessage-deflate", true),
            ("x-other, Permessage-Deflate; client_max_window_bits", true),
            ("permessage-deflate; server_max_window_bits=15", true),
            ("permessage-deflate; server_max_window_bits=10", false),
            ("permessage-deflate; server_max_window_bits=10, permessage-deflate", true),
            ("permessage-bzip2", false),
            ("", false),
        ] {
            assert_eq!(is_offered(offer), expected, "{offer}");
        }
    }

    proptest! {
        #[test]
        fn what_is_deflated_inflates(
            bytes in prop::collection::vec(0u8..4, 0..5000),
            room in 1usize..300,
            cut in any::<prop::sample::Index>(),
        ) {
            if let Some(deflated) = deflate(&bytes) {
                let (left, right) = deflated.split_at(cut.index(deflated.len()));
                prop_assert_eq!(inflate(&[left, right], room).unwrap(), bytes);
            }
        }

        #[test]
        fn any_bytes_are_inflated_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut inflater = Inflater::new();
            inflater.push(&bytes);
            let mut chunk = [0; 64];
            for _ in 0..10_000 {
                if !inflater.fill(&mut ReadBuf::new(&mut chunk)).unwrap_or(false) {
                    break;
                }
            }
        }
    }
}
