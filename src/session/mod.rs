//! L2, pure: one client's life, from its first byte to its close.
//!
//! Owns what CONNECT decides, what may be done when, the keepalive and the CONNECT deadline. Must not know sockets,
//! clocks or who is subscribed to what: `now` comes in, and what to do comes back as values that the link carries out.

mod keepalive;
mod machine;

pub use machine::{Admit, Phase, Session, SessionTraffic, Settings, Tick};
