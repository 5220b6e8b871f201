//! The store as its callers see it, on real files.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::types::{Message, StoredMessage, StreamId, Timestamp};

const STREAM: StreamId = StreamId(1);

fn open(dir: &TempDir) -> (Store, Recovered) {
    Store::open(dir.path(), Options::default()).unwrap()
}

/// Submits and waits.
fn commit(store: &Store, ops: impl IntoIterator<Item = Op>) -> Result<(), CommitError> {
    let (sender, receiver) = mpsc::channel();
    store.submit(ops.into_iter().collect(), move |result| sender.send(result).unwrap());
    receiver.recv().unwrap()
}

fn message(seq: u64, payload: &[u8]) -> StoredMessage {
    let message = Message::new(format!("subject.{seq}").as_bytes(), b"NATS/1.0\r\nA: b\r\n\r\n", payload);
    StoredMessage { seq, time: Timestamp(1_000 + seq as i64), message }
}

fn put(seq: u64, payload: &[u8]) -> Op {
    Op::PutMessage { stream: STREAM, message: message(seq, payload) }
}

fn put_stream(stream: StreamId) -> Op {
    Op::PutStream { stream, config_json: Bytes::from_static(b"{}"), created: Timestamp(5) }
}

fn seqs(store: &Store, stream: StreamId) -> Vec<u64> {
    let mut seqs = Vec::new();
    let report = store.scan(stream, |head| seqs.push(head.seq)).unwrap();
    assert_eq!((report.rows, report.damaged.len()), (seqs.len() as u64, 0));
    seqs
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let payloads: Vec<Vec<u8>> = [0, 1, 128, 2900, 3100, 4044, 5000, 9000, 17_000, 70_000, 1 << 20]
        .into_iter()
        .enumerate()
        .map(|(index, len)| vec![index as u8; len])
        .collect();
    let (store, recovered) = open(&dir);
    assert!(recovered.streams.is_empty() && !recovered.repaired);
    assert_eq!(store.new_stream_id(), STREAM);
    commit(&store, [put_stream(STREAM)]).unwrap();
    for (index, payload) in payloads.iter().enumerate() {
        commit(&store, [put(index as u64 + 1, payload)]).unwrap();
    }
    store.close();
    assert_eq!(commit(&store, [put_stream(STREAM)]), Err(CommitError::Closed));
    assert_eq!(store.read(STREAM, 1), Err(ReadError::Closed));
    drop(store);

    let (store, recovered) = open(&dir);
    assert_eq!(recovered.streams.len(), 1);
    assert_eq!(recovered.streams[0].config_json, "{}");
    assert_eq!(recovered.streams[0].created, Timestamp(5));
    assert!(!recovered.repaired);
    assert_eq!(store.new_stream_id(), StreamId(2));
    for (index, payload) in payloads.iter().enumerate() {
        let seq = index as u64 + 1;
        assert_eq!(store.read(STREAM, seq).unwrap().unwrap(), message(seq, payload));
    }
    assert_eq!(store.read(STREAM, 99).unwrap(), None);
    let all = store.read_range(STREAM, 0, usize::MAX, usize::MAX).unwrap();
    assert_eq!(all.len(), payloads.len());
    let some = store.read_range(STREAM, 3, 2, usize::MAX).unwrap();
    assert_eq!(some.iter().map(|message| message.seq).collect::<Vec<_>>(), [3, 4]);
    let few = store.read_range(STREAM, 3, usize::MAX, 200).unwrap();
    assert_eq!(few.iter().map(|message| message.seq).collect::<Vec<_>>(), [3, 4]);
    let mut lens = Vec::new();
    store.scan(STREAM, |head| lens.push(head.payload_len)).unwrap();
    assert_eq!(lens, payloads.iter().map(Vec::len).collect::<Vec<_>>());
}

#[test]
fn many_batches_are_done_in_order() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    let (sender, receiver) = mpsc::channel();
    for seq in 1..=2000 {
        let sender = sender.clone();
        store.submit([put(seq, b"x")].into_iter().collect(), move |result| sender.send((seq, result)).unwrap());
    }
    for seq in 1..=2000 {
        assert_eq!(receiver.recv().unwrap(), (seq, Ok(())));
    }
    assert_eq!(store.queued_bytes(), 0);
    assert_eq!(seqs(&store, STREAM), (1..=2000).collect::<Vec<_>>());
}

