//! What each operation does to the tables, inside the committer's transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use hashbrown::HashMap;
use redb::{CursorError, ReadableTable, Table, WriteTransaction};
use roaring::RoaringTreemap;

use super::batch::Op;
use super::key::{self, ChunkKey, MessageKey, Meta};
use super::message_row;
use super::meta_row::{
    self, AckBlockV1, ConfigV1, ConsumerStateV1, FloorV1, NextStreamV1, RedeliveryV1, RedeliveryV2, RemovalV1,
    SourcesV1, SummaryV1, TombstonesV1,
};
use super::recover;
use super::rows::{SourcePosition, StreamFloor};
use super::shared::{Fault, Hidden};
use super::store::Options;
use super::tombstones::{self, Change, Tombstones, View};
use crate::types::{StoredMessage, StreamId, Timestamp};

/// From this many messages on, a run goes through a cursor.
const RUN_MIN: usize = 4;

/// Rows a removal may take in the transaction that carries other batches; more would make those wait.
const INLINE_REMOVALS_MAX: usize = 1024;

/// What the committer knows of the committed rows. Read from them again after a failed commit.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    tails: HashMap<StreamId, Tail>,
    /// The summaries that hold, by their first sequence, with their last.
    summaries: HashMap<StreamId, BTreeMap<u64, u64>>,
    pub(super) removals: Vec<Hidden>,
    pub(super) next_stream: u32,
    /// The number of each stream's next row of tombstones.
    next_tombstones: BTreeMap<StreamId, u64>,
    sweep: Option<Sweep>,
    /// What the open transaction changes about the tombstones, true once it is durable.
    pub(super) changes: Vec<Change>,
}

/// Rows of removed messages on their way out, in order.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    stream: StreamId,
    /// The lowest sequence not looked at yet.
    from: u64,
    /// The rows of tombstones below this number are done with when all sequences have been looked at.
    rows_end: u64,
}

impl Knowledge {
    pub(super) fn new(inner: recover::Inner) -> Knowledge {
        let mut summaries: HashMap<StreamId, BTreeMap<u64, u64>> = HashMap::new();
        for (stream, range) in inner.summaries {
            summaries.entry(stream).or_default().insert(range.from, range.to);
        }
        Knowledge {
            summaries,
            removals: inner.hidden,
            next_stream: inner.next_stream,
            next_tombstones: inner.next_tombstones,
            ..Knowledge::default()
        }
    }

    /// Whether rows are on their way out.
    pub(super) fn has_work(&self) -> bool {
        !self.removals.is_empty() || self.sweep.is_some()
    }
}

/// The highest sequence a stream ever held, known only for streams that had a removal.
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    last_seq: u64,
    last_time: Timestamp,
}

/// An open write transaction; tables are opened when first touched, since each costs a path of pages.
pub(super) struct Apply<'txn> {
    txn: &'txn WriteTransaction,
    knowledge: &'txn mut Knowledge,
    messages: Option<Table<'txn, &'static [u8; 12], &'static [u8]>>,
    chunks: Option<Table<'txn, &'static [u8; 16], &'static [u8]>>,
    summaries: Option<Table<'txn, &'static [u8; 16], &'static [u8]>>,
    meta: Option<Table<'txn, &'static [u8], &'static [u8]>>,
    /// A row on its way into a run.
    row: Vec<u8>,
    /// What is removed with its row left behind, before this transaction.
    tombstones: View<'txn>,
    /// What this transaction removes that way, by stream.
    noted: BTreeMap<StreamId, Noted>,
    /// Streams whose tombstones from before no longer hold.
    forgotten: BTreeSet<StreamId>,
    options: Options,
}

#[derive(Default)]
struct Noted {
    seqs: RoaringTreemap,
    /// How many messages the stream has afterwards.
    left: u64,
}

