//! The operations of the NATS client protocol, borrowed from the bytes they were read from.

/// What a client says to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOp<'a> {
    /// CONNECT with its JSON body, not yet read.
    Connect(&'a [u8]),
    /// PUB, or HPUB when there are headers.
    Pub {
        subject: &'a [u8],
        /// Empty when there is none.
        reply: &'a [u8],
        /// The raw header block, empty when there is none.
        headers: &'a [u8],
        payload: &'a [u8],
    },
    /// SUB; `queue` is empty for a plain subscription.
    Sub {
        subject: &'a [u8],
        queue: &'a [u8],
        sid: &'a [u8],
    },
    /// UNSUB; `max` is how many messages in total the subscription still lives for, `None` for now. Zero and what is not
    /// a number count as now, as in nats-server; a number too large for it is taken as said.
    Unsub {
        sid: &'a [u8],
        max: Option<u64>,
    },
    Ping,
    Pong,
    /// INFO, which a client may send and a server ignores.
    Info(&'a [u8]),
    /// +OK, ignored.
    Ok,
    /// -ERR with its text as sent; the server closes the connection.
    Err(&'a [u8]),
}

/// What a server says to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerOp<'a> {
    /// INFO with its JSON body, not yet read.
    Info(&'a [u8]),
    /// MSG, or HMSG when there are headers.
    Msg {
        subject: &'a [u8],
        sid: &'a [u8],
        /// Empty when there is none.
        reply: &'a [u8],
        /// The raw header block, empty when there is none.
        headers: &'a [u8],
        payload: &'a [u8],
    },
    Ok,
    /// -ERR with its text, without the quotes.
    Err(&'a [u8]),
    Ping,
    Pong,
}