#[test]
fn dropping_the_last_handle_commits_what_waits() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    for seq in 1..=100 {
        store.submit([put(seq, b"x")].into_iter().collect(), |result| result.unwrap());
    }
    drop(store);
    let (store, _) = open(&dir);
    assert_eq!(seqs(&store, STREAM).len(), 100);
}

#[test]
fn an_emptied_stream_keeps_its_last_sequence() {
    let check = |remove: Vec<Op>, expected: Option<(u64, u64)>, left: &[u64]| {
        let dir = TempDir::new().unwrap();
        let (store, _) = open(&dir);
        commit(&store, [put_stream(STREAM)].into_iter().chain((1..=5).map(|seq| put(seq, b"x")))).unwrap();
        for op in remove {
            commit(&store, [op]).unwrap();
        }
        drop(store);
        let (store, recovered) = open(&dir);
        let floor = recovered.streams[0].floor;
        assert_eq!(floor.map(|floor| (floor.first_seq, floor.last_seq)), expected);
        assert_eq!(seqs(&store, STREAM), left);
        if let Some(floor) = floor.filter(|floor| floor.last_seq == 5) {
            assert_eq!(floor.last_time, Timestamp(1_005));
        }
        assert_eq!(store.reload(STREAM).unwrap().as_ref(), Some(&recovered.streams[0]));
    };
    let one = |seq| Op::RemoveMessage { stream: STREAM, seq, left: 0 };
    let range = |from, to| Op::RemoveMessages { stream: STREAM, from, to };
    let floor = |first_seq, last_seq| {
        let floor = StreamFloor { first_seq, last_seq, last_time: Timestamp(1_005) };
        Op::PutStreamFloor { stream: STREAM, floor }
    };
    check(vec![], None, &[1, 2, 3, 4, 5]);
    check(vec![one(1), one(3)], None, &[2, 4, 5]);
    check(vec![one(5)], Some((6, 5)), &[1, 2, 3, 4]);
    check(vec![one(5), one(4)], Some((6, 5)), &[1, 2, 3]);
    check(vec![one(5), put(6, b"x"), one(6)], Some((7, 6)), &[1, 2, 3, 4]);
    check(vec![range(1, 4)], None, &[5]);
    check(vec![range(2, u64::MAX)], Some((6, 5)), &[1]);
    check(vec![range(1, 5), floor(9, 8)], Some((9, 8)), &[]);
    check(vec![floor(3, 2)], Some((3, 5)), &[1, 2, 3, 4, 5]);
}

#[test]
fn a_long_removal_is_unseen_at_once_and_gone_soon() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    let big = vec![7; 5000];
    let all = 1..=6000u64;
    let puts = all.clone().map(|seq| put(seq, if seq % 100 == 0 { &big } else { b"x" }));
    commit(&store, [put_stream(STREAM)].into_iter().chain(puts)).unwrap();
    commit(&store, [Op::RemoveMessages { stream: STREAM, from: 1, to: 5990 }]).unwrap();
    let left: Vec<u64> = (5991..=6000).collect();
    assert_eq!(seqs(&store, STREAM), left);
    assert_eq!(store.read(STREAM, 5990).unwrap(), None);
    let range = store.read_range(STREAM, 1, 3, usize::MAX).unwrap();
    assert_eq!(range.iter().map(|message| message.seq).collect::<Vec<_>>(), [5991, 5992, 5993]);
    drop(store);
    let (store, recovered) = open(&dir);
    assert_eq!(seqs(&store, STREAM), left);
    assert_eq!(recovered.streams[0].floor, None);
}

