//! Config files of any text: reading one never panics, does not depend on when it is read, and every error names a place
//! that is in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use natterjack::config::Config;
use natterjack::config::file::{FileError, read_text};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = || read_text(Config::in_folder("x"), text);
    let first = read();
    assert_eq!(first, read());
    let Err(errors) = first else { return };
    assert!(!errors.0.is_empty());
    for error in &errors.0 {
        let (FileError::Syntax { at, .. } | FileError::Value { at, .. }) = error else { continue };
        let line = text.split('\n').nth(at.line - 1).expect("the line is in the file");
        assert!(at.column <= line.chars().count() + 1, "{error}");
    }
});
