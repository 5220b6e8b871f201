//! A load in a process of its own: this very executable, started again.

use crate::load::{Load, Measured};
use crate::support::server::cpu_of;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    load: Load,
}

impl Process {
    /// Starts the load and waits until it is ready to go.
    pub fn start(load: Load) -> Result<Process, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let argument = serde_json::to_string(&load).expect("a load is plain data");
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n $(ulimit -Hn) && exec \"$0\" \"$@\""])
            .arg(program)
            .args(["--load", &argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Process { child, input, output, load };
        let line = process.read_line()?;
        if line == "ready" { Ok(process) } else { Err(format!("{:?} said {line:?}", process.load)) }
    }

    pub fn go(&mut self) -> Result<(), String> {
        let input = self.input.as_mut().expect("only `finish` closes it");
        input.write_all(b"go\n").map_err(|e| format!("{:?}: {e}", self.load))
    }

    /// Waits for what it measured.
    pub fn finish(&mut self) -> Result<Measured, String> {
        let line = self.read_line()?;
        serde_json::from_str(&line).map_err(|e| format!("{:?} said {line:?}: {e}", self.load))
    }

    /// Processor time it used so far, or in all.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.child.id())
    }

    fn read_line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(format!("{:?} failed", self.load)),
            Ok(_) => Ok(line.trim_end().into()),
            Err(e) => Err(format!("{:?}: {e}", self.load)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
