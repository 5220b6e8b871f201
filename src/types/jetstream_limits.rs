//! What one account may use of JetStream, as it is configured, held to and reported.

use serde::Serialize;

/// JetStream's limits in one account, field for field as account information tells them (nats-server
/// `JetStreamAccountLimits`). Sizes are bytes; -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JetStreamLimits {
    pub max_memory: i64,
    pub max_storage: i64,
    pub max_streams: i64,
    pub max_consumers: i64,
    pub max_ack_pending: i64,
    pub memory_max_stream_bytes: i64,
    pub storage_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

impl Default for JetStreamLimits {
    fn default() -> JetStreamLimits {
        JetStreamLimits {
            max_memory: -1,
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            max_ack_pending: -1,
            memory_max_stream_bytes: -1,
            storage_max_stream_bytes: -1,
            max_bytes_required: false,
        }
    }
}

/// What every consumer, stream and batch on the server is held to, field for field as monitoring tells them (nats-server
/// `JSLimitOpts`). 0: no limit, or for batches the usual one. Durations are nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AssetLimits {
    #[serde(skip_serializing_if = "is_zero")]
    pub max_request_batch: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ack_pending: i64,
    /// Told and nothing more: no asset has replicas here.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_ha_assets: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_duplicate_window: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_batch_inflight_per_stream: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_batch_inflight_total: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_batch_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_batch_timeout: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