impl<'txn> Apply<'txn> {
    pub(super) fn new(
        txn: &'txn WriteTransaction,
        knowledge: &'txn mut Knowledge,
        tombstones: &'txn Tombstones,
        options: Options,
    ) -> Apply<'txn> {
        knowledge.changes.clear();
        Apply {
            txn,
            knowledge,
            messages: None,
            chunks: None,
            summaries: None,
            meta: None,
            row: Vec::new(),
            tombstones: tombstones.view(),
            noted: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            options,
        }
    }

    /// Does all operations in order. Runs of messages of one stream go through one cursor: that costs a third.
    pub(super) fn ops<'a>(&mut self, ops: impl Iterator<Item = &'a Op>) -> Result<(), Fault> {
        let ops: Vec<&Op> = ops.collect();
        self.noted = scattered(&ops, self.options.scattered_min).map(|stream| (stream, Noted::default())).collect();
        let mut rest = ops.as_slice();
        while let Some(op) = rest.first() {
            let run = run_len(rest);
            match op {
                Op::PutMessage { stream, .. } if run >= RUN_MIN => self.put_run(*stream, &rest[..run])?,
                _ => rest[..run].iter().try_for_each(|op| self.op(op))?,
            }
            rest = &rest[run..];
        }
        // Sweeping keeps ahead of what is noted.
        let noted: u64 = self.noted.values().map(|noted| noted.seqs.len()).sum();
        if noted > 0 {
            self.sweep(noted as usize * 2)?;
        }
        self.note_all()
    }

    fn op(&mut self, op: &Op) -> Result<(), Fault> {
        match op {
            Op::PutMessage { stream, message } => self.put_message(*stream, message),
            Op::RemoveMessage { stream, seq, left } => self.remove_message(*stream, *seq, *left),
            Op::RemoveMessages { stream, from, to } => self.remove_messages(*stream, *from, *to),
            Op::PutSummary { stream, from, to, bytes } => self.put_summary(*stream, *from, *to, bytes),
            Op::PutStream { stream, config_json, created } => {
                if stream.0 >= self.knowledge.next_stream {
                    let next = stream.0.saturating_add(1);
                    self.put(&Meta::NextStream, &NextStreamV1 { id: next })?;
                    self.knowledge.next_stream = next;
                }
                let row = ConfigV1 { config_json: config_json.to_vec(), created_ns: created.nanos() };
                self.put(&Meta::Stream(*stream), &row)
            }
            Op::PutStreamFloor { stream, floor } => self.put_floor(*stream, *floor),
            Op::PutSources { stream, positions } => {
                let row = |position: &SourcePosition| (position.name.clone(), position.seq, position.identity.clone());
                self.put(&Meta::Sources(*stream), &SourcesV1 { positions: positions.iter().map(row).collect() })
            }
            Op::DropStream { stream } => self.drop_stream(*stream),
            Op::PutConsumer { stream, consumer, config_json, created } => {
                let row = ConfigV1 { config_json: config_json.to_vec(), created_ns: created.nanos() };
                self.put(&Meta::Consumer(*stream, consumer), &row)
            }
            Op::PutConsumerState { stream, consumer, state } => {
                let row = ConsumerStateV1 {
                    ack_floor_consumer_seq: state.ack_floor_consumer_seq,
                    ack_floor_stream_seq: state.ack_floor_stream_seq,
                    delivered_consumer_seq: state.delivered_consumer_seq,
                    delivered_stream_seq: state.delivered_stream_seq,
                };
                self.put(&Meta::ConsumerState(*stream, consumer), &row)
            }
            Op::PutAckBlock { stream, consumer, block } => {
                self.put(&Meta::AckBlock(*stream, consumer, block.block), &AckBlockV1 { bits: *block.bits })
            }
            Op::RemoveAckBlock { stream, consumer, block } => self.remove(&Meta::AckBlock(*stream, consumer, *block)),
            Op::PutRedelivery { stream, consumer, redelivery } => {
                let (key, count) = (Meta::Redelivery(*stream, consumer, redelivery.seq), redelivery.count);
                match redelivery.due {
                    None => self.put(&key, &RedeliveryV1 { count }),
                    Some(due) => self.put(&key, &RedeliveryV2 { count, due_ns: due.0 }),
                }
            }
            Op::RemoveRedelivery { stream, consumer, seq } => self.remove(&Meta::Redelivery(*stream, consumer, *seq)),
            Op::DropConsumer { stream, consumer } => {
                self.remove_meta_rows(&key::consumer_prefix(*stream, consumer), usize::MAX).map(|_| ())
            }
        }
    }

    /// Goes on with the oldest removal that is durable but not done, for up to `rows_max` rows.
    pub(super) fn slice(&mut self, rows_max: usize) -> Result<(), Fault> {
        let Some(&removal) = self.knowledge.removals.first() else { return self.sweep(rows_max) };
        if self.remove_rows(&removal, rows_max)? {
            self.remove(&Meta::Removal(removal.stream, removal.from))?;
            self.knowledge.removals.remove(0);
        }
        Ok(())
    }

    /// Adds messages of one stream with ascending sequences.
    fn put_run(&mut self, stream: StreamId, run: &[&Op]) -> Result<(), Fault> {
        let messages =
            || run.iter().filter_map(|op| if let Op::PutMessage { message, .. } = op { Some(message) } else { None });
        let (Some(first), Some(last)) = (messages().next(), messages().next_back()) else { return Ok(()) };
        self.invalidate(stream, first.seq, last.seq)?;
        if !self.is_new(stream, first.seq) {
            messages().try_for_each(|stored| self.make_room(stream, stored.seq))?;
        }
        let mut row = std::mem::take(&mut self.row);
        let mut added = 0;
        let key = key::message(stream, first.seq);
        let mut cursor = self.messages()?.upper_bound_mut(Bound::Excluded(&key))?;
        for stored in messages() {
            row.resize(message_row::encoded_len(&stored.message), 0);
            message_row::encode_into(&mut row, stream, stored);
            match cursor.insert_before(&key::message(stream, stored.seq), row.as_slice()) {
                Ok(()) => added += 1,
                // A row is there already; from here on they are replaced one by one.
                Err(CursorError::UnorderedKey) => break,
                Err(error) => return Err(redb::Error::from(error).into()),
            }
        }
        cursor.close()?;
        self.row = row;
        for stored in messages().take(added) {
            self.put_chunks(stream, stored)?;
        }
        if added > 0
            && let Some(stored) = messages().nth(added - 1)
        {
            self.raise_tail(stream, stored);
        }
        messages().skip(added).try_for_each(|stored| self.put_message(stream, stored))
    }

    fn put_message(&mut self, stream: StreamId, stored: &StoredMessage) -> Result<(), Fault> {
        self.invalidate(stream, stored.seq, stored.seq)?;
        self.make_room(stream, stored.seq)?;
        let key = key::message(stream, stored.seq);
        let len = message_row::encoded_len(&stored.message);
        message_row::encode_into(self.messages()?.insert_reserve(&key, len)?.as_mut(), stream, stored);
        self.put_chunks(stream, stored)?;
        self.raise_tail(stream, stored);
        Ok(())
    }

    /// The payload of a message whose row does not hold it.
    fn put_chunks(&mut self, stream: StreamId, stored: &StoredMessage) -> Result<(), Fault> {
        if message_row::is_chunked(&stored.message) {
            let chunks = self.chunks()?;
            for (index, piece) in message_row::chunks(stored.message.payload()) {
                let key = key::chunk(stream, stored.seq, index);
                let mut row = chunks.insert_reserve(&key, message_row::encoded_chunk_len(piece))?;
                message_row::encode_chunk_into(row.as_mut(), stream, stored.seq, index, piece);
            }
        }
        Ok(())
    }

    fn raise_tail(&mut self, stream: StreamId, stored: &StoredMessage) {
        if let Some(tail) = self.knowledge.tails.get_mut(&stream)
            && stored.seq > tail.last_seq
        {
            *tail = Tail { last_seq: stored.seq, last_time: stored.time };
        }
    }

    fn remove_message(&mut self, stream: StreamId, seq: u64, left: u64) -> Result<(), Fault> {
        let tail = self.tail(stream)?;
        if self.is_removed(stream, seq) {
            return Ok(());
        }
        let removed = match self.noted.get_mut(&stream) {
            Some(noted) => {
                noted.left = left;
                noted.seqs.insert(seq)
            }
            None => self.remove_row(stream, seq)?,
        };
        if !removed {
            return Ok(());
        }
        self.invalidate(stream, seq, seq)?;
        if seq == tail.last_seq { self.put_tail_floor(stream, tail) } else { Ok(()) }
    }

    /// Removes a message's row and its payload's, and says whether there was one.
    fn remove_row(&mut self, stream: StreamId, seq: u64) -> Result<bool, Fault> {
        let Some(row) = self.messages()?.remove(&key::message(stream, seq))? else { return Ok(false) };
        let chunks = message_row::chunks_hint(row.value());
        drop(row);
        if chunks > 0 {
            self.remove_chunks(stream, seq)?;
        }
        Ok(true)
    }

    /// Whether the message is removed while its row may still be there.
    fn is_removed(&self, stream: StreamId, seq: u64) -> bool {
        self.tombstones.get(&stream).is_some_and(|seqs| seqs.contains(seq)) && !self.forgotten.contains(&stream)
    }

    /// Whether the stream is known to have had no message from `seq` on.
    fn is_new(&self, stream: StreamId, seq: u64) -> bool {
        self.knowledge.tails.get(&stream).is_some_and(|tail| seq > tail.last_seq)
    }

    /// Nothing removed stands in the way of a message; sequences ascend, so nothing ever does but by a caller's mistake.
    fn make_room(&mut self, stream: StreamId, seq: u64) -> Result<(), Fault> {
        if self.is_new(stream, seq) {
            return Ok(());
        }
        let noted = self.noted.get(&stream).is_some_and(|noted| noted.seqs.contains(seq));
        if noted || self.is_removed(stream, seq) { self.sweep_all(stream) } else { Ok(()) }
    }

    /// Notes the sequences whose rows stay for now, and begins a sweep where it pays.
    fn note_all(&mut self) -> Result<(), Fault> {
        for (stream, Noted { seqs, left }) in std::mem::take(&mut self.noted) {
            if seqs.is_empty() {
                continue;
            }
            let mut number = self.knowledge.next_tombstones.get(&stream).copied().unwrap_or_default();
            let mut ahead = seqs.iter().peekable();
            while ahead.peek().is_some() {
                let mut before = 0;
                let some = ahead.by_ref().take(tombstones::ROW_SEQS);
                let deltas = some.map(|seq| seq - std::mem::replace(&mut before, seq)).collect();
                self.put(&Meta::Tombstones(stream, number), &TombstonesV1 { deltas })?;
                number += 1;
            }
            self.knowledge.next_tombstones.insert(stream, number);
            let all = self.tombstones.get(&stream).map_or(0, RoaringTreemap::len) + seqs.len();
            if self.knowledge.sweep.is_none() && all >= self.options.sweep_min.max(left / 2) {
                self.knowledge.sweep = Some(Sweep { stream, from: 0, rows_end: number });
            }
            self.knowledge.changes.push(Change::Noted(stream, seqs));
        }
        Ok(())
    }

    /// Goes on with the sweep for up to `rows_max` rows, in order of sequence, so that each leaf is written once. Comes before
    /// this transaction's own tombstones, which it does not know.
    fn sweep(&mut self, rows_max: usize) -> Result<(), Fault> {
        let Some(Sweep { stream, from, rows_end }) = self.knowledge.sweep else { return Ok(()) };
        let mut seqs = Vec::new();
        if let Some(all) = self.tombstones.get(&stream) {
            let mut ahead = all.iter();
            ahead.advance_to(from);
            seqs.extend(ahead.take(rows_max));
        }
        for &seq in &seqs {
            self.remove_row(stream, seq)?;
        }
        if let Some(&to) = seqs.last() {
            self.knowledge.changes.push(Change::Gone(stream, from, to));
            self.knowledge.sweep = Some(Sweep { stream, from: to.saturating_add(1), rows_end });
        }
        if seqs.len() < rows_max {
            self.knowledge.sweep = None;
            self.forget_tombstones(stream, rows_end)?;
        }
        Ok(())
    }

    /// Removes the rows of tombstones whose numbers lie below `end`.
    fn forget_tombstones(&mut self, stream: StreamId, end: u64) -> Result<(), Fault> {
        let (first, end) = (Meta::Tombstones(stream, 0).encode(), Meta::Tombstones(stream, end).encode());
        self.meta()?.retain_in::<&[u8], _>(first.as_slice()..end.as_slice(), |_, _| false)?;
        Ok(())
    }

    /// Sweeps a stream to its end, so that none of its tombstones stands where a message is put.
    fn sweep_all(&mut self, stream: StreamId) -> Result<(), Fault> {
        let mut seqs: Vec<u64> = self.tombstones.get(&stream).into_iter().flatten().collect();
        if let Some(noted) = self.noted.get_mut(&stream) {
            seqs.extend(std::mem::take(&mut noted.seqs));
        }
        for seq in seqs {
            self.remove_row(stream, seq)?;
        }
        self.drop_tombstones(stream)
    }

    /// Forgets all tombstones of a stream, whose rows are gone or on their way out otherwise.
    fn drop_tombstones(&mut self, stream: StreamId) -> Result<(), Fault> {
        if self.knowledge.next_tombstones.remove(&stream).is_some() {
            self.forget_tombstones(stream, u64::MAX)?;
        }
        self.knowledge.sweep.take_if(|sweep| sweep.stream == stream);
        self.knowledge.changes.push(Change::Gone(stream, 0, u64::MAX));
        self.forgotten.insert(stream);
        Ok(())
    }

    fn remove_messages(&mut self, stream: StreamId, from: u64, to: u64) -> Result<(), Fault> {
        let tail = self.tail(stream)?;
        let to = to.min(tail.last_seq);
        if from > to {
            return Ok(());
        }
        if to == tail.last_seq {
            self.put_tail_floor(stream, tail)?;
        }
        self.invalidate(stream, from, to)?;
        if self.tombstones.contains_key(&stream) {
            self.knowledge.changes.push(Change::Gone(stream, from, to));
        }
        self.begin_removal(Hidden { stream, from, to, drop_stream: false })
    }

    fn drop_stream(&mut self, stream: StreamId) -> Result<(), Fault> {
        self.remove(&Meta::Stream(stream))?;
        self.remove(&Meta::Floor(stream))?;
        self.remove(&Meta::Sources(stream))?;
        self.knowledge.tails.remove(&stream);
        self.noted.remove(&stream);
        self.drop_tombstones(stream)?;
        if self.knowledge.summaries.remove(&stream).is_some() {
            self.remove_meta_rows(&key::summaries_prefix(stream), usize::MAX)?;
        }
        self.begin_removal(Hidden { stream, from: 0, to: u64::MAX, drop_stream: true })
    }

    fn put_summary(&mut self, stream: StreamId, from: u64, to: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.invalidate(stream, from, to)?;
        let table = self.summaries()?;
        for (index, piece) in message_row::chunks(bytes) {
            let mut row =
                table.insert_reserve(&key::chunk(stream, from, index), message_row::encoded_chunk_len(piece))?;
            message_row::encode_chunk_into(row.as_mut(), stream, from, index, piece);
        }
        let row = SummaryV1 { to, bytes: bytes.len() as u64, crc: crc32c::crc32c(bytes) };
        self.put(&Meta::Summary(stream, from), &row)?;
        self.knowledge.summaries.entry(stream).or_default().insert(from, to);
        Ok(())
    }

    /// Removes the summaries that speak of any of `from..=to`, before it changes.
    fn invalidate(&mut self, stream: StreamId, from: u64, to: u64) -> Result<(), Fault> {
        while let Some(summaries) = self.knowledge.summaries.get_mut(&stream)
            && let Some((&first, &last)) = summaries.range(..=to).next_back()
            && last >= from
        {
            summaries.remove(&first);
            self.remove(&Meta::Summary(stream, first))?;
            let (first, last) = (key::chunk(stream, first, 0), key::chunk(stream, first, u32::MAX));
            self.summaries()?.retain_in::<&ChunkKey, _>(&first..=&last, |_, _| false)?;
        }
        Ok(())
    }

    /// Removes what can go at once and notes durably what is left.
    fn begin_removal(&mut self, removal: Hidden) -> Result<(), Fault> {
        if self.remove_rows(&removal, INLINE_REMOVALS_MAX)? {
            return Ok(());
        }
        let Hidden { stream, from, mut to, mut drop_stream } = removal;
        let pending = &mut self.knowledge.removals;
        match pending.iter_mut().find(|pending| pending.stream == stream && pending.from == from) {
            Some(pending) => {
                pending.to = pending.to.max(to);
                pending.drop_stream |= drop_stream;
                (to, drop_stream) = (pending.to, pending.drop_stream);
            }
            None => pending.push(removal),
        }
        self.put(&Meta::Removal(stream, from), &RemovalV1 { to, drop_stream })
    }

    /// Removes up to `rows_max` rows of a removal and says whether none is left.
    fn remove_rows(&mut self, removal: &Hidden, rows_max: usize) -> Result<bool, Fault> {
        let Hidden { stream, from, to, drop_stream } = *removal;
        let mut budget = rows_max;
        if drop_stream {
            budget -= self.remove_meta_rows(&key::consumers_prefix(stream), budget)?;
        }
        let mut chunked = Vec::new();
        let mut rows = self
            .messages()?
            .extract_from_if::<&MessageKey, _>(&key::message(stream, from)..=&key::message(stream, to), |_, _| true)?;
        let done = loop {
            if budget == 0 {
                break false;
            }
            let Some(row) = rows.next() else { break true };
            let (key, value) = row?;
            let chunks = message_row::chunks_hint(value.value());
            if chunks > 0 {
                chunked.push(key::message_seq(key.value()));
            }
            budget = budget.saturating_sub(1 + chunks);
        };
        rows.close()?;
        for seq in chunked {
            self.remove_chunks(stream, seq)?;
        }
        if drop_stream && done {
            return self.remove_summary_pieces(stream, budget);
        }
        Ok(done)
    }

    /// Removes up to `rows_max` pieces of a dropped stream's summaries and says whether none is left.
    fn remove_summary_pieces(&mut self, stream: StreamId, rows_max: usize) -> Result<bool, Fault> {
        let (first, last) = (key::chunk(stream, 0, 0), key::chunk(stream, u64::MAX, u32::MAX));
        let mut pieces = self.summaries()?.extract_from_if::<&ChunkKey, _>(&first..=&last, |_, _| true)?;
        for _ in 0..rows_max {
            if pieces.next().transpose()?.is_none() {
                pieces.close()?;
                return Ok(true);
            }
        }
        pieces.close()?;
        Ok(false)
    }

    fn remove_chunks(&mut self, stream: StreamId, seq: u64) -> Result<(), Fault> {
        let (first, last) = (key::chunk(stream, seq, 0), key::chunk(stream, seq, u32::MAX));
        self.chunks()?.retain_in::<&ChunkKey, _>(&first..=&last, |_, _| false)?;
        Ok(())
    }

    /// Removes up to `rows_max` meta rows whose keys begin with `prefix`, and says how many.
    fn remove_meta_rows(&mut self, prefix: &[u8], rows_max: usize) -> Result<usize, Fault> {
        let mut after = prefix.to_vec();
        while let Some(last) = after.pop() {
            if last < u8::MAX {
                after.push(last + 1);
                break;
            }
        }
        let mut removed = 0;
        let mut rows = self.meta()?.extract_from_if::<&[u8], _>(prefix..after.as_slice(), |_, _| true)?;
        while removed < rows_max
            && let Some(row) = rows.next()
        {
            row?;
            removed += 1;
        }
        rows.close()?;
        Ok(removed)
    }

    fn tail(&mut self, stream: StreamId) -> Result<Tail, Fault> {
        if let Some(tail) = self.knowledge.tails.get(&stream) {
            return Ok(*tail);
        }
        let floor: Option<FloorV1> = recover::get(self.meta()?, &Meta::Floor(stream))?;
        let mut tail = floor.map_or(Tail::default(), |floor| Tail {
            last_seq: floor.last_seq,
            last_time: Timestamp(floor.last_time_ns),
        });
        let (first, last) = (key::message(stream, 0), key::message(stream, u64::MAX));
        if let Some(row) = self.messages()?.range::<&MessageKey>(&first..=&last)?.next_back() {
            let (key, value) = row?;
            let seq = key::message_seq(key.value());
            if seq > tail.last_seq {
                // Only the time of a damaged row is lost, and removing it stays possible.
                let time = message_row::decode(value.value(), stream, seq).map_or(tail.last_time, |row| row.time);
                tail = Tail { last_seq: seq, last_time: time };
            }
        }
        self.knowledge.tails.insert(stream, tail);
        Ok(tail)
    }

    /// The stream's last message goes: its sequence must not be given out again.
    fn put_tail_floor(&mut self, stream: StreamId, tail: Tail) -> Result<(), Fault> {
        let Tail { last_seq, last_time } = tail;
        let row = FloorV1 { first_seq: last_seq.saturating_add(1), last_seq, last_time_ns: last_time.nanos() };
        self.put(&Meta::Floor(stream), &row)
    }

    fn put_floor(&mut self, stream: StreamId, floor: StreamFloor) -> Result<(), Fault> {
        let mut tail = self.tail(stream)?;
        if floor.last_seq >= tail.last_seq {
            tail = Tail { last_seq: floor.last_seq, last_time: floor.last_time };
        }
        self.knowledge.tails.insert(stream, tail);
        let Tail { last_seq, last_time } = tail;
        self.put(
            &Meta::Floor(stream),
            &FloorV1 { first_seq: floor.first_seq, last_seq, last_time_ns: last_time.nanos() },
        )
    }

    fn put(&mut self, key: &Meta<'_>, row: &impl bincode::Encode) -> Result<(), Fault> {
        let key = key.encode();
        let value = meta_row::encode(&key, row);
        self.meta()?.insert(key.as_slice(), value.as_slice())?;
        Ok(())
    }

    fn remove(&mut self, key: &Meta<'_>) -> Result<(), Fault> {
        self.meta()?.remove(key.encode().as_slice())?;
        Ok(())
    }

    fn messages(&mut self) -> Result<&mut Table<'txn, &'static [u8; 12], &'static [u8]>, Fault> {
        opened(self.txn, &mut self.messages, key::MESSAGES)
    }

    fn chunks(&mut self) -> Result<&mut Table<'txn, &'static [u8; 16], &'static [u8]>, Fault> {
        opened(self.txn, &mut self.chunks, key::CHUNKS)
    }

    fn summaries(&mut self) -> Result<&mut Table<'txn, &'static [u8; 16], &'static [u8]>, Fault> {
        opened(self.txn, &mut self.summaries, key::SUMMARIES)
    }

    fn meta(&mut self) -> Result<&mut Table<'txn, &'static [u8], &'static [u8]>, Fault> {
        opened(self.txn, &mut self.meta, key::META)
    }
}

