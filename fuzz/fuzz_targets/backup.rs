//! Backups of any bytes, as STREAM.RESTORE gets them: the same entries come out however the bytes are cut, what is damaged is
//! an error and stays one, and entries are no larger than allowed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natterjack::backup::archive::{self, Entry};
use natterjack::backup::{BackupError, BackupReader, consumer, read_state, s2};
use natterjack::types::Timestamp;

const MESSAGE_BYTES_MAX: usize = 4096;

fn read(chunks: &[&[u8]]) -> (Vec<Entry>, Option<BackupError>) {
    let mut reader = BackupReader::new(MESSAGE_BYTES_MAX);
    let mut entries = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next_entry() {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => break,
                Err(error) => return (entries, Some(error)),
            }
        }
    }
    (entries, None)
}

fuzz_target!(|input: &[u8]| {
    let [cut, input @ ..] = input else { return };
    // As it is, and as what a well-formed frame holds: few bytes by chance are a frame with the right checksum.
    let mut packed = Vec::new();
    let mut encoder = s2::Encoder::default();
    let mut archived = Vec::new();
    archive::write_magic(&mut archived);
    archived.extend_from_slice(input);
    encoder.push(&archived, &mut packed);
    encoder.flush(&mut packed);
    for bytes in [input, &packed[..]] {
        let (before, after) = bytes.split_at(usize::from(*cut).min(bytes.len()));
        let (entries, error) = read(&[bytes]);
        assert_eq!((&entries, &error), (&read(&[before, after]).0, &read(&[before, after]).1));
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!((entries.len(), &error), (read(&bytewise).0.len(), &error));
        for entry in entries {
            assert!(entry.seq == 0 || entry.body().len() <= MESSAGE_BYTES_MAX);
            let _ = read_state(&entry);
            let _ = consumer::decode(&entry, u64::MAX);
        }
    }
    // What is written is read again.
    let split = usize::from(*cut).min(input.len());
    let (headers, payload) = input.split_at(split);
    let (mut archived, mut packed, mut encoder) = (Vec::new(), Vec::new(), s2::Encoder::default());
    archive::write_magic(&mut archived);
    archive::write_entry(b"a.b", Timestamp(i64::from(*cut) - 128), 7, headers, payload, &mut archived);
    archive::write_end(&mut archived);
    encoder.push(&archived, &mut packed);
    encoder.flush(&mut packed);
    let (entries, error) = read(&[&packed]);
    if input.len() <= MESSAGE_BYTES_MAX {
        assert_eq!(error, None);
        assert_eq!((entries.len(), entries[0].body(), entries[1].is_end()), (2, input, true));
    }
});
