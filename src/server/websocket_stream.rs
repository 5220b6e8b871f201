//! The bytes inside a WebSocket's frames as a byte stream.
//!
//! Reading unmasks as bytes come, so no frame is gathered. Writing wraps what it is given into frames of bounded size. PINGs
//! are answered by the reading side when nothing else is on its way out, else by the writing side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deflate::{self, Inflater};
use crate::protocol::websocket::{self, FrameError, Head, Opcode};

const READ_BYTES: usize = 4 * 1024;
/// The largest payload of one frame; browsers hand over whole frames.
const FRAME_BYTES_MAX: usize = 64 * 1024;

const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL_ERROR: u16 = 1002;
const CLOSE_BAD_DATA: u16 = 1007;

/// See the module.
pub struct WebSocketStream<S> {
    inner: S,
    /// Read and not yet looked at.
    raw: BytesMut,
    /// The frame that is being read, and how much of its payload has been.
    frame: Option<(Head, u64)>,
    /// The payload of a control frame so far.
    control: Vec<u8>,
    /// Whole frames on their way out.
    out: BytesMut,
    /// What the last PING said, until there is room to answer it. Earlier ones may go unanswered (RFC 6455, 5.5.3), so that
    /// nobody who sends PINGs and reads nothing fills `out`.
    pinged: Option<Vec<u8>>,
    /// The writing side waits for the socket: the reading side must not, or the wrong task would be woken.
    writing: bool,
    ended: bool,
    close_sent: bool,
    /// Compressed messages may come and go.
    deflate: bool,
    /// The compressed message that is being read, and whether all of it has come.
    inflater: Option<Inflater>,
    message_ended: bool,
    /// A message has begun and its last frame has not come.
    in_message: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    pub fn new(inner: S, deflate: bool) -> WebSocketStream<S> {
        WebSocketStream {
            inner,
            raw: BytesMut::new(),
            frame: None,
            control: Vec::new(),
            out: BytesMut::new(),
            pinged: None,
            writing: false,
            ended: false,
            close_sent: false,
            deflate,
            inflater: None,
            message_ended: false,
            in_message: false,
        }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() {
                let Some(payload) = self.pinged.take() else { break };
                websocket::pong(&mut self.out, &payload);
            }
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    /// Sends control frames on, if nobody else does.
    fn push_control(&mut self, context: &mut Context<'_>) {
        let is_owed = !self.out.is_empty() || self.pinged.is_some();
        if !self.writing && is_owed {
            // An error shows up where the socket is read or written next.
            let _ = self.poll_drain(context);
        }
    }

    /// Works through what has been read; true when `buffer` got something.
    fn decode(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        loop {
            if let Some(inflater) = &mut self.inflater
                && !inflater.is_done()
            {
                match inflater.fill(buffer) {
                    Ok(true) => return Ok(true),
                    Ok(false) if buffer.remaining() == 0 => return Ok(false),
                    Ok(false) => {}
                    Err(error) => {
                        self.say_goodbye(CLOSE_BAD_DATA, "not deflated");
                        return Err(error);
                    }
                }
            }
            if self.message_ended && self.inflater.as_ref().is_some_and(Inflater::is_done) {
                self.inflater = None;
            }
            let Some((head, done)) = &mut self.frame else {
                match Head::parse(&self.raw, self.deflate).and_then(|parsed| self.in_order(parsed)) {
                    Ok(Some((head, taken))) => {
                        self.raw.advance(taken);
                        if head.is_compressed {
                            self.inflater = Some(Inflater::new());
                            self.message_ended = false;
                        }
                        self.frame = Some((head, 0));
                        continue;
                    }
                    Ok(None) => return Ok(false),
                    Err(error) => {
                        self.say_goodbye(CLOSE_PROTOCOL_ERROR, &error.to_string());
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
            };
            let left = usize::try_from(head.payload_bytes - *done).unwrap_or(usize::MAX);
            let mut take = left.min(self.raw.len());
            let inflates = head.opcode == Opcode::Data && self.inflater.is_some();
            if head.opcode == Opcode::Data && !inflates {
                take = take.min(buffer.remaining());
            }
            websocket::unmask(&mut self.raw[..take], head.mask, *done);
            *done += take as u64;
            let (opcode, whole, is_final) = (head.opcode, *done == head.payload_bytes, head.is_final);
            match (opcode, &mut self.inflater) {
                (Opcode::Data, Some(inflater)) => {
                    inflater.push(&self.raw[..take]);
                    if whole && is_final {
                        inflater.finish();
                        self.message_ended = true;
                    }
                }
                (Opcode::Data, None) => buffer.put_slice(&self.raw[..take]),
                (_, _) => self.control.extend_from_slice(&self.raw[..take]),
            }
            self.raw.advance(take);
            if whole {
                self.frame = None;
                self.handle_control(opcode);
            }
            if inflates && (take > 0 || whole) {
                continue;
            }
            if opcode == Opcode::Data && take > 0 {
                return Ok(true);
            }
            if !whole || self.ended {
                return Ok(false);
            }
        }
    }

    /// The frames of a message follow one another, with nothing but control frames between them.
    fn in_order(&mut self, parsed: Option<(Head, usize)>) -> Result<Option<(Head, usize)>, FrameError> {
        if let Some((head, _)) = &parsed
            && head.opcode == Opcode::Data
        {
            if head.is_first == self.in_message {
                return Err(FrameError::Order);
            }
            self.in_message = !head.is_final;
        }
        Ok(parsed)
    }

    fn handle_control(&mut self, opcode: Opcode) {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            Opcode::Ping if !self.close_sent => self.pinged = Some(payload),
            Opcode::Close => {
                let code = match (payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code)), payload.is_empty())
                {
                    (None, true) => CLOSE_NORMAL,
                    (Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)), _) => code,
                    _ => CLOSE_PROTOCOL_ERROR,
                };
                self.say_goodbye(code, "");
                self.ended = true;
            }
            _ => {}
        }
    }

    fn say_goodbye(&mut self, code: u16, reason: &str) {
        if !std::mem::replace(&mut self.close_sent, true) {
            if let Some(payload) = self.pinged.take() {
                websocket::pong(&mut self.out, &payload);
            }
            websocket::close(&mut self.out, code, reason);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let decoded = this.decode(buffer);
            this.push_control(context);
            if decoded? || this.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.raw.is_empty() {
                // An idle client keeps no buffer.
                this.raw = BytesMut::new();
            }
            let mut chunk = [0u8; READ_BYTES];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                this.ended = true;
                return Poll::Ready(Ok(()));
            }
            this.raw.extend_from_slice(read.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.writing = true;
        ready!(this.poll_drain(context))?;
        this.writing = false;
        if this.close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let payload = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        match this.deflate.then(|| deflate::deflate(payload)).flatten() {
            Some(deflated) => {
                websocket::data_head(&mut this.out, deflated.len(), true);
                this.out.extend_from_slice(&deflated);
            }
            None => {
                websocket::data_head(&mut this.out, payload.len(), false);
                this.out.extend_from_slice(payload);
            }
        }
        this.writing = this.poll_drain(context)?.is_pending();
        Poll::Ready(Ok(payload.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.writing = true;
        ready!(this.poll_drain(context))?;
        this.writing = false;
        if this.out.capacity() > FRAME_BYTES_MAX / 2 {
            this.out = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.say_goodbye(CLOSE_NORMAL, "");
        this.writing = true;
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const MASK: [u8; 4] = [0; 4];

    fn ping(payload: &[u8]) -> Vec<u8> {
        [&[0x89, 0x80 | payload.len() as u8], &MASK[..], payload].concat()
    }

    #[tokio::test]
    async fn pings_of_a_peer_that_never_reads_fill_nothing() {
        const ROUNDS: u32 = 10_000;
        let (mut peer, inner) = tokio::io::duplex(1024);
        let mut stream = WebSocketStream::new(inner, false);
        let flood = async {
            for number in 0..ROUNDS {
                let payload = [&number.to_be_bytes()[..], &[b'x'; 121]].concat();
                peer.write_all(&ping(&payload)).await.unwrap();
            }
            peer.write_all(&[&[0x82, 0x82], &MASK[..], b"hi"].concat()).await.unwrap();
            peer
        };
        let mut buffer = [0; 2];
        let (mut peer, read) = tokio::join!(flood, stream.read_exact(&mut buffer));
        assert_eq!((read.unwrap(), &buffer), (2, b"hi"));
        assert!(stream.out.capacity() < 4096, "{} bytes wait", stream.out.len());

        // The last PING is answered once the peer reads.
        let (sent, ()) = tokio::join!(stream.write_all(b"ho"), async {
            let mut last = 0;
            while last != ROUNDS - 1 {
                let mut pong = [0; 127];
                peer.read_exact(&mut pong[..2]).await.unwrap();
                let length = usize::from(pong[1]);
                peer.read_exact(&mut pong[2..2 + length]).await.unwrap();
                if pong[0] == 0x8a {
                    last = u32::from_be_bytes(pong[2..6].try_into().unwrap());
                }
            }
        });
        sent.unwrap();
    }
}
