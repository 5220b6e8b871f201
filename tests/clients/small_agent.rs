//! The smallest agent there is, and what nats-py's own words mean on an agent's consumer.

use std::process::{Child, Command, Stdio};

use crate::scenario;
use crate::support::server::{Program, Server};
use crate::support::toolchain::{self, clients_dir, examples_dir, or_skip};

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_is_fifteen_lines() {
    let script = examples_dir().join("python").join("small_agent.py");
    let code = std::fs::read_to_string(&script).unwrap();
    assert_eq!(code.lines().count(), 15);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&format!("```python\n{code}```\n")), "the README shows it as it is");
    let Some(python) = or_skip("the small agent", toolchain::python("latest")) else { return };
    let server = Server::start(Program::natterjack()).unwrap();
    let agent = Command::new(python).arg(script).arg("ada").env("NATS_URL", server.url()).stdin(Stdio::null()).spawn();
    let _agent = Running(agent.unwrap());
    for text in ["hello", "and again"] {
        let mut submit = Command::new(env!("CARGO_BIN_EXE_natterjack"));
        submit.args(["task", "submit", "--deadline", "2m", "--wait", text, "-s", &server.url()]);
        let output = submit.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), text.to_uppercase());
    }
}

#[test]
fn in_progress_nak_and_term_of_nats_py_keep_their_meaning() {
    let Some(python) = or_skip("an agent's words in nats-py", toolchain::python("latest")) else { return };
    let mut command = Command::new(python);
    command.arg("-u").arg(clients_dir().join("python").join("agent_words.py"));
    scenario::run_on(Server::start(Program::natterjack()).unwrap(), command);
}
