//! Names the server invents (nuid, as nats-server does) and the store's numbers. Randomness is an argument.

/// The store's number of a stream: the first half of every row's key. Never reused, so that a row left behind by a
/// dropped stream can never be taken for another stream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

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
