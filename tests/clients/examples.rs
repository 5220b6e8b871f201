//! The agents and dispatchers of `examples/`, each language with each, through everything an agent may meet: work, a task
//! that cannot be done, a cancellation, a broker that is killed under it, and being drained.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::nats_server;
use crate::support::server::{Program, Server};
use crate::support::toolchain::{self, examples_dir, or_skip};

const DEADLINE: Duration = Duration::from_secs(60);

/// How the two programs of a language are started.
struct Language {
    name: &'static str,
    agent: Vec<PathBuf>,
    dispatcher: Vec<PathBuf>,
}

impl Language {
    fn new(name: &'static str, program: impl Fn(&str) -> Result<Vec<PathBuf>, String>) -> Option<Language> {
        let both = program("agent").and_then(|agent| Ok((agent, program("dispatcher")?)));
        let (agent, dispatcher) = or_skip(&format!("the examples in {name}"), both)?;
        Some(Language { name, agent, dispatcher })
    }

    fn python() -> Option<Language> {
        Language::new("python", |program| {
            let script = examples_dir().join("python").join(format!("{program}.py"));
            Ok(vec![toolchain::python("latest")?, script])
        })
    }

    fn all() -> Vec<Language> {
        let typescript = |program: &str| {
            let script = toolchain::typescript_example()?.join(format!("{program}.js"));
            Ok(vec!["node".into(), script])
        };
        let languages = [
            Language::python(),
            Language::new("go", |program| Ok(vec![toolchain::go_example(program)?])),
            Language::new("typescript", typescript),
            Language::new("rust", |program| Ok(vec![toolchain::cargo_example(program)?])),
        ];
        languages.into_iter().flatten().collect()
    }
}

/// An agent's process; killed when dropped.
struct Agent {
    id: String,
    child: Child,
}

impl Agent {
    fn start(language: &Language, server: &Server) -> Agent {
        let id = format!("{}-agent", language.name);
        let mut command = command(&language.agent, server);
        let mut child = command.arg(&id).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let name = id.clone();
        // Read to its end, so that the agent never waits for us; shown when the test fails.
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| println!("{name}: {line}")));
        Agent { id, child }
    }

    /// Waits for its end, which must be an orderly one.
    fn ends(mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "{}: {status}", self.id),
                None => assert!(Instant::now() < deadline, "{} does not end", self.id),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &[PathBuf], server: &Server) -> Command {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).env("NATS_URL", server.url()).stdin(Stdio::null());
    command
}

