//! What is written is read, whatever the chunks; what is not a backup is refused.

use proptest::prelude::*;

use super::*;
use crate::consumer::{ConsumerConfig, Out, Progress, StateRow};
use crate::types::Timestamp;

fn backup() -> (Vec<u8>, Progress) {
    let progress = Progress {
        state: StateRow {
            ack_floor_consumer_seq: 1,
            ack_floor_stream_seq: 2,
            delivered_consumer_seq: 3,
            delivered_stream_seq: 9,
        },
        out: vec![Out { stream_seq: 7, consumer_seq: 2, sent: Timestamp(5) }],
        counts: vec![(7, 3)],
    };
    let mut plain = Vec::new();
    archive::write_magic(&mut plain);
    let state = StreamState { messages: 2, first_seq: 2, last_seq: 9, consumer_count: 1, ..StreamState::default() };
    let json = serde_json::to_vec(&state).unwrap();
    archive::write_entry(STATE_ENTRY.as_bytes(), Timestamp(1), 0, b"", &json, &mut plain);
    let json = consumer::encode(&ConsumerConfig::default(), &progress);
    archive::write_entry(b"consumers/c", Timestamp(1), 0, b"", &json, &mut plain);
    archive::write_entry(b"a.b", Timestamp(-3), 2, b"NATS/1.0\r\nA: b\r\n\r\n", b"payload", &mut plain);
    archive::write_entry(b"a.c", Timestamp(i64::MAX), 7, b"", &[7; 200_000], &mut plain);
    archive::write_end(&mut plain);
    let (mut packed, mut encoder) = (Vec::new(), s2::Encoder::default());
    encoder.push(&plain, &mut packed);
    encoder.flush(&mut packed);
    (packed, progress)
}

fn read(packed: &[u8], size: usize) -> Result<Vec<archive::Entry>, BackupError> {
    let mut reader = BackupReader::new(1 << 20);
    let mut entries = Vec::new();
    for chunk in packed.chunks(size) {
        reader.push(chunk);
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
    }
    Ok(entries)
}

#[test]
fn a_backup_is_read_as_it_was_written() {
    let (packed, progress) = backup();
    for size in [1, 13, 4096, packed.len()] {
        let entries = read(&packed, size).unwrap();
        let [state, consumer, first, second, end] = &entries[..] else { panic!("five entries") };
        assert_eq!(read_state(state).map(|state| (state.first_seq, state.last_seq)), Ok((2, 9)));
        let decoded = consumer::decode(consumer, 9).unwrap();
        assert_eq!(decoded, ("c".to_owned(), ConsumerConfig::default(), progress.clone()));
        let message = first.clone().into_message();
        assert_eq!((first.seq, first.time), (2, Timestamp(-3)));
        assert_eq!((message.subject(), message.payload()), (&b"a.b"[..], &b"payload"[..]));
        assert_eq!(message.headers(), b"NATS/1.0\r\nA: b\r\n\r\n");
        assert_eq!((second.seq, second.time, second.body().len()), (7, Timestamp(i64::MAX), 200_000));
        assert!(end.is_end() && !second.is_end());
        assert_eq!(read_state(consumer), Err(BackupError::NoState));
        assert!(consumer::decode(state, 9).is_err());
        assert!(consumer::decode(consumer, 1).is_err(), "a floor above the stream's end");
    }
}

#[test]
fn messages_have_a_size_and_archives_a_mark() {
    let refused = |plain: &[u8]| {
        let mut reader = archive::Reader::new(10);
        reader.push(plain);
        reader.next_entry().err()
    };
    assert_eq!(refused(b"some tar with files in it"), Some(BackupError::UnknownFormat));
    assert_eq!(refused(b"NATSARC1\x00\x00\x05\x08\x03"), Some(BackupError::MessageTooLarge(5)));
    assert_eq!(refused(b"NATSARC1\x00\x00\x00\x00\xff\xff\xff\xff\xff\x01"), Some(BackupError::BadEntry));
    assert_eq!(refused(b"NATSARC1\x00\x00\x05\x08"), None);
    assert_eq!(refused(&[&b"NATSARC1"[..], &[0xff; 60]].concat()), Some(BackupError::BadEntry));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(at in 0usize..1000, value in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let (mut packed, _) = backup();
        let at = at % packed.len();
        packed[at] = value;
        let _ = read(&packed, 777);
        let mut entries = archive::Reader::new(1000);
        entries.push(b"NATSARC1");
        entries.push(&noise);
        while let Ok(Some(entry)) = entries.next_entry() {
            let _ = (read_state(&entry), consumer::decode(&entry, 9), entry.is_end());
            let _ = entry.into_message();
        }
        let mut frames = s2::Decoder::default();
        frames.push(b"\xff\x06\0\0S2sTwO");
        frames.push(&noise);
        while let Ok(Some(_)) = frames.next_frame() {}
    }
}
