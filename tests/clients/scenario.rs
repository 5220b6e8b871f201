//! Runs a client program against a server of its own, and lets the program decide when that server dies.
//!
//! The program finds `NATS_URL` and `MONITORING_URL` in its environment. A line `@kill`, `@stop` (SIGTERM) or `@start` on
//! its standard output is a wish; it is answered with a line `done` on its standard input once fulfilled. Any other line
//! tells how far it is. It exits with 0 when everything was as it should be.

use crate::support::server::{Program, Server};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(120);

/// Starts a server, runs `command` against it and panics with everything it said unless it succeeds.
pub fn run(command: Command) {
    let server = Server::start(Program::under_test()).expect("a server for the scenario");
    run_on(server, command);
}

/// As [`run`], on a server that is there already; what it said.
pub fn run_on(mut server: Server, mut command: Command) -> String {
    let mut child = command
        .env("NATS_URL", server.url())
        .env("MONITORING_URL", server.monitoring_url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut said = String::new();
    let verdict = serve(&mut child, &mut server, &mut said);
    // Killed so that its pipes end, whatever it still does.
    let _ = child.kill();
    child.wait().expect("a child that was not waited for can be waited for");
    println!("{said}");
    if let Err(text) = verdict {
        panic!("{command:?}: {text}\n---- the server's log\n{}", server.log_tail());
    }
    said
}

fn serve(child: &mut Child, server: &mut Server, said: &mut String) -> Result<(), String> {
    let mut input = child.stdin.take().expect("piped");
    let lines = lines_of(child);
    loop {
        // Silence for this long is a hang; a scenario tells of every step.
        match lines.recv_timeout(DEADLINE) {
            Ok(Line::Output(line)) => {
                said.push_str(&format!("{line}\n"));
                let fulfilled = match line.as_str() {
                    // The real server forgets acks it has confirmed when it is killed, so there it is only stopped.
                    "@kill" if server.is_real() => server.stop(),
                    "@kill" => {
                        server.kill();
                        Ok(())
                    }
                    "@stop" => server.stop(),
                    "@start" => server.restart(),
                    _ => continue,
                };
                fulfilled.map_err(|e| format!("{line}: {e}"))?;
                writeln!(input, "done").map_err(|e| format!("it does not listen: {e}"))?;
            }
            Ok(Line::Error(line)) => said.push_str(&format!("{line}\n")),
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(format!("silent for {DEADLINE:?}")),
            // Both of its outputs ended, so it is ending.
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

enum Line {
    Output(String),
    Error(String),
}

fn lines_of(child: &mut Child) -> mpsc::Receiver<Line> {
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take().expect("piped"), sender.clone(), Line::Output);
    forward(child.stderr.take().expect("piped"), sender, Line::Error);
    lines
}

fn forward(pipe: impl Read + Send + 'static, sender: mpsc::Sender<Line>, kind: fn(String) -> Line) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(kind(String::from_utf8_lossy(&line).trim_end().into())).is_err() {
                break;
            }
        }
    });
}