#[test]
fn a_dropped_stream_is_gone_with_its_consumers_and_its_id() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    let (first, second) = (store.new_stream_id(), store.new_stream_id());
    let consumer: Arc<str> = "c".into();
    commit(&store, [put_stream(first), put_stream(second)]).unwrap();
    for stream in [first, second] {
        let messages = (1..=3000).map(|seq| Op::PutMessage { stream, message: message(seq, b"x") });
        commit(&store, messages).unwrap();
        let config_json = Bytes::from_static(b"{}");
        let created = Timestamp(6);
        commit(&store, [Op::PutConsumer { stream, consumer: consumer.clone(), config_json, created }]).unwrap();
    }
    commit(&store, [Op::DropStream { stream: second }]).unwrap();
    assert_eq!(store.reload(second).unwrap(), None);
    assert!(seqs(&store, second).is_empty());
    drop(store);
    let (store, recovered) = open(&dir);
    assert_eq!(recovered.streams.iter().map(|stream| stream.id).collect::<Vec<_>>(), [first]);
    assert_eq!(recovered.streams[0].consumers.len(), 1);
    assert_eq!(recovered.orphans, []);
    assert_eq!(seqs(&store, first).len(), 3000);
    assert!(store.new_stream_id() > second);
}

#[test]
fn a_consumers_rows_read_back_and_go_with_it() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    let state = ConsumerStateRow {
        ack_floor_consumer_seq: 1,
        ack_floor_stream_seq: 2,
        delivered_consumer_seq: 3,
        delivered_stream_seq: 4,
    };
    let mut block = AckBlock::empty(1);
    block.set(4096);
    block.set(8191);
    let stream = STREAM;
    let mut ops = vec![put_stream(stream)];
    for name in ["a", "b", "bb"] {
        let consumer: Arc<str> = name.into();
        let config_json = Bytes::copy_from_slice(name.as_bytes());
        ops.push(Op::PutConsumer { stream, consumer: consumer.clone(), config_json, created: Timestamp(7) });
        ops.push(Op::PutConsumerState { stream, consumer: consumer.clone(), state });
        ops.push(Op::PutAckBlock { stream, consumer: consumer.clone(), block: AckBlock::empty(0) });
        ops.push(Op::PutAckBlock { stream, consumer: consumer.clone(), block: block.clone() });
        ops.push(Op::RemoveAckBlock { stream, consumer: consumer.clone(), block: 0 });
        for (seq, count) in [(9, 2), (10, 3)] {
            let redelivery = Redelivery { seq, count, due: (seq == 10).then_some(Timestamp(7)) };
            ops.push(Op::PutRedelivery { stream, consumer: consumer.clone(), redelivery });
        }
        ops.push(Op::RemoveRedelivery { stream, consumer, seq: 9 });
    }
    ops.push(Op::DropConsumer { stream, consumer: "b".into() });
    commit(&store, ops).unwrap();
    drop(store);
    let (_store, recovered) = open(&dir);
    let expected: Vec<RecoveredConsumer> = ["a", "bb"]
        .into_iter()
        .map(|name| RecoveredConsumer {
            name: name.into(),
            config_json: Bytes::copy_from_slice(name.as_bytes()),
            created: Timestamp(7),
            state: Some(state),
            acked: vec![block.clone()],
            redeliveries: vec![Redelivery { seq: 10, count: 3, due: Some(Timestamp(7)) }],
        })
        .collect();
    assert_eq!(recovered.streams[0].consumers, expected);
}

#[test]
fn a_second_opening_is_refused_with_the_pid() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    let error = Store::open(dir.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    drop(store);
    open(&dir);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let check = |content: Option<Vec<u8>>, expected: &str| {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("natterjack.redb");
        drop(open(&dir));
        let intact = std::fs::read(&file).unwrap();
        let content = content.unwrap_or_else(|| intact[..intact.len() / 2].to_vec());
        std::fs::write(&file, &content).unwrap();
        let error = Store::open(dir.path(), Options::default()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("natterjack.redb"), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), content);
    };
    check(Some(Vec::new()), "it is empty");
    check(Some(b"not a store".repeat(1000)), "damaged");
    check(None, "damaged");

    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Store::open(&file, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::NotADirectory { .. }), "{error}");
}

#[test]
fn an_interrupted_first_creation_is_started_over() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("natterjack.redb.new"), b"half a database").unwrap();
    drop(open(&dir));
    assert!(!dir.path().join("natterjack.redb.new").exists());
}

