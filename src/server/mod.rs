//! L5: sockets: accept, connection loops, start and stop.
