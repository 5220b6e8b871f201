//! L1, pure: the NATS client protocol between bytes and operations.
//!
//! Owns the grammar: [`parser`] and [`server_parser`] read operations in place from a byte slice, [`encode`] appends
//! them to a buffer, [`websocket`] reads and writes frame heads, [`connect`] holds the JSON bodies of CONNECT and INFO, [`error`] the exact `-ERR` texts.
//! Must not know sockets, sessions or subscriptions: whether an operation may be done is decided in `session`.

pub mod connect;
mod digits;
pub mod encode;
pub mod error;
#[cfg(test)]
mod laws;
pub mod op;
pub mod parser;
mod quote;
pub mod server_parser;
pub mod websocket;

pub use connect::{Connect, Info};
pub use error::ProtocolError;
pub use op::{ClientOp, ServerOp};
pub use parser::{Limits, Parser};
pub use quote::quote;
pub use server_parser::ServerParser;
