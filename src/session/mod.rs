//! L2, pure: one client's life: identity, limits, keepalive. Must not know sockets or clocks.
