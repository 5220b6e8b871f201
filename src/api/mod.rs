//! L3, pure: the `$JS.API.>` vocabulary. Owns how a request subject and its JSON body are read, the exact JSON shapes of
//! responses, PubAcks and advisories, and paging. Must not know streams at work, the store, a clock or a task: values go
//! in, bytes come out.
//!
//! Shapes and texts were compared with a running nats-server 2.15.1; source: `server/jetstream_api.go`,
//! `server/jetstream_events.go`.

mod advisory;
mod direct;
mod endpoint;
mod json;
pub mod metadata;
mod page;
mod pub_ack;
pub mod read;
mod request;
mod response;
mod stream_request;

pub use advisory::{Action, Advisory, Audit, ClientInfo};
pub use direct::{DirectGet, DirectGetError, direct_headers, end_of_batch, next_in_batch, with_direct_headers};
pub use endpoint::{ConsumerForm, Endpoint};
pub use json::{Strictness, decode, is_empty, is_object_or_array};
pub use page::{LIST_LIMIT, NAMES_LIMIT, Page, SUBJECT_DETAILS_LIMIT};
pub use pub_ack::PubAckWriter;
pub use request::{
    CreateAction, CreateConsumer, MsgDelete, MsgGet, Offset, Pause, Purge, Reset, Restore, Snapshot, StreamFilter,
    StreamInfoQuery, StreamListFilter, Unpin, stream_config,
};
pub use response::{
    AccountInfo, ApiStats, Cluster, ConsumerList, ConsumerReset, Found, Kind, Names, PagedStreamInfo, Paused,
    RestoreAccepted, SnapshotAccepted, SourceInfo, StoredMsg, StreamInfo, StreamList, Success, Tier, error_response,
    response,
};