#[test]
fn a_summary_holds_until_its_messages_change() {
    let summary = |from, to| Op::PutSummary { stream: STREAM, from, to, bytes: Bytes::from(vec![from as u8; 40_000]) };
    let one = |seq| Op::RemoveMessage { stream: STREAM, seq, left: 0 };
    let check = |ops: Vec<Op>, expected: &[(u64, u64)]| {
        let dir = TempDir::new().unwrap();
        let (store, _) = open(&dir);
        commit(&store, [put_stream(STREAM)].into_iter().chain((1..=50).map(|seq| put(seq, b"x")))).unwrap();
        commit(&store, [summary(0, 9), summary(10, 19), summary(20, 29)]).unwrap();
        commit(&store, ops).unwrap();
        drop(store);
        let (store, recovered) = open(&dir);
        let ranges = &recovered.streams[0].summaries;
        assert_eq!(ranges.iter().map(|range| (range.from, range.to)).collect::<Vec<_>>(), expected);
        for &range in ranges {
            assert_eq!(store.summary(STREAM, range).unwrap(), Some(vec![range.from as u8; 40_000]));
        }
        let mut seqs = Vec::new();
        store.scan_range(STREAM, 45, 47, |head| seqs.push(head.seq)).unwrap();
        assert_eq!(seqs, [45, 46, 47]);
    };
    check(vec![], &[(0, 9), (10, 19), (20, 29)]);
    check(vec![one(40)], &[(0, 9), (10, 19), (20, 29)]);
    check(vec![one(10)], &[(0, 9), (20, 29)]);
    check(vec![one(19), one(20)], &[(0, 9)]);
    check(vec![one(19), one(20), summary(10, 19)], &[(0, 9), (10, 19)]);
    check(vec![Op::RemoveMessages { stream: STREAM, from: 5, to: 12 }], &[(20, 29)]);
    check(vec![put(12, b"y")], &[(0, 9), (20, 29)]);
    check(vec![summary(5, 24)], &[(5, 24)]);
}

#[test]
fn a_store_of_the_first_format_is_brought_up_to_date() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(&dir);
    commit(&store, [put_stream(STREAM), put(1, b"x")]).unwrap();
    drop(store);
    let file = dir.path().join("natterjack.redb");
    let database = redb::Database::open(&file).unwrap();
    let txn = database.begin_write().unwrap();
    txn.delete_table(super::key::SUMMARIES).unwrap();
    let key = super::key::Meta::Format.encode();
    let row = super::meta_row::encode(&key, &super::meta_row::FormatV1 { format: 1 });
    txn.open_table(super::key::META).unwrap().insert(key.as_slice(), row.as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    let (store, recovered) = open(&dir);
    assert_eq!((recovered.streams.len(), recovered.streams[0].summaries.len()), (1, 0));
    commit(&store, [Op::PutSummary { stream: STREAM, from: 0, to: 9, bytes: Bytes::from_static(b"s") }]).unwrap();
    drop(store);
    assert_eq!(open(&dir).1.streams[0].summaries.len(), 1);
}

