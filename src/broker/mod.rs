//! L4: composition: links, routes, stream tasks, the registry. Must not know sockets.
