//! L5: what people and tools see of the server: [`Reports`] with nats-server's field names (`server/monitor.go`), served
//! over HTTP by [`Monitor`] and to the system account by [`System`] (`$SYS.REQ.>`), and [`Events`] on `$SYS.ACCOUNT.>` and
//! `$SYS.SERVER.>` (`server/events.go`). Owns the endpoints and their bounds; reports read the broker only through
//! [`Source`], as plain values.
//!
//! Fields of what this broker does not have (clusters, gateways, leaf nodes, MQTT) are left out, but for the counters
//! that dashboards add up, which are 0. Two deliberate differences: only GET and HEAD are answered, and no
//! `Access-Control-Allow-Origin` is sent, so that a web page elsewhere cannot read who is connected to this machine.

mod accountz;
mod connz;
mod entrances;
mod events;
mod healthz;
mod http;
mod index;
mod jsz;
mod metrics;
mod process;
mod query;
mod reports;
mod source;
mod subsz;
mod system;
mod text;
mod user;
mod varz;

pub use entrances::{ShownTls, ShownWebSocket};
pub use events::{Events, tell_lame_duck};
pub use http::{CurrentTls, Monitor};
pub use reports::{Reports, Shown};
pub use source::NO_CONFIG_FILE;
pub use source::{
    Account, Boxed, ByName, Connection, Identity, JetStream, PeerCertificate, Routes, Source, Stream, SubjectTraffic,
    Subscription, TaskQueue, Tasks, Tls, Totals, Wanted,
};
pub use system::System;
