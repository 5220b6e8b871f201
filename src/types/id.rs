//! Names the server invents (nuid, as nats-server does) and short name hashes. Randomness is an argument.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `len` characters of `[0-9A-Za-z]`, drawn from `random`.
pub fn token(len: usize, mut random: impl FnMut() -> u32) -> String {
    (0..len).map(|_| DIGITS[(random() % 62) as usize] as char).collect()
}

/// A fresh 22-character unique id from the thread's generator, for the edges of the program.
#[allow(clippy::disallowed_methods)]
pub fn unique() -> String {
    token(22, rand::random::<u32>)
}
