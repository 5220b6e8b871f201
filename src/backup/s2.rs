//! The framing of Snappy and S2 streams (google/snappy `framing_format.txt`, klauspost/compress `s2`): writes what both
//! can read, reads what either writes.

use bytes::{Buf, BytesMut};

use super::BackupError;

const SNAPPY: &[u8] = b"sNaPpY";
const S2: &[u8] = b"S2sTwO";

const COMPRESSED: u8 = 0x00;
const PLAIN: u8 = 0x01;
const IDENTIFIER: u8 = 0xff;
/// Kinds from here on may be passed over.
const SKIPPABLE: u8 = 0x80;

/// What Snappy allows in one frame; S2 allows more.
const BLOCK_BYTES: usize = 64 * 1024;
/// The largest block of an S2 stream.
const BLOCK_BYTES_MAX: usize = 4 << 20;
const HEAD_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;

/// The checksum of a frame: CRC-32C, masked as Snappy wants it.
fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c(block).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Compresses a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Encoder {
    waiting: Vec<u8>,
    begun: bool,
}

impl Encoder {
    /// Adds `bytes`; whole frames go to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() == BLOCK_BYTES {
                self.flush(out);
            }
        }
    }

    /// Writes what is left into a frame of its own.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            head(IDENTIFIER, SNAPPY.len(), out);
            out.extend_from_slice(SNAPPY);
        }
        if self.waiting.is_empty() {
            return;
        }
        let sum = checksum(&self.waiting).to_le_bytes();
        let packed = snap::raw::Encoder::new().compress_vec(&self.waiting).unwrap_or_default();
        let worth_it = !packed.is_empty() && packed.len() < self.waiting.len();
        let (kind, body) = if worth_it { (COMPRESSED, &packed) } else { (PLAIN, &self.waiting) };
        head(kind, CHECKSUM_BYTES + body.len(), out);
        out.extend_from_slice(&sum);
        out.extend_from_slice(body);
        self.waiting.clear();
    }
}

fn head(kind: u8, len: usize, out: &mut Vec<u8>) {
    let [a, b, c, ..] = (len as u32).to_le_bytes();
    out.extend_from_slice(&[kind, a, b, c]);
}

/// From frames to the bytes in them.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    begun: bool,
    /// Bytes of a frame that is passed over.
    skip: usize,
}

impl Decoder {
    /// Takes the stream's next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether no frame has come in.
    pub fn is_untouched(&self) -> bool {
        !self.begun && self.buffer.is_empty()
    }

    /// What the next frame holds; `None` when more bytes are needed for it.
    ///
    /// # Errors
    /// When this is no such stream, or a damaged one.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        loop {
            let now = self.skip.min(self.buffer.len());
            self.buffer.advance(now);
            self.skip -= now;
            let Some(&[kind, a, b, c]) = self.buffer.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            if !self.begun && kind != IDENTIFIER {
                return Err(BackupError::BadFrame);
            }
            match kind {
                COMPRESSED | PLAIN | IDENTIFIER => {}
                SKIPPABLE.. => {
                    self.buffer.advance(HEAD_BYTES);
                    self.skip = len;
                    continue;
                }
                _ => return Err(BackupError::UnknownFrame(kind)),
            }
            // Nothing compresses to more than a sixth above its length.
            if len > CHECKSUM_BYTES + 32 + BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 6 {
                return Err(BackupError::BadFrame);
            }
            if self.buffer.len() < HEAD_BYTES + len {
                return Ok(None);
            }
            self.buffer.advance(HEAD_BYTES);
            let frame = self.buffer.split_to(len);
            if kind == IDENTIFIER {
                if *frame != *SNAPPY && *frame != *S2 {
                    return Err(BackupError::BadFrame);
                }
                self.begun = true;
                continue;
            }
            let (sum, body) = frame.split_first_chunk::<CHECKSUM_BYTES>().ok_or(BackupError::BadFrame)?;
            let block = match kind {
                PLAIN if body.len() <= BLOCK_BYTES_MAX => body.to_vec(),
                COMPRESSED => block(body).ok_or(BackupError::BadFrame)?,
                _ => return Err(BackupError::BadFrame),
            };
            if checksum(&block) != u32::from_le_bytes(*sum) {
                return Err(BackupError::Checksum);
            }
            if !block.is_empty() {
                return Ok(Some(block));
            }
        }
    }
}

