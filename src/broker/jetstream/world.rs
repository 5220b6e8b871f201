//! The world as a stream sees it: its consumers' interest, and its own messages wherever they are.

use tracing::error;

use super::budget::OpenBatches;
use super::contents::Contents;
use super::stream_task::StreamTask;
use crate::stream::{Changes, Stream, StreamConfig, World};

/// Whether a stream reads its own messages while it changes, so that those not durable yet must stay at hand.
pub(super) fn reads_itself(config: &StreamConfig) -> bool {
    config.allow_msg_counter || config.allow_msg_schedules || !config.subject_delete_marker_ttl.is_zero()
}

impl StreamTask {
    /// Lets `change` change the stream; what must be written joins the turn's changes.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut Stream, &World, &mut Changes) -> R) -> R {
        let StreamTask { contents, consumers, followers, outstanding, turn, context, shared, .. } = self;
        let Contents { stream, log, tail, .. } = contents;
        let read = |seq| {
            for batch in outstanding.iter().rev() {
                if let Ok(at) = batch.puts.binary_search_by_key(&seq, |put| put.seq) {
                    return Some(batch.puts[at].clone());
                }
            }
            if let Some(stored) = tail.get(seq) {
                return Some(stored.clone());
            }
            log.read(seq).unwrap_or_else(|error| {
                error!(stream = %shared.name, seq, %error, "a message cannot be read");
                None
            })
        };
        let open = |stream: &Stream| OpenBatches {
            atomic: stream.open_batches(),
            fast: stream.open_fast_batches(),
            staged_bytes: stream.staged_bytes(),
        };
        let before = open(stream);
        let world = World {
            batches: context.options.budget.batch_terms(before, context.broker.memory.staged_bytes_max()),
            interest: &|subject| consumers.any_matches(subject) || followers.any_matches(subject),
            read: &read,
            payload_bytes_max: context.broker.payload_bytes_max(),
        };
        let result = change(stream, &world, &mut turn.changes);
        let now = open(stream);
        if now != before {
            shared.gauge_batches(now);
        }
        result
    }
}