#[test]
fn messages_far_apart_go_at_once_and_their_rows_later() {
    const COUNT: u64 = 4000;
    let remove = |seqs: &[u64]| -> Vec<Op> {
        seqs.iter().map(|&seq| Op::RemoveMessage { stream: STREAM, seq, left: 0 }).collect()
    };
    // Every fiftieth, some of them with chunks.
    let scattered: Vec<u64> = (1..=COUNT / 50).map(|n| n * 50).collect();
    let rest = |without: &[u64]| (1..=COUNT).filter(|seq| !without.contains(seq)).collect::<Vec<_>>();
    let check = |sweep_min: u64, after: Vec<Op>, expected: Vec<u64>| {
        let options = Options { sweep_min, ..Options::default() };
        let dir = TempDir::new().unwrap();
        let (store, _) = Store::open(dir.path(), options).unwrap();
        commit(&store, [put_stream(STREAM)]).unwrap();
        let payload = |seq: u64| vec![1; if seq.is_multiple_of(500) { 9000 } else { 10 }];
        commit(&store, (1..=COUNT).map(|seq| put(seq, &payload(seq)))).unwrap();
        commit(&store, remove(&scattered)).unwrap();
        assert_eq!(seqs(&store, STREAM), rest(&scattered));
        assert_eq!(store.read(STREAM, 50).unwrap(), None);
        assert_eq!(store.read_range(STREAM, 49, 2, usize::MAX).unwrap()[1].seq, 51);
        commit(&store, after).unwrap();
        assert_eq!(seqs(&store, STREAM), expected);
        drop(store);
        let (store, recovered) = Store::open(dir.path(), options).unwrap();
        assert_eq!(seqs(&store, STREAM), expected);
        let last = recovered.streams[0].floor.map_or(0, |floor| floor.last_seq);
        assert!(last >= COUNT || expected.last() >= Some(&COUNT) || expected.is_empty(), "{:?}", recovered.streams[0]);
        // More of them, while rows of those before may still be swept.
        commit(&store, remove(&(1..=40).map(|n| n * 90 + 1).collect::<Vec<_>>())).unwrap();
        let expected: Vec<u64> =
            expected.into_iter().filter(|seq| !(seq % 90 == 1 && (91..=3601).contains(seq))).collect();
        assert_eq!(seqs(&store, STREAM), expected);
        drop(store);
        let (store, _) = Store::open(dir.path(), options).unwrap();
        assert_eq!(seqs(&store, STREAM), expected);
        store
    };
    for sweep_min in [1, 100, 1_000_000] {
        check(sweep_min, vec![], rest(&scattered));
        let others: Vec<u64> = scattered.iter().map(|seq| seq - 7).collect();
        check(sweep_min, remove(&others), rest(&[scattered.clone(), others.clone()].concat()));
        check(sweep_min, remove(&scattered), rest(&scattered));
        // One that was removed is put again, which no stream does.
        let again = check(sweep_min, vec![put(100, b"again")], rest(&[&scattered[..1], &scattered[2..]].concat()));
        assert_eq!(again.read(STREAM, 100).unwrap(), Some(message(100, b"again")));
        let range = Op::RemoveMessages { stream: STREAM, from: 0, to: 3000 };
        check(sweep_min, vec![range], rest(&scattered)[2940..].to_vec());
        let all = Op::RemoveMessages { stream: STREAM, from: 0, to: u64::MAX };
        check(sweep_min, vec![all, put(COUNT + 1, b"x")], vec![COUNT + 1]);
    }
}

#[test]
fn swept_rows_leave_the_file() {
    let rows = |dir: &TempDir| {
        let database = redb::Database::open(dir.path().join("natterjack.redb")).unwrap();
        let txn = redb::ReadableDatabase::begin_read(&database).unwrap();
        let meta = txn.open_table(super::key::META).unwrap();
        let notes = redb::ReadableTable::iter(&meta).unwrap().filter(|row| {
            let key = row.as_ref().unwrap().0.value().to_vec();
            matches!(super::key::Meta::decode(&key), Some(super::key::Meta::Tombstones(..)))
        });
        let messages = redb::ReadableTableMetadata::len(&txn.open_table(super::key::MESSAGES).unwrap()).unwrap();
        (messages, notes.count())
    };
    let check = |sweep_min, left, drop_stream, expected| {
        let dir = TempDir::new().unwrap();
        let (store, _) = Store::open(dir.path(), Options { sweep_min, ..Options::default() }).unwrap();
        commit(&store, [put_stream(STREAM)].into_iter().chain((1..=4000).map(|seq| put(seq, b"x")))).unwrap();
        commit(&store, (1..=80).map(|n| Op::RemoveMessage { stream: STREAM, seq: n * 50, left })).unwrap();
        if drop_stream {
            commit(&store, [Op::DropStream { stream: STREAM }]).unwrap();
        }
        // What is begun is finished before the next batches are done.
        for _ in 0..9 {
            commit(&store, [put_stream(StreamId(2))]).unwrap();
        }
        drop(store);
        assert_eq!(rows(&dir), expected);
    };
    check(100, 0, false, (4000, 1));
    check(80, 0, false, (3920, 0));
    check(80, 1000, false, (4000, 1));
    check(100, 0, true, (0, 0));
}