/// Decompresses a Snappy or S2 block (klauspost/compress `s2/decode_other.go`). S2's one addition is that a short copy
/// with an offset of 0 repeats the last one's offset, with longer lengths. `None` when it is damaged.
fn block(mut from: &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(super::archive::take_uvarint(&mut from)?).ok().filter(|&len| len <= BLOCK_BYTES_MAX)?;
    let mut block = Vec::with_capacity(len);
    let mut offset = 0;
    while let Some((&tag, rest)) = from.split_first() {
        from = rest;
        let high = usize::from(tag >> 2);
        let length = match tag & 3 {
            0 => {
                let length = 1 + if high < 60 { high } else { little(&mut from, high - 59)? };
                let literal;
                (literal, from) = from.split_at_checked(length)?;
                if block.len() + length > len {
                    return None;
                }
                block.extend_from_slice(literal);
                continue;
            }
            1 => {
                let near = usize::from(tag & 0xe0) << 3 | little(&mut from, 1)?;
                let short = high & 7;
                if near > 0 {
                    offset = near;
                    4 + short
                } else {
                    4 + match short {
                        5 => little(&mut from, 1)? + 4,
                        6 => little(&mut from, 2)? + (1 << 8),
                        7 => little(&mut from, 3)? + (1 << 16),
                        _ => short,
                    }
                }
            }
            wide => {
                offset = little(&mut from, if wide == 2 { 2 } else { 4 })?;
                1 + high
            }
        };
        let start = block.len().checked_sub(offset).filter(|_| offset > 0)?;
        if block.len() + length > len {
            return None;
        }
        // A copy may reach into what it writes itself.
        let mut left = length;
        while left > 0 {
            let now = left.min(block.len() - start);
            block.extend_from_within(start..start + now);
            left -= now;
        }
    }
    (block.len() == len).then_some(block)
}

/// Takes a number of up to four bytes.
fn little(from: &mut &[u8], bytes: usize) -> Option<usize> {
    let taken;
    (taken, *from) = from.split_at_checked(bytes)?;
    Some(taken.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_s2_repeat_offsets() {
        let check = |bytes: &[u8], expected: Option<&[u8]>| {
            assert_eq!(block(bytes).as_deref(), expected, "{bytes:02x?}");
        };
        check(&[0], Some(b""));
        check(&[3, 2 << 2, b'a', b'b', b'c'], Some(b"abc"));
        check(&[4, 2 << 2, b'a', b'b', b'c'], None);
        // A copy of 4 from 3 back, then a repeat of 4.
        check(&[11, 2 << 2, b'a', b'b', b'c', 1, 3, 1, 0], Some(b"abcabcabcab"));
        // A repeat of 8 + 1.
        check(&[16, 2 << 2, b'a', b'b', b'c', 1, 3, 5 << 2 | 1, 0, 1], Some(b"abcabcabcabcabca"));
        check(&[7, 2 << 2, b'a', b'b', b'c', 1, 0], None);
        check(&[7, 2 << 2, b'a', b'b', b'c', 1, 4], None);
        check(&[6, 2 << 2, b'a', b'b', b'c', 1, 3], None);
        check(&[0xff, 0xff, 0xff, 0xff, 0x0f], None);
        let long: Vec<u8> = [&[0x8b, 2, 2 << 2, b'a', b'b', b'c', 1, 3, 6 << 2 | 1, 0, 0, 0][..]].concat();
        let expected: Vec<u8> = b"abc".iter().copied().cycle().take(267).collect();
        check(&long, Some(&expected));
    }

    #[test]
    fn what_is_written_is_read_however_it_is_split() {
        let random = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
        let text: Vec<u8> = random.chain(std::iter::repeat_n(b"natterjack ", 30_000).flatten().copied()).collect();
        let mut packed = Vec::new();
        let mut encoder = Encoder::default();
        for part in text.chunks(999) {
            encoder.push(part, &mut packed);
        }
        encoder.flush(&mut packed);
        assert!(packed.len() < text.len() * 2 / 3, "{}", packed.len());
        for size in [1, 7, 1024, usize::MAX] {
            let (mut decoder, mut got) = (Decoder::default(), Vec::new());
            for part in packed.chunks(size.min(packed.len())) {
                decoder.push(part);
                while let Some(block) = decoder.next_frame().unwrap() {
                    got.extend_from_slice(&block);
                }
            }
            assert!(got == text, "in parts of {size}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let mut packed = Vec::new();
        let mut encoder = Encoder::default();
        encoder.push(b"some bytes, some bytes, some bytes", &mut packed);
        encoder.flush(&mut packed);
        let read = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame()
        };
        for at in 0..packed.len() {
            let mut damaged = packed.clone();
            damaged[at] ^= 4;
            assert!(!matches!(read(&damaged), Ok(Some(_))), "byte {at}");
        }
        assert_eq!(read(b"\xff\x06\0\0other!"), Err(BackupError::BadFrame));
        assert_eq!(read(b"\x00\x06\0\0other!"), Err(BackupError::BadFrame));
        assert_eq!(read(b"\xff\x06\0\0S2sTwO\x02\0\0\0"), Err(BackupError::UnknownFrame(2)));
        assert_eq!(read(b"\xff\x06\0\0S2sTwO\x99\x02\0\0xy"), Ok(None));
        assert_eq!(read(b"\xff\x06\0\0S2sTwO\0\xff\xff\xff"), Err(BackupError::BadFrame));
    }
}
