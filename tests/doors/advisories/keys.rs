//! Nonces that come again, and keys that sign for everybody.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hashbrown::HashSet;
use nkeys::KeyPair;

use super::super::World;

fn nonce(info: &str) -> String {
    info.split("\"nonce\":\"").nth(1).expect("a nonce in INFO").split('"').next().unwrap().to_owned()
}

fn sign(key: &KeyPair, nonce: &str) -> String {
    URL_SAFE_NO_PAD.encode(key.sign(nonce.as_bytes()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_is_for_one_connection() {
    let key = KeyPair::new_user();
    let text = format!("authorization {{ timeout: 30, users: [ {{ nkey: {} }} ] }}", key.public_key());
    let world = World::start(&text).await;
    let mut nonces = HashSet::new();
    for _ in 0..200 {
        let info = world.wire().await.info;
        assert!(nonces.insert(nonce(&info)), "{info}");
    }
    let hello =
        |signature: &str| format!(r#"CONNECT {{"verbose":false,"nkey":"{}","sig":"{signature}"}}"#, key.public_key());
    let (mut one, mut other) = (world.wire().await, world.wire().await);
    let of_one = sign(&key, &nonce(&one.info));
    assert_eq!(other.ask(&hello(&of_one)).await[0], "-ERR 'Authorization Violation'", "another connection's nonce");
    assert_eq!(one.ask(&hello(&of_one)).await, ["PONG"]);
    // Said again on the same connection it is the same word.
    assert_eq!(one.ask(&hello(&of_one)).await, ["PONG"]);
    for signed in ["", "nonce", "\0\0\0\0\0\0\0\0\0\0\0", "AAAAAAAAAAAAAAA"] {
        let mut wire = world.wire().await;
        assert_eq!(wire.ask(&hello(&sign(&key, signed))).await[0], "-ERR 'Authorization Violation'", "{signed:?}");
    }
    println!("{} nonces, all different", nonces.len());
    world.server.stop().await;
}

/// Points of small order: with such a key some signatures hold for any message.
const WEAK: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        minus_one
    },
    {
        let mut twisted = [0; 32];
        twisted[31] = 0x80;
        twisted
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_small_order_and_signatures_of_zeros_let_nobody_in() {
    let mut refused = 0;
    for bytes in WEAK {
        let weak = public_key_of(&bytes);
        let text = format!("authorization {{ users: [ {{ nkey: {weak} }} ] }}");
        let folder = tempfile::tempdir().unwrap();
        let base = natterjack::config::Config::on_free_ports(folder.path());
        let started = match natterjack::config::file::read_text(base, &text) {
            Ok(config) => {
                natterjack::server::Server::start(config).await.map(|_| ()).map_err(|error| error.to_string())
            }
            Err(errors) => Err(errors.to_string()),
        };
        assert!(started.is_err(), "{weak} is taken for a key");
        refused += 1;
    }
    let key = KeyPair::new_user();
    let text = format!("authorization {{ timeout: 30, users: [ {{ nkey: {} }} ] }}", key.public_key());
    let world = World::start(&text).await;
    for signature in [[0u8; 64], [0xff; 64], {
        let mut identity = [0; 64];
        identity[0] = 1;
        identity
    }] {
        let mut wire = world.wire().await;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let hello = format!(r#"CONNECT {{"nkey":"{}","sig":"{signature}"}}"#, key.public_key());
        assert_eq!(wire.ask(&hello).await[0], "-ERR 'Authorization Violation'", "{signature}");
        refused += 1;
    }
    println!("{refused} weak keys and signatures refused");
    world.server.stop().await;
}

/// Base32 of a user's prefix, the key and CRC-16/XMODEM, as nkeys are written.
fn public_key_of(key: &[u8; 32]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut raw = vec![20 << 3];
    raw.extend(key);
    let mut crc = 0u16;
    for byte in &raw {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
        }
    }
    raw.extend(crc.to_le_bytes());
    let (mut text, mut bits, mut held) = (String::new(), 0, 0u32);
    for byte in raw {
        held = held << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
    }
    text
}

#[test]
fn keys_are_written_as_the_crate_reads_them() {
    let key = KeyPair::new_user();
    let (_, bytes) = nkeys::from_public_key(&key.public_key()).unwrap();
    assert_eq!(public_key_of(&bytes), key.public_key());
}