/// The streams that lose messages in many places.
fn scattered(ops: &[&Op], places_min: usize) -> impl Iterator<Item = StreamId> {
    let mut removed: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
    for op in ops {
        if let Op::RemoveMessage { stream, seq, .. } = op {
            removed.entry(*stream).or_default().push(*seq);
        }
    }
    removed
        .into_iter()
        .filter_map(move |(stream, mut seqs)| tombstones::are_scattered(&mut seqs, places_min).then_some(stream))
}

/// How many operations from the first on add messages of one stream with ascending sequences; at least 1.
fn run_len(ops: &[&Op]) -> usize {
    let ascends = |pair: &&[&Op]| match *pair {
        [Op::PutMessage { stream, message }, Op::PutMessage { stream: other, message: next }] => {
            stream == other && message.seq < next.seq
        }
        _ => false,
    };
    1 + ops.windows(2).take_while(ascends).count()
}

fn opened<'a, 'txn, K: redb::Key + 'static, V: redb::Value + 'static>(
    txn: &'txn WriteTransaction,
    slot: &'a mut Option<Table<'txn, K, V>>,
    definition: redb::TableDefinition<'static, K, V>,
) -> Result<&'a mut Table<'txn, K, V>, Fault> {
    match slot {
        Some(table) => Ok(table),
        None => Ok(slot.insert(txn.open_table(definition)?)),
    }
}
