//! The one table of JetStream API errors: HTTP-like code, numbered `err_code` and description, as in nats-server's
//! `server/errors.json`. Descriptions with a hole (`{err}`, `{seq}`) are filled by [`ApiError::with`].
//!
//! A plain value, so that pure modules can refuse with it; `api` only puts it on the wire.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// An error as a JetStream response carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub struct ApiError {
    /// HTTP-like class: 400, 404, 500, 503.
    pub code: u16,
    /// The stable number clients compare.
    pub err_code: u32,
    pub description: Cow<'static, str>,
}

impl ApiError {
    const fn new(code: u16, err_code: u32, description: &'static str) -> ApiError {
        ApiError { code, err_code, description: Cow::Borrowed(description) }
    }

    /// Fills the description's first hole with `value`.
    pub fn with(&self, value: impl std::fmt::Display) -> ApiError {
        let description = match (self.description.find('{'), self.description.find('}')) {
            (Some(open), Some(close)) if open < close => {
                format!("{}{value}{}", &self.description[..open], &self.description[close + 1..])
            }
            _ => self.description.to_string(),
        };
        ApiError { code: self.code, err_code: self.err_code, description: Cow::Owned(description) }
    }

    pub const ACCOUNT_RESOURCES_EXCEEDED: ApiError = ApiError::new(400, 10002, "resource limits exceeded for account");
    pub const BAD_REQUEST: ApiError = ApiError::new(400, 10003, "bad request");
    pub const CLUSTER_NOT_AVAIL: ApiError = ApiError::new(503, 10008, "JetStream system temporarily unavailable");
    pub const CONSUMER_CREATE: ApiError = ApiError::new(500, 10012, "{err}");
    pub const CONSUMER_NAME_EXIST: ApiError = ApiError::new(400, 10013, "consumer name already in use");
    pub const CONSUMER_NOT_FOUND: ApiError = ApiError::new(404, 10014, "consumer not found");
    pub const SNAPSHOT_DELIVER_SUBJECT_INVALID: ApiError = ApiError::new(400, 10015, "deliver subject not valid");
    pub const CONSUMER_DURABLE_NAME_NOT_IN_SUBJECT: ApiError =
        ApiError::new(400, 10016, "consumer expected to be durable but no durable name set in subject");
    pub const CONSUMER_DURABLE_NAME_NOT_MATCH_SUBJECT: ApiError =
        ApiError::new(400, 10017, "consumer name in subject does not match durable name in request");
    pub const CONSUMER_DURABLE_NAME_NOT_SET: ApiError =
        ApiError::new(400, 10018, "consumer expected to be durable but a durable name was not set");
    pub const CONSUMER_EPHEMERAL_WITH_DURABLE_IN_SUBJECT: ApiError =
        ApiError::new(400, 10019, "consumer expected to be ephemeral but detected a durable name set in subject");
    pub const CONSUMER_EPHEMERAL_WITH_DURABLE_NAME: ApiError =
        ApiError::new(400, 10020, "consumer expected to be ephemeral but a durable name was set in request");
    pub const STREAM_EXTERNAL_API_OVERLAP: ApiError =
        ApiError::new(400, 10021, "stream external api prefix {prefix} must not overlap with {subject}");
    pub const STREAM_EXTERNAL_DEL_PREFIX_OVERLAPS: ApiError =
        ApiError::new(400, 10022, "stream external delivery prefix {prefix} overlaps with stream subject {subject}");
    pub const INSUFFICIENT_RESOURCES: ApiError = ApiError::new(503, 10023, "insufficient resources");
    pub const STREAM_INVALID_EXTERNAL_DELIVERY_SUBJ: ApiError =
        ApiError::new(400, 10024, "stream external delivery prefix {prefix} must not contain wildcards");
    pub const INVALID_JSON: ApiError = ApiError::new(400, 10025, "invalid JSON: {err}");
    pub const MAXIMUM_CONSUMERS_LIMIT: ApiError = ApiError::new(400, 10026, "maximum consumers limit reached");
    pub const MAXIMUM_STREAMS_LIMIT: ApiError = ApiError::new(400, 10027, "maximum number of streams reached");
    pub const MEMORY_RESOURCES_EXCEEDED: ApiError =
        ApiError::new(500, 10028, "insufficient memory resources available");
    pub const MIRROR_CONSUMER_SETUP_FAILED: ApiError = ApiError::new(500, 10029, "{err}");
    pub const MIRROR_MAX_MESSAGE_SIZE_TOO_BIG: ApiError =
        ApiError::new(400, 10030, "stream mirror must have max message size >= source");
    pub const MIRROR_WITH_SOURCES: ApiError =
        ApiError::new(400, 10031, "stream mirrors can not also contain other sources");
    pub const MIRROR_WITH_START_SEQ_AND_TIME: ApiError =
        ApiError::new(400, 10032, "stream mirrors can not have both start seq and start time configured");
    pub const MIRROR_WITH_SUBJECT_FILTERS: ApiError =
        ApiError::new(400, 10033, "stream mirrors can not contain filtered subjects");
    pub const MIRROR_WITH_SUBJECTS: ApiError = ApiError::new(400, 10034, "stream mirrors can not contain subjects");
    pub const NO_ACCOUNT: ApiError = ApiError::new(503, 10035, "account not found");
    pub const NO_MESSAGE_FOUND: ApiError = ApiError::new(404, 10037, "no message found");
    pub const NOT_EMPTY_REQUEST: ApiError = ApiError::new(400, 10038, "expected an empty request payload");
    pub const NOT_ENABLED_FOR_ACCOUNT: ApiError = ApiError::new(503, 10039, "JetStream not enabled for account");
    pub const RESTORE_SUBSCRIBE_FAILED: ApiError =
        ApiError::new(500, 10042, "JetStream unable to subscribe to restore snapshot {subject}: {err}");
    pub const SEQUENCE_NOT_FOUND: ApiError = ApiError::new(400, 10043, "sequence {seq} not found");
    pub const CLUSTER_SERVER_NOT_MEMBER: ApiError = ApiError::new(400, 10044, "server is not a member of the cluster");
    pub const SOURCE_CONSUMER_SETUP_FAILED: ApiError = ApiError::new(500, 10045, "{err}");
    pub const SOURCE_MAX_MESSAGE_SIZE_TOO_BIG: ApiError =
        ApiError::new(400, 10046, "stream source must have max message size >= target");
    pub const STORAGE_RESOURCES_EXCEEDED: ApiError =
        ApiError::new(500, 10047, "insufficient storage resources available");
    pub const STREAM_ASSIGNMENT: ApiError = ApiError::new(500, 10048, "{err}");
    pub const STREAM_CREATE: ApiError = ApiError::new(500, 10049, "{err}");
    pub const STREAM_DELETE: ApiError = ApiError::new(500, 10050, "{err}");
    pub const STREAM_GENERAL_ERROR_F: ApiError = ApiError::new(500, 10051, "{err}");
    pub const STREAM_INVALID_CONFIG_F: ApiError = ApiError::new(500, 10052, "{err}");
    pub const STREAM_LIMITS: ApiError = ApiError::new(500, 10053, "{err}");
    pub const STREAM_MESSAGE_EXCEEDS_MAXIMUM: ApiError =
        ApiError::new(400, 10054, "message size exceeds maximum allowed");
    pub const STREAM_MIRROR_NOT_UPDATABLE: ApiError =
        ApiError::new(400, 10055, "stream mirror configuration can not be updated");
    pub const STREAM_MISMATCH: ApiError = ApiError::new(400, 10056, "stream name in subject does not match request");
    pub const STREAM_MSG_DELETE_FAILED_F: ApiError = ApiError::new(500, 10057, "{err}");
    pub const STREAM_NAME_EXIST: ApiError =
        ApiError::new(400, 10058, "stream name already in use with a different configuration");
    pub const STREAM_NOT_FOUND: ApiError = ApiError::new(404, 10059, "stream not found");
    pub const STREAM_NOT_MATCH: ApiError = ApiError::new(400, 10060, "expected stream does not match");
    pub const STREAM_REPLICAS_NOT_UPDATABLE: ApiError =
        ApiError::new(400, 10061, "Replicas configuration can not be updated");
    pub const STREAM_RESTORE: ApiError = ApiError::new(500, 10062, "restore failed: {err}");
    pub const STREAM_SEQUENCE_NOT_MATCH: ApiError =
        ApiError::new(503, 10063, "expected stream sequence does not match");
    pub const STREAM_SNAPSHOT: ApiError = ApiError::new(500, 10064, "snapshot failed: {err}");
    pub const STREAM_SUBJECT_OVERLAP: ApiError = ApiError::new(400, 10065, "subjects overlap with an existing stream");
    pub const STREAM_TEMPLATE_CREATE: ApiError = ApiError::new(500, 10066, "{err}");
    pub const STREAM_TEMPLATE_DELETE: ApiError = ApiError::new(500, 10067, "{err}");
    pub const STREAM_TEMPLATE_NOT_FOUND: ApiError = ApiError::new(404, 10068, "template not found");
    pub const STREAM_UPDATE: ApiError = ApiError::new(500, 10069, "{err}");
    pub const STREAM_WRONG_LAST_MSG_ID: ApiError = ApiError::new(400, 10070, "wrong last msg ID: {id}");
    pub const STREAM_WRONG_LAST_SEQUENCE: ApiError = ApiError::new(400, 10071, "wrong last sequence: {seq}");
    pub const TEMP_STORAGE_FAILED: ApiError =
        ApiError::new(500, 10072, "JetStream unable to open temp storage for restore");
    pub const TEMPLATE_NAME_NOT_MATCH_SUBJECT: ApiError =
        ApiError::new(400, 10073, "template name in subject does not match request");
    pub const STREAM_REPLICAS_NOT_SUPPORTED: ApiError =
        ApiError::new(500, 10074, "replicas > 1 not supported in non-clustered mode");
    pub const NOT_ENABLED: ApiError = ApiError::new(503, 10076, "JetStream not enabled");
    pub const STREAM_STORE_FAILED_F: ApiError = ApiError::new(503, 10077, "{err}");
    pub const CONSUMER_CONFIG_REQUIRED: ApiError = ApiError::new(400, 10078, "consumer config required");
    pub const CONSUMER_DELIVER_TO_WILDCARDS: ApiError =
        ApiError::new(400, 10079, "consumer deliver subject has wildcards");
    pub const CONSUMER_PUSH_MAX_WAITING: ApiError =
        ApiError::new(400, 10080, "consumer in push mode can not set max waiting");
    pub const CONSUMER_DELIVER_CYCLE: ApiError = ApiError::new(400, 10081, "consumer deliver subject forms a cycle");
    pub const CONSUMER_MAX_PENDING_ACK_POLICY_REQUIRED: ApiError =
        ApiError::new(400, 10082, "consumer requires ack policy for max ack pending");
    pub const CONSUMER_SMALL_HEARTBEAT: ApiError =
        ApiError::new(400, 10083, "consumer idle heartbeat needs to be >= 100ms");
    pub const CONSUMER_PULL_REQUIRES_ACK: ApiError =
        ApiError::new(400, 10084, "consumer in pull mode requires explicit ack policy on workqueue stream");
    pub const CONSUMER_PULL_NOT_DURABLE: ApiError =
        ApiError::new(400, 10085, "consumer in pull mode requires a durable name");
    pub const CONSUMER_PULL_WITH_RATE_LIMIT: ApiError =
        ApiError::new(400, 10086, "consumer in pull mode can not have rate limit set");
    pub const CONSUMER_MAX_WAITING_NEGATIVE: ApiError =
        ApiError::new(400, 10087, "consumer max waiting needs to be positive");
    pub const CONSUMER_HB_REQUIRES_PUSH: ApiError =
        ApiError::new(400, 10088, "consumer idle heartbeat requires a push based consumer");
    pub const CONSUMER_FC_REQUIRES_PUSH: ApiError =
        ApiError::new(400, 10089, "consumer flow control requires a push based consumer");
    pub const CONSUMER_DIRECT_REQUIRES_PUSH: ApiError =
        ApiError::new(400, 10090, "consumer direct requires a push based consumer");
    pub const CONSUMER_DIRECT_REQUIRES_EPHEMERAL: ApiError =
        ApiError::new(400, 10091, "consumer direct requires an ephemeral consumer");
    pub const CONSUMER_ON_MAPPED: ApiError = ApiError::new(400, 10092, "consumer direct on a mapped consumer");
    pub const CONSUMER_FILTER_NOT_SUBSET: ApiError =
        ApiError::new(400, 10093, "consumer filter subject is not a valid subset of the interest subjects");
    pub const CONSUMER_INVALID_POLICY: ApiError = ApiError::new(400, 10094, "{err}");
    pub const CONSUMER_INVALID_SAMPLING: ApiError =
        ApiError::new(400, 10095, "failed to parse consumer sampling configuration: {err}");
    pub const STREAM_INVALID: ApiError = ApiError::new(500, 10096, "stream not valid");
    pub const STREAM_HEADER_EXCEEDS_MAXIMUM: ApiError =
        ApiError::new(400, 10097, "header size exceeds maximum allowed of 64k");
    pub const CONSUMER_WQ_REQUIRES_EXPLICIT_ACK: ApiError =
        ApiError::new(400, 10098, "workqueue stream requires explicit ack");
    pub const CONSUMER_WQ_MULTIPLE_UNFILTERED: ApiError =
        ApiError::new(400, 10099, "multiple non-filtered consumers not allowed on workqueue stream");
    pub const CONSUMER_WQ_CONSUMER_NOT_UNIQUE: ApiError =
        ApiError::new(400, 10100, "filtered consumer not unique on workqueue stream");
    pub const CONSUMER_WQ_CONSUMER_NOT_DELIVER_ALL: ApiError =
        ApiError::new(400, 10101, "consumer must be deliver all on workqueue stream");
    pub const CONSUMER_NAME_TOO_LONG: ApiError =
        ApiError::new(400, 10102, "consumer name is too long, maximum allowed is {max}");
    pub const CONSUMER_BAD_DURABLE_NAME: ApiError =
        ApiError::new(400, 10103, "durable name can not contain '.', '*', '>'");
    pub const CONSUMER_STORE_FAILED: ApiError = ApiError::new(500, 10104, "error creating store for consumer: {err}");
    pub const CONSUMER_EXISTING_ACTIVE: ApiError =
        ApiError::new(400, 10105, "consumer already exists and is still active");
    pub const CONSUMER_REPLACEMENT_WITH_DIFFERENT_NAME: ApiError =
        ApiError::new(400, 10106, "consumer replacement durable config not the same");
    pub const CONSUMER_DESCRIPTION_TOO_LONG: ApiError =
        ApiError::new(400, 10107, "consumer description is too long, maximum allowed is {max}");
    pub const CONSUMER_WITH_FLOW_CONTROL_NEEDS_HEARTBEATS: ApiError =
        ApiError::new(400, 10108, "consumer with flow control also needs heartbeats");
    pub const STREAM_SEALED: ApiError = ApiError::new(400, 10109, "invalid operation on sealed stream");
    pub const STREAM_PURGE_FAILED_F: ApiError = ApiError::new(500, 10110, "{err}");
    pub const STREAM_ROLLUP_FAILED_F: ApiError = ApiError::new(500, 10111, "{err}");
    pub const CONSUMER_INVALID_DELIVER_SUBJECT: ApiError =
        ApiError::new(400, 10112, "invalid push consumer deliver subject");
    pub const STREAM_MAX_BYTES_REQUIRED: ApiError =
        ApiError::new(400, 10113, "account requires a stream config to have max bytes set");
    pub const CONSUMER_MAX_REQUEST_BATCH_NEGATIVE: ApiError =
        ApiError::new(400, 10114, "consumer max request batch needs to be > 0");
    pub const CONSUMER_MAX_REQUEST_EXPIRES_TOO_SMALL: ApiError =
        ApiError::new(400, 10115, "consumer max request expires needs to be >= 1ms");
    pub const CONSUMER_MAX_DELIVER_BACKOFF: ApiError =
        ApiError::new(400, 10116, "max deliver is required to be > length of backoff values");
    pub const STREAM_INFO_MAX_SUBJECTS: ApiError =
        ApiError::new(500, 10117, "subject details would exceed maximum allowed");
    pub const STREAM_OFFLINE: ApiError = ApiError::new(500, 10118, "stream is offline");
    pub const CONSUMER_OFFLINE: ApiError = ApiError::new(500, 10119, "consumer is offline");
    pub const NO_LIMITS: ApiError =
        ApiError::new(400, 10120, "no JetStream default or applicable tiered limit present");
    pub const CONSUMER_MAX_PENDING_ACK_EXCESS: ApiError =
        ApiError::new(400, 10121, "consumer max ack pending exceeds system limit of {limit}");
    pub const STREAM_MAX_STREAM_BYTES_EXCEEDED: ApiError =
        ApiError::new(400, 10122, "stream max bytes exceeds account limit max stream bytes");
    pub const STREAM_MOVE_AND_SCALE: ApiError =
        ApiError::new(400, 10123, "can not move and scale a stream in a single update");
    pub const STREAM_MOVE_IN_PROGRESS: ApiError = ApiError::new(400, 10124, "stream move already in progress");
    pub const CONSUMER_MAX_REQUEST_BATCH_EXCEEDED_F: ApiError =
        ApiError::new(400, 10125, "consumer max request batch exceeds server limit of {limit}");
    pub const CONSUMER_REPLICAS_EXCEEDS_STREAM: ApiError =
        ApiError::new(400, 10126, "consumer config replica count exceeds parent stream");
    pub const CONSUMER_NAME_CONTAINS_PATH_SEPARATORS: ApiError =
        ApiError::new(400, 10127, "Consumer name can not contain path separators");
    pub const STREAM_NAME_CONTAINS_PATH_SEPARATORS: ApiError =
        ApiError::new(400, 10128, "Stream name can not contain path separators");
    pub const STREAM_RECONFIGURE_NOT_IN_PROGRESS: ApiError =
        ApiError::new(400, 10129, "stream reconfiguration not in progress");
    pub const STREAM_NAME_EXIST_RESTORE_FAILED: ApiError =
        ApiError::new(400, 10130, "stream name already in use, cannot restore");
    pub const CONSUMER_CREATE_FILTER_SUBJECT_MISMATCH: ApiError =
        ApiError::new(400, 10131, "Consumer create request did not match filtered subject from create subject");
    pub const CONSUMER_CREATE_DURABLE_AND_NAME_MISMATCH: ApiError =
        ApiError::new(400, 10132, "Consumer Durable and Name have to be equal if both are provided");
    pub const REPLICAS_COUNT_CANNOT_BE_NEGATIVE: ApiError =
        ApiError::new(400, 10133, "replicas count cannot be negative");
    pub const CONSUMER_REPLICAS_SHOULD_MATCH_STREAM: ApiError =
        ApiError::new(400, 10134, "consumer config replicas must match interest retention stream's replicas");
    pub const CONSUMER_METADATA_LENGTH: ApiError =
        ApiError::new(400, 10135, "consumer metadata exceeds maximum size of {limit}");
    pub const CONSUMER_DUPLICATE_FILTER_SUBJECTS: ApiError =
        ApiError::new(400, 10136, "consumer cannot have both FilterSubject and FilterSubjects specified");
    pub const CONSUMER_MULTIPLE_FILTERS_NOT_ALLOWED: ApiError =
        ApiError::new(400, 10137, "consumer with multiple subject filters cannot use subject based API");
    pub const CONSUMER_OVERLAPPING_SUBJECT_FILTERS: ApiError =
        ApiError::new(400, 10138, "consumer subject filters cannot overlap");
    pub const CONSUMER_EMPTY_FILTER: ApiError =
        ApiError::new(400, 10139, "consumer filter in FilterSubjects cannot be empty");
    pub const SOURCE_DUPLICATE_DETECTED: ApiError =
        ApiError::new(400, 10140, "duplicate source configuration detected");
    pub const SOURCE_INVALID_STREAM_NAME: ApiError = ApiError::new(400, 10141, "sourced stream name is invalid");
    pub const MIRROR_INVALID_STREAM_NAME: ApiError = ApiError::new(400, 10142, "mirrored stream name is invalid");
    pub const MIRROR_WITH_FIRST_SEQ: ApiError =
        ApiError::new(400, 10143, "stream mirrors can not have first sequence configured");
    pub const SOURCE_MULTIPLE_FILTERS_NOT_ALLOWED: ApiError =
        ApiError::new(400, 10144, "source with multiple subject transforms cannot also have a single subject filter");
    pub const SOURCE_INVALID_SUBJECT_FILTER: ApiError = ApiError::new(400, 10145, "source transform source: {err}");
    pub const SOURCE_INVALID_TRANSFORM_DESTINATION: ApiError = ApiError::new(400, 10146, "source transform: {err}");
    pub const SOURCE_OVERLAPPING_SUBJECT_FILTERS: ApiError =
        ApiError::new(400, 10147, "source filters can not overlap");
    pub const CONSUMER_ALREADY_EXISTS: ApiError = ApiError::new(400, 10148, "consumer already exists");
    pub const CONSUMER_DOES_NOT_EXIST: ApiError = ApiError::new(400, 10149, "consumer does not exist");
    pub const MIRROR_MULTIPLE_FILTERS_NOT_ALLOWED: ApiError =
        ApiError::new(400, 10150, "mirror with multiple subject transforms cannot also have a single subject filter");
    pub const MIRROR_INVALID_SUBJECT_FILTER: ApiError = ApiError::new(400, 10151, "mirror transform source: {err}");
    pub const MIRROR_OVERLAPPING_SUBJECT_FILTERS: ApiError =
        ApiError::new(400, 10152, "mirror subject filters can not overlap");
    pub const CONSUMER_INACTIVE_THRESHOLD_EXCESS: ApiError =
        ApiError::new(400, 10153, "consumer inactive threshold exceeds system limit of {limit}");
    pub const MIRROR_INVALID_TRANSFORM_DESTINATION: ApiError = ApiError::new(400, 10154, "mirror transform: {err}");
    pub const STREAM_TRANSFORM_INVALID_SOURCE: ApiError = ApiError::new(400, 10155, "stream transform source: {err}");
    pub const STREAM_TRANSFORM_INVALID_DESTINATION: ApiError = ApiError::new(400, 10156, "stream transform: {err}");
    pub const PEDANTIC: ApiError = ApiError::new(400, 10157, "pedantic mode: {err}");
    pub const STREAM_DUPLICATE_MESSAGE_CONFLICT: ApiError =
        ApiError::new(409, 10158, "duplicate message id is in process");
    pub const CONSUMER_PRIORITY_POLICY_WITHOUT_GROUP: ApiError =
        ApiError::new(400, 10159, "Setting PriorityPolicy requires at least one PriorityGroup to be set");
    pub const CONSUMER_INVALID_PRIORITY_GROUP: ApiError =
        ApiError::new(400, 10160, "Provided priority group does not exist for this consumer");
    pub const CONSUMER_EMPTY_GROUP_NAME: ApiError = ApiError::new(400, 10161, "Group name cannot be an empty string");
    pub const CONSUMER_INVALID_GROUP_NAME: ApiError = ApiError::new(
        400,
        10162,
        "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
    );
    pub const STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY: ApiError =
        ApiError::new(503, 10163, "expected last sequence per subject temporarily unavailable");
    pub const STREAM_WRONG_LAST_SEQUENCE_CONSTANT: ApiError = ApiError::new(400, 10164, "wrong last sequence");
    pub const MESSAGE_TTL_INVALID: ApiError = ApiError::new(400, 10165, "invalid per-message TTL");
    pub const MESSAGE_TTL_DISABLED: ApiError = ApiError::new(400, 10166, "per-message TTL is disabled");
    pub const STREAM_TOO_MANY_REQUESTS: ApiError = ApiError::new(429, 10167, "too many requests");
    pub const MESSAGE_INCR_DISABLED: ApiError = ApiError::new(400, 10168, "message counters is disabled");
    pub const MESSAGE_INCR_MISSING: ApiError = ApiError::new(400, 10169, "message counter increment is missing");
    pub const MESSAGE_INCR_PAYLOAD: ApiError = ApiError::new(400, 10170, "message counter has payload");
    pub const MESSAGE_INCR_INVALID: ApiError = ApiError::new(400, 10171, "message counter increment is invalid");
    pub const MESSAGE_COUNTER_BROKEN: ApiError = ApiError::new(400, 10172, "message counter is broken");
    pub const MIRROR_WITH_COUNTERS: ApiError =
        ApiError::new(400, 10173, "stream mirrors can not also calculate counters");
    pub const ATOMIC_PUBLISH_DISABLED: ApiError = ApiError::new(400, 10174, "atomic publish is disabled");
    pub const ATOMIC_PUBLISH_MISSING_SEQ: ApiError = ApiError::new(400, 10175, "atomic publish sequence is missing");
    pub const ATOMIC_PUBLISH_INCOMPLETE_BATCH: ApiError =
        ApiError::new(400, 10176, "atomic publish batch is incomplete");
    pub const ATOMIC_PUBLISH_UNSUPPORTED_HEADER_BATCH: ApiError =
        ApiError::new(400, 10177, "atomic publish unsupported header used: {header}");
    pub const CONSUMER_PUSH_WITH_PRIORITY_GROUP: ApiError =
        ApiError::new(400, 10178, "priority groups can not be used with push consumers");
    pub const ATOMIC_PUBLISH_INVALID_BATCH_ID: ApiError =
        ApiError::new(400, 10179, "atomic publish batch ID is invalid");
    pub const STREAM_MIN_LAST_SEQ: ApiError = ApiError::new(412, 10180, "min last sequence");
    pub const CONSUMER_ACK_POLICY_INVALID: ApiError = ApiError::new(400, 10181, "consumer ack policy invalid");
    pub const CONSUMER_REPLAY_POLICY_INVALID: ApiError = ApiError::new(400, 10182, "consumer replay policy invalid");
    pub const CONSUMER_ACK_WAIT_NEGATIVE: ApiError =
        ApiError::new(400, 10183, "consumer ack wait needs to be positive");
    pub const CONSUMER_BACK_OFF_NEGATIVE: ApiError = ApiError::new(400, 10184, "consumer backoff needs to be positive");
    pub const REQUIRED_API_LEVEL: ApiError = ApiError::new(412, 10185, "JetStream minimum api level required");
    pub const MIRROR_WITH_MSG_SCHEDULES: ApiError =
        ApiError::new(400, 10186, "stream mirrors can not also schedule messages");
    pub const SOURCE_WITH_MSG_SCHEDULES: ApiError =
        ApiError::new(400, 10187, "stream source can not also schedule messages");
    pub const MESSAGE_SCHEDULES_DISABLED: ApiError = ApiError::new(400, 10188, "message schedules is disabled");
    pub const MESSAGE_SCHEDULES_PATTERN_INVALID: ApiError =
        ApiError::new(400, 10189, "message schedules pattern is invalid");
    pub const MESSAGE_SCHEDULES_TARGET_INVALID: ApiError =
        ApiError::new(400, 10190, "message schedules target is invalid");
    pub const MESSAGE_SCHEDULES_TTL_INVALID: ApiError =
        ApiError::new(400, 10191, "message schedules invalid per-message TTL");
    pub const MESSAGE_SCHEDULES_ROLLUP_INVALID: ApiError =
        ApiError::new(400, 10192, "message schedules invalid rollup");
    pub const STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_INVALID: ApiError =
        ApiError::new(400, 10193, "missing sequence for expected last sequence per subject");
    pub const STREAM_OFFLINE_REASON: ApiError = ApiError::new(500, 10194, "stream is offline: {err}");
    pub const CONSUMER_OFFLINE_REASON: ApiError = ApiError::new(500, 10195, "consumer is offline: {err}");
    pub const CONSUMER_PRIORITY_GROUP_WITH_POLICY_NONE: ApiError =
        ApiError::new(400, 10196, "consumer can not have priority groups when policy is none");
    pub const CONSUMER_PINNED_TTL_WITHOUT_PRIORITY_POLICY_NONE: ApiError =
        ApiError::new(400, 10197, "PinnedTTL cannot be set when PriorityPolicy is none");
    pub const MIRROR_WITH_ATOMIC_PUBLISH: ApiError =
        ApiError::new(400, 10198, "stream mirrors can not also use atomic publishing");
    pub const ATOMIC_PUBLISH_TOO_LARGE_BATCH: ApiError =
        ApiError::new(400, 10199, "atomic publish batch is too large: {size}");
    pub const ATOMIC_PUBLISH_INVALID_BATCH_COMMIT: ApiError =
        ApiError::new(400, 10200, "atomic publish batch commit is invalid");
    pub const ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE: ApiError =
        ApiError::new(400, 10201, "atomic publish batch contains duplicate message id");
    pub const MESSAGE_SCHEDULES_SOURCE_INVALID: ApiError =
        ApiError::new(400, 10203, "message schedules source is invalid");
    pub const CONSUMER_INVALID_RESET: ApiError = ApiError::new(400, 10204, "invalid reset: {err}");
    pub const BATCH_PUBLISH_DISABLED: ApiError = ApiError::new(400, 10205, "batch publish is disabled");
    pub const BATCH_PUBLISH_INVALID_PATTERN: ApiError = ApiError::new(400, 10206, "batch publish pattern is invalid");
    pub const BATCH_PUBLISH_INVALID_BATCH_ID: ApiError = ApiError::new(400, 10207, "batch publish ID is invalid");
    pub const BATCH_PUBLISH_UNKNOWN_BATCH_ID: ApiError = ApiError::new(400, 10208, "batch publish ID unknown");
    pub const MIRROR_WITH_BATCH_PUBLISH: ApiError =
        ApiError::new(400, 10209, "stream mirrors can not also use batch publishing");
    pub const ATOMIC_PUBLISH_TOO_MANY_INFLIGHT: ApiError =
        ApiError::new(429, 10210, "atomic publish too many inflight");
    pub const BATCH_PUBLISH_TOO_MANY_INFLIGHT: ApiError = ApiError::new(429, 10211, "batch publish too many inflight");
    pub const MESSAGE_SCHEDULES_SCHEDULER_INVALID: ApiError =
        ApiError::new(400, 10212, "message schedules invalid scheduler");
    pub const MIRROR_DURABLE_CONSUMER_CFG_INVALID: ApiError =
        ApiError::new(400, 10213, "stream mirror consumer config is invalid");
    pub const MIRROR_CONSUMER_REQUIRES_ACK_FC: ApiError =
        ApiError::new(400, 10214, "stream mirror consumer requires flow control ack policy");
    pub const SOURCE_DURABLE_CONSUMER_CFG_INVALID: ApiError =
        ApiError::new(400, 10215, "stream source consumer config is invalid");
    pub const SOURCE_DURABLE_CONSUMER_DUPLICATE_DETECTED: ApiError =
        ApiError::new(400, 10216, "duplicate stream source consumer detected");
    pub const SOURCE_CONSUMER_REQUIRES_ACK_FC: ApiError =
        ApiError::new(400, 10217, "stream source consumer requires flow control ack policy");
    pub const CONSUMER_ACK_FC_REQUIRES_PUSH: ApiError =
        ApiError::new(400, 10218, "flow control ack policy requires a push based consumer");
    pub const CONSUMER_ACK_FC_REQUIRES_FC: ApiError =
        ApiError::new(400, 10219, "flow control ack policy requires flow control");
    pub const CONSUMER_ACK_FC_REQUIRES_MAX_ACK_PENDING: ApiError =
        ApiError::new(400, 10220, "flow control ack policy requires max ack pending");
    pub const CONSUMER_ACK_FC_REQUIRES_NO_ACK_WAIT: ApiError =
        ApiError::new(400, 10221, "flow control ack policy requires unset ack wait");
    pub const CONSUMER_ACK_FC_REQUIRES_NO_MAX_DELIVER: ApiError =
        ApiError::new(400, 10222, "flow control ack policy requires unset max deliver");
    pub const MESSAGE_SCHEDULES_TIME_ZONE_INVALID: ApiError =
        ApiError::new(400, 10223, "message schedules time zone is invalid");
    pub const CONSUMER_STREAM_IDENTITY_MISMATCH_F: ApiError =
        ApiError::new(400, 10225, "consumer's stream identity does not match: {msg}");
    pub const STREAM_RECONFIGURE_IN_PROGRESS: ApiError =
        ApiError::new(400, 10226, "stream reconfiguration already in progress");
    pub const MESSAGE_SOURCE_HDR_NOT_ALLOWED: ApiError =
        ApiError::new(400, 10227, "message stream source header is not allowed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_filled_in_order() {
        let error = ApiError::STREAM_WRONG_LAST_SEQUENCE.with(7);
        assert_eq!(error.description, "wrong last sequence: 7");
        assert_eq!(error.err_code, 10071);
    }
}
