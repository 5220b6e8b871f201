//! L0, pure: plain values every layer shares. Owns subjects, header blocks, messages, ids, times and schedules; must not know
//! the wire, the store, a clock or a task.

pub mod api_error;
pub mod cron;
pub mod digits;
pub mod filter_set;
pub mod go_duration;
pub mod go_json;
pub mod header;
pub mod id;
pub mod jetstream_limits;
pub mod message;
pub mod schedule;
pub mod subject;
pub mod time;
pub mod transform;
pub mod wildcards;

pub use api_error::ApiError;
pub use filter_set::{FilterSet, TooMany};
pub use go_duration::GoDuration;
pub use header::Headers;
pub use id::StreamId;
pub use jetstream_limits::{AssetLimits, JetStreamLimits};
pub use message::{Message, StoredMessage};
pub use schedule::Schedule;
pub use time::Timestamp;
pub use transform::Transform;

/// Whether a field says nothing and is left out where it is written: for serde's `skip_serializing_if`.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
