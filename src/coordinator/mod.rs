//! L6: a durable task lifecycle for agents that only speak NATS. Pure machines, and a service around them that is nothing
//! but a NATS client, so it runs on any broker with JetStream. Must not know our broker or its store.

pub mod agent;
pub mod backoff;
pub mod errors;
pub mod labels;
pub mod queue;
pub mod random;
pub mod record;
pub mod scheduler;
pub mod task;
