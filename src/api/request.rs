//! Bodies of requests that carry no stream or consumer configuration.

use serde::Deserialize;

use crate::types::{ApiError, Timestamp};

/// Where a paged list starts: CONSUMER.NAMES, CONSUMER.LIST.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Offset {
    pub offset: i64,
}

/// STREAM.NAMES, STREAM.LIST.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamFilter {
    pub offset: i64,
    /// Only streams one of whose subjects overlaps it. Empty: all.
    pub subject: String,
}

/// STREAM.INFO.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamInfoQuery {
    pub offset: i64,
    pub deleted_details: bool,
    /// Adds the message count of each matching subject. Empty: none.
    pub subjects_filter: String,
}

/// STREAM.PURGE: up to but not including `seq`, or all but the last `keep`, of what `filter` matches.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Purge {
    pub seq: u64,
    pub filter: String,
    pub keep: u64,
}

impl Purge {
    /// # Errors
    /// When both `seq` and `keep` are set.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.seq > 0 && self.keep > 0 { Err(ApiError::BAD_REQUEST) } else { Ok(()) }
    }
}

/// STREAM.MSG.DELETE.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MsgDelete {
    pub seq: u64,
    /// Leaves the bytes where they are; the message is gone either way.
    pub no_erase: bool,
}

/// STREAM.MSG.GET and DIRECT.GET.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MsgGet {
    pub seq: u64,
    pub last_by_subj: String,
    pub next_by_subj: String,
    pub batch: i64,
    pub max_bytes: i64,
    pub start_time: Option<Timestamp>,
    pub multi_last: Vec<String>,
    pub up_to_seq: u64,
    pub up_to_time: Option<Timestamp>,
    pub no_hdr: bool,
}

impl MsgGet {
    /// Checks the combination of fields as STREAM.MSG.GET allows it.
    ///
    /// # Errors
    /// `BAD_REQUEST` when the fields contradict each other or say nothing.
    pub fn check(&self) -> Result<(), ApiError> {
        let (last, next) = (!self.last_by_subj.is_empty(), !self.next_by_subj.is_empty());
        let contradicts = self.batch > 0
            || self.max_bytes > 0
            || (self.seq > 0 && last)
            || (self.seq == 0 && !last && !next && self.start_time.is_none())
            || (self.seq > 0 && self.start_time.is_some())
            || (self.start_time.is_some() && last)
            || (last && next);
        if contradicts { Err(ApiError::BAD_REQUEST) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msg_get_says_exactly_one_thing() {
        let check = |body: &str, expected: bool| {
            let request: MsgGet = serde_json::from_str(body).unwrap();
            assert_eq!(request.check().is_ok(), expected, "{body}");
        };
        check(r#"{"seq":1}"#, true);
        check(r#"{"last_by_subj":"a"}"#, true);
        check(r#"{"next_by_subj":"a"}"#, true);
        check(r#"{"next_by_subj":"a","seq":3}"#, true);
        check(r#"{"start_time":"2026-11-21T12:23:29.148988464Z"}"#, true);
        check("{}", false);
        check(r#"{"seq":1,"last_by_subj":"a"}"#, false);
        check(r#"{"seq":1,"batch":2}"#, false);
        check(r#"{"last_by_subj":"a","next_by_subj":"a"}"#, false);
        check(r#"{"seq":1,"start_time":"2026-11-21T12:23:29.148988464Z"}"#, false);
    }
}
