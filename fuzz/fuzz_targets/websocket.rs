//! WebSocket frames of any bytes: a head is there or not yet, never longer than it may be, and the mask is its own opposite.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natterjack::protocol::websocket::{CONTROL_BYTES_MAX, HEAD_BYTES_MAX, Head, Opcode, data_head, unmask};

fuzz_target!(|input: &[u8]| {
    for deflate in [false, true] {
        let parsed = Head::parse(input, deflate);
        match parsed {
            Ok(Some((head, taken))) => {
                assert!((6..=HEAD_BYTES_MAX).contains(&taken) && taken <= input.len());
                assert!(head.opcode == Opcode::Data || head.payload_bytes <= CONTROL_BYTES_MAX as u64);
                assert!(head.payload_bytes >> 63 == 0);
                assert!(deflate || !head.is_compressed);
                // Nothing shorter is a head, and what follows does not matter.
                assert_eq!(Head::parse(&input[..taken], deflate), parsed);
                assert_eq!(Head::parse(&input[..taken - 1], deflate), Ok(None));
                let mut masked = input.to_vec();
                unmask(&mut masked, head.mask, 0);
                let (start, end) = masked.split_at_mut(taken);
                unmask(start, head.mask, 0);
                unmask(end, head.mask, taken as u64);
                assert_eq!(masked, input, "a mask taken off in two parts");
            }
            Ok(None) => assert!(input.len() < HEAD_BYTES_MAX),
            // No further byte makes it right.
            Err(error) => assert_eq!(Head::parse(&[input, &[0; HEAD_BYTES_MAX]].concat(), deflate), Err(error)),
        }
    }
    // Heads we write say what they are told.
    let mut out = Vec::new();
    data_head(&mut out, input.len(), false);
    assert!(out.len() <= 10 && out[0] == 0x82 && out[1] & 0x80 == 0);
});
