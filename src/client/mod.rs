//! L5: a small NATS client over any byte stream, for the coordinator and the command line.
