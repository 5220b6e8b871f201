//! L5: HTTP monitoring: `/healthz /varz /connz /jsz /subsz` with nats-server's field names (`server/monitor.go`), and an
//! index page. Owns the endpoints and their bounds; reads the broker only through [`Source`], as plain values.
//!
//! Fields of what this broker does not have (clusters, gateways, leaf nodes, MQTT) are left out, but for the counters
//! that dashboards add up, which are 0. Two deliberate differences: only GET and HEAD are answered, and no
//! `Access-Control-Allow-Origin` is sent, so that a web page elsewhere cannot read who is connected to this machine.

mod connz;
mod healthz;
mod http;
mod index;
mod jsz;
mod process;
mod query;
mod source;
mod subsz;
mod text;
mod varz;

pub use http::Monitor;
pub use source::{Boxed, Connection, Identity, JetStream, Routes, Source, Stream, Subscription, Totals};
