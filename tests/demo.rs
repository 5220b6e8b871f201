//! The demo proves what it says, with a broker killed for real: its exit code is the verdict.

use std::process::{Command, Stdio};

#[test]
#[cfg(unix)]
fn the_demo_proves_exactly_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_natterjack"))
        .args(["demo", "--tasks", "120", "--deadline", "60s"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{wrong}");
    for part in ["Agent ada dies", "SIGKILL to the broker", "Every one of 120 tasks was completed exactly once."] {
        assert!(said.contains(part), "{part} is missing:\n{said}\n{wrong}");
    }
}
