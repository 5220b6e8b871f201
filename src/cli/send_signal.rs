//! `--signal`: tells a running server to do something (nats-server `signal.go`).

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// Sends what `request` names (`ldm`, or `ldm=1234`, or `ldm=/run/server.pid`) to the server it names: a process id, one
/// ending with `*` for all that begin with it, a pid file, or nothing for the only one that runs under `program`'s name.
///
/// # Errors
/// What is wrong with the request, or whom it did not reach.
pub fn send(request: &str, program: &str) -> Result<(), String> {
    let (name, whom) = request.split_once('=').unwrap_or((request, ""));
    let signal = match name {
        "stop" => Signal::KILL,
        "quit" => Signal::INT,
        "term" => Signal::TERM,
        "reopen" => Signal::USR1,
        "reload" => Signal::HUP,
        "ldm" => Signal::USR2,
        _ => return Err(format!("unknown signal {name:?}: it is one of ldm, stop, quit, term, reopen, reload")),
    };
    let whom = std::fs::read_to_string(whom).map_or_else(|_| whom.to_owned(), |pid| pid.trim().to_owned());
    for process in processes(&whom, program)? {
        kill_process(process, signal)
            .map_err(|error| format!("signal {name:?} {}: {error}", process.as_raw_nonzero()))?;
    }
    Ok(())
}

fn processes(whom: &str, program: &str) -> Result<Vec<Pid>, String> {
    let prefix = whom.strip_suffix('*');
    let digits = prefix.unwrap_or(whom);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("invalid pid: {whom}"));
    }
    let parse = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    if prefix.is_none() && !whom.is_empty() {
        return parse(whom).map(|pid| vec![pid]).ok_or_else(|| format!("invalid pid: {whom}"));
    }
    let own = std::process::id().to_string();
    // The process table has no portable reader but this program.
    let listed = Command::new("pgrep").args(["-x", program]).output();
    let listed = listed.map_err(|_| "unable to resolve pid, try providing one".to_owned())?.stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let pids: Vec<&str> = listed.lines().filter(|pid| *pid != own && pid.starts_with(digits)).collect();
    match pids.len() {
        0 => Err(format!("no {program} processes running")),
        2.. if prefix.is_none() => Err(format!("multiple {program} processes running:\n{}", pids.join("\n"))),
        _ => Ok(pids.into_iter().filter_map(parse).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_requests_are_refused() {
        for (request, expected) in [
            ("jump", "unknown signal \"jump\": it is one of ldm, stop, quit, term, reopen, reload"),
            ("ldm=x", "invalid pid: x"),
            ("reload=0", "invalid pid: 0"),
            ("quit", "no no-such-server processes running"),
            ("quit=99*", "no no-such-server processes running"),
        ] {
            assert_eq!(send(request, "no-such-server").unwrap_err(), expected, "{request}");
        }
    }
}
