//! What a person at a terminal sees that a pipe does not: questions, progress, and lists drawn over themselves.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::time::Duration;

use natterjack::client::Client;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::sync::{mpsc, oneshot};

use crate::support::World;

const PATIENCE: Duration = Duration::from_secs(30);

/// A command at a terminal of its own, and all that it has shown.
struct Terminal {
    child: Child,
    master: File,
    shown: mpsc::UnboundedReceiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = command.spawn().unwrap();
        // It has its ends; ours would keep the terminal open after it.
        drop(command);
        let master = File::from(master);
        let mut reader = master.try_clone().unwrap();
        let (sender, shown) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the last of the other ends is closed.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let _ = sender.send(bytes[..count].to_vec());
            }
        });
        Terminal { child, master, shown, text: String::new() }
    }

    /// Waits until it has shown something, from here on.
    async fn until(&mut self, wanted: &str) {
        loop {
            if let Some(at) = self.text.find(wanted) {
                self.text.drain(..at + wanted.len());
                return;
            }
            let more = tokio::time::timeout(PATIENCE, self.shown.recv()).await.expect("something is shown");
            let more = more.unwrap_or_else(|| panic!("it ended before {wanted:?}: {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    async fn end(mut self) -> Option<i32> {
        while tokio::time::timeout(PATIENCE, self.shown.recv()).await.expect("it ends").is_some() {}
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_may_say_no() {
    let world = World::start().await;
    world.run(&["task", "submit", "--id", "t", "--queue", "q", "x"]).await.fine();
    let state = async || world.run(&["task", "get", "t", "--json"]).await.json()["state"].clone();
    for (word, code, after) in [("n\n", 1, "submitted"), ("\n", 1, "submitted"), ("y\n", 0, "canceled")] {
        let mut terminal = Terminal::start(world.command(&["queue", "purge", "q"]));
        terminal.until("Cancel the 1 tasks that wait in queue q? [y/N] ").await;
        terminal.type_in(word);
        terminal.until(if code == 0 { "1 tasks of queue q are canceled." } else { "Nothing was done." }).await;
        assert_eq!((terminal.end().await, state().await), (Some(code), after.into()), "{word:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_list_is_drawn_over_itself() {
    let world = World::start().await;
    world.run(&["task", "submit", "--id", "first", "x"]).await.fine();
    let mut terminal = Terminal::start(world.command(&["task", "ls", "--watch", "50ms"]));
    terminal.until("\x1b[HID").await;
    terminal.until("first  submitted (queued)").await;
    // The same again, from the upper left corner, and nothing of what was there before.
    terminal.until("\x1b[J").await;
    terminal.until("\x1b[HID").await;
    world.run(&["task", "cancel", "first"]).await.fine();
    terminal.until("first  canceled").await;
    terminal.until("\x1b[K\x1b[J").await;
}

/// Answers calls of the task API for `queue` as a coordinator would that is long at a purge: it tells each time it is asked
/// how many tasks are open, and is done when `end` says so.
async fn long_purge(client: Client, open: [u64; 3], end: oneshot::Receiver<()>) {
    let mut asked = client.subscribe("$TASK.API.QUEUE.INFO.q").unwrap();
    let mut purges = client.subscribe("$TASK.API.QUEUE.PURGE.q").unwrap();
    client.flush().await.unwrap();
    for open in open {
        let question = asked.next().await.unwrap();
        let told = format!(r#"{{"queue":"q","open":{open},"running":0}}"#);
        client.publish_message(question.reply(), b"", b"", told.as_bytes()).unwrap();
    }
    let purge = purges.next().await.unwrap();
    end.await.unwrap();
    client.publish_message(purge.reply(), b"", b"", br#"{"queue":"q","purged":40}"#).unwrap();
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_work_shows_how_far_it_is() {
    let world = World::start_with(|config| natterjack::config::Config { coordinator: false, ..config }).await;
    let (end, ending) = oneshot::channel();
    let purging = tokio::spawn(long_purge(world.client("slow").await, [40, 30, 12], ending));
    let mut terminal = Terminal::start(world.command(&["queue", "purge", "q", "--yes"]));
    terminal.until("\r10 of 40 canceled\x1b[K").await;
    terminal.until("\r28 of 40 canceled\x1b[K").await;
    end.send(()).unwrap();
    // The line goes when the work is done.
    terminal.until("\r\x1b[K40 tasks of queue q are canceled.").await;
    assert_eq!(terminal.end().await, Some(0));
    purging.await.unwrap();
    // Nothing of it is in a pipe.
    let (end, ending) = oneshot::channel();
    end.send(()).unwrap();
    let purging = tokio::spawn(long_purge(world.client("slow").await, [40, 30, 12], ending));
    let ended = world.run(&["queue", "purge", "q", "--yes"]).await;
    assert_eq!((ended.stderr.as_str(), ended.stdout.as_str()), ("", "40 tasks of queue q are canceled.\n"));
    purging.await.unwrap();
}