fn dispatch(language: &Language, server: &Server, id: &str, text: &str, requires: &str) -> Child {
    let mut command = command(&language.dispatcher, server);
    command.args([id, text, requires]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it ended with; it is killed when that takes too long.
fn finished(mut child: Child) -> (Option<i32>, String, String) {
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.expect("piped").read_to_string(&mut text);
            text
        })
    };
    let stdout = reader(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let stderr = reader(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => child.kill().unwrap(),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    (status.code(), stdout.join().unwrap(), stderr.join().unwrap())
}

/// What it printed; its task must have been done.
fn output(child: Child) -> String {
    let (code, stdout, stderr) = finished(child);
    assert_eq!(code, Some(0), "{stdout}\n{stderr}");
    stdout
}

/// Our own commands, with their JSON.
fn natterjack(server: &Server, arguments: &[&str]) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natterjack"));
    let output = command.args(arguments).args(["--json", "-s", &server.url()]).stdin(Stdio::null()).output().unwrap();
    if output.status.code() == Some(3) {
        return serde_json::Value::Null; // not there, or not yet
    }
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the task's record is as wanted.
fn until(server: &Server, id: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let record = natterjack(server, &["task", "get", id]);
        if wanted(&record) {
            return record;
        }
        assert!(Instant::now() < deadline, "{record}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn agents_and_dispatchers_of_every_language_work_together() {
    let languages = Language::all();
    let mut server = Server::start(Program::natterjack()).unwrap();
    let agents: Vec<Agent> = languages.iter().map(|language| Agent::start(language, &server)).collect();
    let requires = |language: &Language| format!("lang={}", language.name);

    // Everybody for everybody, two at a time in each agent and more: with progress, and the result as the last line.
    let mut dispatched = Vec::new();
    for dispatcher in &languages {
        for agent in &languages {
            let id = format!("{}-for-{}", dispatcher.name, agent.name);
            let text = format!("hello from {}", dispatcher.name);
            dispatched.push((text.to_uppercase(), dispatch(dispatcher, &server, &id, &text, &requires(agent))));
        }
    }
    for (result, child) in dispatched {
        let said = output(child);
        assert!(said.lines().any(|line| line == "... HELLO"), "progress is seen:\n{said}");
        assert!(said.contains("- assigned"), "so are events:\n{said}");
        assert_eq!(said.lines().rfind(|line| !line.starts_with(['.', '-'])), Some(result.as_str()), "{said}");
    }

    // Submitted again by somebody else: no second task, and the same result.
    for (first, again) in languages.iter().zip(languages.iter().rev()) {
        let id = format!("{}-for-{}", first.name, again.name);
        let text = format!("hello from {}", first.name);
        let said = output(dispatch(again, &server, &id, &text, &requires(again)));
        assert!(said.contains(&text.to_uppercase()), "{said}");
        assert_eq!(natterjack(&server, &["task", "get", &id])["attempt"], 1);
    }

    // What cannot be done fails at once, and both sides say why.
    for (dispatcher, agent) in languages.iter().zip(languages.iter().cycle().skip(1)) {
        let id = format!("impossible-{}", agent.name);
        let child = dispatch(dispatcher, &server, &id, "this is impossible now", &requires(agent));
        let (code, _, stderr) = finished(child);
        assert!(stderr.contains("failed: that is impossible"), "{}: {stderr}", dispatcher.name);
        assert_eq!(code, Some(1), "{}", dispatcher.name);
    }

    // Told to stop, an agent stops and says so; the coordinator would wait much longer for it.
    let endless = "on and ".repeat(1000);
    for agent in &languages {
        let id = format!("endless-{}", agent.name);
        natterjack(&server, &["task", "submit", "--id", &id, "--requires", &requires(agent), &endless]);
        until(&server, &id, |record| record["phase"] == "running");
        natterjack(&server, &["task", "cancel", &id, "--reason", "enough"]);
        let record = until(&server, &id, |record| record["state"] == "canceled");
        assert_eq!(record["reason"], "enough");
    }

    // The broker dies with work under way: who comes back has its lease still, and nothing is done twice.
    let text = "one two three four five six seven eight nine ten ".repeat(3);
    let waiting: Vec<(String, Child)> = languages
        .iter()
        .zip(languages.iter().cycle().skip(2))
        .map(|(dispatcher, agent)| {
            let id = format!("survivor-{}", agent.name);
            let child = dispatch(dispatcher, &server, &id, text.trim(), &requires(agent));
            until(&server, &id, |record| record["phase"] == "running");
            (id, child)
        })
        .collect();
    server.kill();
    server.restart().unwrap();
    for (id, child) in waiting {
        assert!(output(child).contains(&text.trim().to_uppercase()), "{id}");
        assert_eq!(natterjack(&server, &["task", "get", &id])["attempt"], 1, "{id} was done once");
    }

    // Terminated, an agent has itself drained, ends what it does and goes.
    for (agent, language) in agents.into_iter().zip(&languages) {
        let id = format!("last-{}", language.name);
        natterjack(&server, &["task", "submit", "--id", &id, "--requires", &requires(language), "the last words"]);
        until(&server, &id, |record| record["state"] != "submitted");
        let sent = Command::new("kill").arg("-TERM").arg(agent.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        agent.ends();
        let record = natterjack(&server, &["task", "get", &id]);
        assert_eq!((&record["state"], &record["attempt"]), (&"completed".into(), &1.into()), "{id}");
    }
}

/// The tests above are on our broker; what is beside it is the same to a client, of whatever language.
#[test]
fn they_work_beside_a_nats_server_as_well() {
    let Some(program) = or_skip("the examples beside nats-server", nats_server::find()) else { return };
    let Some(python) = Language::python() else { return };
    let mut server = Server::start(Program::nats_server(program)).unwrap();
    let mut coordinator = Command::new(env!("CARGO_BIN_EXE_natterjack"));
    coordinator.args(["coordinator", "--server", &server.url()]).stdin(Stdio::null()).stderr(Stdio::null());
    let _coordinator = Agent { id: "coordinator".to_owned(), child: coordinator.spawn().unwrap() };
    let agent = Agent::start(&python, &server);

    let said = output(dispatch(&python, &server, "hello", "say hello", "lang=python"));
    assert!(said.contains("... SAY") && said.trim_end().ends_with("SAY HELLO"), "{said}");
    let child = dispatch(&python, &server, "impossible", "this is impossible now", "lang=python");
    let (code, _, stderr) = finished(child);
    assert!(code == Some(1) && stderr.contains("failed: that is impossible"), "{stderr}");
    natterjack(&server, &["task", "submit", "--id", "endless", "--requires", "lang=python", &"on and ".repeat(1000)]);
    until(&server, "endless", |record| record["phase"] == "running");
    natterjack(&server, &["task", "cancel", "endless"]);
    until(&server, "endless", |record| record["state"] == "canceled");

    // The server goes and comes back; everybody finds it again.
    let text = "one two three four five six seven eight nine ten ".repeat(3);
    let child = dispatch(&python, &server, "survivor", text.trim(), "lang=python");
    until(&server, "survivor", |record| record["phase"] == "running");
    server.stop().unwrap();
    server.restart().unwrap();
    assert!(output(child).contains(&text.trim().to_uppercase()));

    let sent = Command::new("kill").arg("-TERM").arg(agent.child.id().to_string()).status().unwrap();
    assert!(sent.success());
    agent.ends();
}
