//! L4: composition. Owns the one door every client comes through ([`Link`]), who is connected, what is routed where,
//! and the streams. Must not know sockets.

mod account;
mod answers;
mod arrival;
mod bridge;
mod callout;
mod client_state;
mod closed;
mod courier;
mod gate;
mod guard;
pub mod jetstream;
mod latency;
mod link;
mod memory;
mod message_trace;
mod meter;
mod outbox;
mod places;
mod registry;
mod reload;
mod rights;
mod subscription;
mod trace;

pub use account::{Account, AccountRole};
pub use arrival::{Arrival, Cookies, TlsTerms};
pub use callout::ServerKeys;
pub use client_state::{ClientState, Identity};
pub use closed::{AccountTraffic, ClosedClient, ClosedSubscription};
pub use courier::{ARENA_CHUNK_BYTES, Courier, Parcel};
pub use gate::Gate;
pub use link::{Fed, Link};
pub use memory::{Memory, Share};
pub use meter::{Meter, SubjectCounts};
pub use outbox::{Closed, Outbox, Queued};
pub use places::Place;
pub use registry::{Broker, Options, Presence, Totals};
pub use rights::{ListedRights, Rights};
pub use subscription::{Inbound, Receipt, Service, StreamDoor, Subscription};
pub use trace::{TraceTerms, show_traces};
