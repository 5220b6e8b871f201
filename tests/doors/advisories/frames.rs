//! Memory before authentication, and lengths that overflow, by WebSocket: frames of every length, bombs, frames out of
//! order.

use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{PATIENCE, World};

const TEXT: &str = "authorization { user: u, password: p, timeout: 20 }\n\
                    websocket { port: -1, no_tls: true, compression: true }";
const MASK: [u8; 4] = [1, 2, 3, 4];

struct Page {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Page {
    async fn open(world: &World, more: &str) -> Page {
        let url = world.server.websocket_url().expect("there is a WebSocket port");
        let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
        let mut page = Page { stream: TcpStream::connect(("127.0.0.1", port)).await.unwrap(), heard: Vec::new() };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        );
        page.say(request.as_bytes()).await;
        page.until(b"\r\n\r\n").await;
        page
    }

    async fn say(&mut self, bytes: &[u8]) {
        // The other end may have closed already.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads on to `wanted`; false when the end comes first.
    async fn until(&mut self, wanted: &[u8]) -> bool {
        while !self.heard.windows(wanted.len()).any(|window| window == wanted) {
            let read = self.stream.read_buf(&mut self.heard);
            match tokio::time::timeout(PATIENCE, read).await.expect("an answer in time") {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            }
        }
        true
    }

    async fn is_cut(&mut self) -> bool {
        !self.until(b"never said").await
    }
}

/// A frame whose length is written as `length`, with its mask and a payload, whole or not.
fn frame(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | length[0]];
    frame.extend(&length[1..]);
    frame.extend(MASK);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

fn short(first: u8, payload: &[u8]) -> Vec<u8> {
    match payload.len() {
        length @ 0..=125 => frame(first, &[length as u8], payload),
        length => frame(first, &[&[126][..], &(length as u16).to_be_bytes()].concat(), payload),
    }
}

fn long(length: u64) -> Vec<u8> {
    [&[127][..], &length.to_be_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_of_frames() {
    let world = World::start(TEXT).await;
    let connect = b"CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\nPING\r\n";
    // A frame may be as long as it likes: nothing is kept for what has not come.
    for length in [1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1] {
        let mut page = Page::open(&world, "").await;
        page.say(&frame(0x82, &long(length), connect)).await;
        assert!(page.until(b"PONG\r\n").await, "{length}");
    }
    let mut wrong = 0;
    for length in [long(0), long(125), long(0xffff), long(1 << 63), long(u64::MAX), vec![126, 0, 0], vec![126, 0, 125]]
    {
        for before in [&[][..], &short(0x82, connect)] {
            let mut page = Page::open(&world, "").await;
            page.say(before).await;
            page.say(&frame(0x82, &length, b"PING\r\n")).await;
            assert!(page.is_cut().await, "{length:?}");
            assert!(page.heard.windows(2).any(|code| code == 1002u16.to_be_bytes()), "{length:?}");
            wrong += 1;
        }
    }
    // Control frames are short and whole.
    for bytes in [frame(0x89, &[126, 0, 126], &[0; 126]), frame(0x88, &long(1 << 40), b""), short(0x09, b"")] {
        let mut page = Page::open(&world, "").await;
        page.say(&bytes).await;
        assert!(page.is_cut().await, "{bytes:?}");
        wrong += 1;
    }
    println!("6 lengths taken, {wrong} refused");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_out_of_order() {
    let world = World::start(TEXT).await;
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    for (more, frames) in [
        ("", vec![short(0x80, b"PING\r\n")]),
        ("", vec![short(0x02, b"CON"), short(0x82, b"NECT {}\r\n")]),
        ("", vec![short(0x02, b"CON"), short(0x80, b"NECT "), short(0x80, b"{}\r\n")]),
        ("", vec![short(0xc2, b"x")]),
        (deflate, vec![short(0x42, b"x"), short(0xc2, b"y")]),
        (deflate, vec![short(0xc0, b"x")]),
        (deflate, vec![short(0xa2, b"x")]),
        ("", vec![short(0x83, b"x")]),
        ("", vec![short(0x88, &[3])]),
        ("", vec![short(0x88, &1005u16.to_be_bytes())]),
        ("", vec![vec![0x82, 5, b'P', b'I', b'N', b'G', b'\n']]),
    ] {
        let mut page = Page::open(&world, more).await;
        for bytes in &frames {
            page.say(bytes).await;
        }
        assert!(page.is_cut().await, "{frames:?}");
        assert!(page.heard.windows(2).any(|code| code == 1002u16.to_be_bytes()), "{frames:?}");
    }
    world.server.stop().await;
}

/// A message that inflates to very much more, as compressed frames.
fn bomb(text: &[u8], zeros: usize) -> Vec<u8> {
    let plain = [text, &vec![b' '; zeros]].concat();
    let mut deflated = Vec::with_capacity(plain.len() / 100 + 1000);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&plain, &mut deflated, FlushCompress::Sync).unwrap();
    deflated.truncate(deflated.len() - 4);
    let mut frames = Vec::new();
    let pieces: Vec<&[u8]> = deflated.chunks(60_000).collect();
    for (at, piece) in pieces.iter().enumerate() {
        let last = if at + 1 == pieces.len() { 0x80 } else { 0 };
        let first = if at == 0 { 0x42 } else { 0 };
        frames.extend(short(last | first, piece));
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bombs_meet_the_limits_of_what_they_inflate_to() {
    const ZEROS: usize = 32 << 20;
    let world = World::start(TEXT).await;
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let connect = b"CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\n";
    for (before, text, expected) in [
        (&[][..], &b""[..], "Authorization Violation"),
        (b"", b"CONNECT ", "maximum control line exceeded"),
        (b"", b"PUB x 33554432\r\n", "Authorization Violation"),
        (connect, b"PUB ", "maximum control line exceeded"),
        (connect, b"PUB x 33554432\r\n", "Maximum Payload Violation"),
        (connect, b"PUB x 99999999999999999999\r\n", ""),
    ] {
        let mut page = Page::open(&world, deflate).await;
        assert!(String::from_utf8_lossy(&page.heard).contains("permessage-deflate"));
        if !before.is_empty() {
            page.say(&short(0x82, before)).await;
        }
        let bomb = bomb(text, ZEROS);
        assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
        page.say(&bomb).await;
        // Small answers come as they are.
        assert!(page.is_cut().await, "{}", String::from_utf8_lossy(text));
        let heard = String::from_utf8_lossy(&page.heard);
        assert!(heard.contains("-ERR") && heard.contains(expected), "{expected}: {heard}");
    }
    println!("6 bombs of {} KiB each inflate to {} MiB", bomb(b"", ZEROS).len() >> 10, ZEROS >> 20);
    world.server.stop().await;
}
