//! The dullest store that could be right, and what is compared with it.

use std::collections::BTreeMap;

use bytes::Bytes;
use natterjack::storage::{AckBlock, ConsumerStateRow, Op, Recovered, SourcePosition, Store, StreamFloor};
use natterjack::types::{StoredMessage, StreamId, Timestamp};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub streams: BTreeMap<u32, StreamModel>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamModel {
    pub config_json: Bytes,
    pub created: Timestamp,
    pub messages: BTreeMap<u64, StoredMessage>,
    /// What the summaries say that hold: their ends and bytes, by their beginning.
    pub summaries: BTreeMap<u64, (u64, Vec<u8>)>,
    pub last_seq: u64,
    pub last_time: Timestamp,
    /// Where an emptied stream begins.
    pub first_seq_if_empty: u64,
    pub sources: Vec<SourcePosition>,
    pub consumers: BTreeMap<String, ConsumerModel>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerModel {
    pub config_json: Bytes,
    pub state: Option<ConsumerStateRow>,
    pub acked: BTreeMap<u64, Box<[u8; AckBlock::BYTES]>>,
    pub redeliveries: BTreeMap<u64, (u64, Option<Timestamp>)>,
}

impl StreamModel {
    fn forget_summaries(&mut self, from: u64, to: u64) {
        self.summaries.retain(|&first, (last, _)| first > to || *last < from);
    }
}

/// What runs write as the summary of the messages `live`: it can be checked against them.
pub fn summary(live: &[u64]) -> Vec<u8> {
    let filler = std::iter::repeat_n(0, live.len() * 200);
    live.iter().flat_map(|seq| seq.to_le_bytes()).chain(filler).collect()
}

impl Model {
    pub fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::PutStream { stream, config_json, created } => {
                let model = self.streams.entry(stream.0).or_default();
                (model.config_json, model.created) = (config_json, created);
            }
            Op::DropStream { stream } => {
                self.streams.remove(&stream.0);
            }
            Op::PutSummary { stream, from, to, bytes } => {
                let model = self.stream(stream);
                model.forget_summaries(from, to);
                model.summaries.insert(from, (to, bytes.to_vec()));
            }
            Op::PutMessage { stream, message } => {
                let model = self.stream(stream);
                model.forget_summaries(message.seq, message.seq);
                (model.last_seq, model.last_time) = (message.seq, message.time);
                model.messages.insert(message.seq, message);
            }
            Op::RemoveMessage { stream, seq, .. } => {
                let model = self.stream(stream);
                if model.messages.remove(&seq).is_some() {
                    model.forget_summaries(seq, seq);
                    if seq == model.last_seq {
                        model.first_seq_if_empty = seq + 1;
                    }
                }
            }
            Op::RemoveMessages { stream, from, to } => {
                let model = self.stream(stream);
                if from <= to.min(model.last_seq) {
                    model.forget_summaries(from, to.min(model.last_seq));
                }
                model.messages.retain(|seq, _| !(from..=to).contains(seq));
                if (from..=to).contains(&model.last_seq) {
                    model.first_seq_if_empty = model.last_seq + 1;
                }
            }
            Op::PutStreamFloor { stream, floor: StreamFloor { first_seq, last_seq, last_time } } => {
                let model = self.stream(stream);
                model.first_seq_if_empty = first_seq;
                if last_seq >= model.last_seq {
                    (model.last_seq, model.last_time) = (last_seq, last_time);
                }
            }
            Op::PutSources { stream, positions } => self.stream(stream).sources = positions,
            Op::PutConsumer { stream, consumer, config_json, .. } => {
                self.stream(stream).consumers.entry(consumer.to_string()).or_default().config_json = config_json;
            }
            Op::DropConsumer { stream, consumer } => {
                self.stream(stream).consumers.remove(&*consumer);
            }
            Op::PutConsumerState { stream, consumer, state } => self.consumer(stream, &consumer).state = Some(state),
            Op::PutAckBlock { stream, consumer, block } => {
                self.consumer(stream, &consumer).acked.insert(block.block, block.bits);
            }
            Op::RemoveAckBlock { stream, consumer, block } => {
                self.consumer(stream, &consumer).acked.remove(&block);
            }
            Op::PutRedelivery { stream, consumer, redelivery } => {
                self.consumer(stream, &consumer)
                    .redeliveries
                    .insert(redelivery.seq, (redelivery.count, redelivery.due));
            }
            Op::RemoveRedelivery { stream, consumer, seq } => {
                self.consumer(stream, &consumer).redeliveries.remove(&seq);
            }
        }
    }

    pub fn after<'a>(&self, ops: impl IntoIterator<Item = &'a Op>) -> Model {
        let mut next = self.clone();
        ops.into_iter().for_each(|op| next.apply(op));
        next
    }

    fn stream(&mut self, stream: StreamId) -> &mut StreamModel {
        self.streams.get_mut(&stream.0).expect("runs only touch streams that exist")
    }

    fn consumer(&mut self, stream: StreamId, name: &str) -> &mut ConsumerModel {
        self.stream(stream).consumers.get_mut(name).expect("runs only touch consumers that exist")
    }

    /// Reads all that a store holds.
    pub fn observe(store: &Store, recovered: &Recovered) -> Result<Model, String> {
        if !recovered.orphans.is_empty() {
            return Err(format!("messages of unknown streams {:?}", recovered.orphans));
        }
        let mut model = Model::default();
        for stream in &recovered.streams {
            let mut seqs = Vec::new();
            let report = store.scan(stream.id, |head| seqs.push(head.seq)).map_err(|error| error.to_string())?;
            if !report.damaged.is_empty() {
                return Err(format!("damaged rows in stream {}: {:?}", stream.id, report.damaged));
            }
            let all = store.read_range(stream.id, 0, usize::MAX, usize::MAX).map_err(|error| error.to_string())?;
            if !all.iter().map(|message| message.seq).eq(seqs.iter().copied()) {
                return Err(format!("a scan and a read of stream {} differ", stream.id));
            }
            let floor = stream.floor.unwrap_or_default();
            let last = all.last().map(|message| (message.seq, message.time));
            let (last_seq, last_time) =
                last.filter(|last| last.0 >= floor.last_seq).unwrap_or((floor.last_seq, floor.last_time));
            let mut summaries = BTreeMap::new();
            for &range in &stream.summaries {
                let bytes = store.summary(stream.id, range).map_err(|error| error.to_string())?;
                let Some(bytes) = bytes else {
                    return Err(format!("the summary {range:?} of stream {} is not whole", stream.id));
                };
                summaries.insert(range.from, (range.to, bytes));
            }
            let consumers = stream.consumers.iter().map(|consumer| {
                let model = ConsumerModel {
                    config_json: consumer.config_json.clone(),
                    state: consumer.state,
                    acked: consumer.acked.iter().map(|block| (block.block, block.bits.clone())).collect(),
                    redeliveries: consumer.redeliveries.iter().map(|row| (row.seq, (row.count, row.due))).collect(),
                };
                (consumer.name.to_string(), model)
            });
            let stream_model = StreamModel {
                config_json: stream.config_json.clone(),
                created: stream.created,
                summaries,
                messages: all.into_iter().map(|message| (message.seq, message)).collect(),
                last_seq,
                last_time,
                first_seq_if_empty: floor.first_seq,
                sources: stream.sources.clone(),
                consumers: consumers.collect(),
            };
            model.streams.insert(stream.id.0, stream_model);
        }
        Ok(model)
    }

    /// What must hold in any state a client could have seen, whatever the model says.
    pub fn check_sound(&self) -> Result<(), String> {
        for (id, stream) in &self.streams {
            if let Some((&highest, _)) = stream.messages.last_key_value()
                && highest > stream.last_seq
            {
                return Err(format!("stream {id} holds message {highest} above its last sequence {}", stream.last_seq));
            }
            if stream.config_json.starts_with(b"log") && !stream.messages.keys().copied().eq(1..=stream.last_seq) {
                return Err(format!("stream {id} has gaps, though nothing was ever removed from it"));
            }
            for (&from, (to, bytes)) in &stream.summaries {
                let live: Vec<u64> = stream.messages.range(from..=*to).map(|(seq, _)| *seq).collect();
                if *bytes != summary(&live) {
                    return Err(format!(
                        "the summary {from}..={to} of stream {id} does not tell what lives there: {live:?}"
                    ));
                }
            }
            for (name, consumer) in &stream.consumers {
                let state = consumer.state.unwrap_or_default();
                if state.delivered_stream_seq > stream.last_seq || state.ack_floor_stream_seq > stream.last_seq {
                    return Err(format!("consumer {name} is ahead of stream {id}: {state:?} > {}", stream.last_seq));
                }
            }
        }
        Ok(())
    }

    /// A few words for a failure's report.
    pub fn summary(&self) -> String {
        let streams = self.streams.iter().map(|(id, stream)| {
            let seqs: Vec<u64> = stream.messages.keys().copied().collect();
            let floors: Vec<_> = stream
                .consumers
                .iter()
                .map(|(name, consumer)| {
                    let state = consumer.state.unwrap_or_default();
                    (name, state.ack_floor_stream_seq, consumer.acked.len(), consumer.redeliveries.len())
                })
                .collect();
            let ends = (seqs.first(), seqs.last());
            format!(
                "stream {id} {:?}: {} messages {ends:?}, last {}, empty at {}, consumers {floors:?}",
                stream.config_json,
                seqs.len(),
                stream.last_seq,
                stream.first_seq_if_empty
            )
        });
        streams.collect::<Vec<_>>().join("; ")
    }
}
