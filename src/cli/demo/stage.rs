//! What the watcher sees: a block that is drawn over itself on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// One agent's line.
#[derive(Clone, Debug)]
pub struct Actor {
    pub name: &'static str,
    pub labels: String,
    pub done: u32,
    pub in_hand: u32,
    pub alive: bool,
}

/// Everything there is to see at one moment.
#[derive(Clone, Debug)]
pub struct Scene {
    pub broker: String,
    pub actors: Vec<Actor>,
    pub submitted: u32,
    pub completed: u32,
    pub tasks: u32,
    pub elapsed: Duration,
}

pub struct Stage {
    terminal: bool,
    /// Lines of the block on the screen now.
    drawn: usize,
    /// Tenths that a plain line was printed for.
    tenths: u32,
}

const BAR_WIDTH: usize = 40;

impl Stage {
    pub fn new() -> Stage {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Stage { terminal: std::io::stdout().is_terminal() && !dumb, drawn: 0, tenths: 0 }
    }

    /// A line that stays, above the block.
    pub fn tell(&mut self, line: &str) {
        let mut text = self.erase();
        text.push_str(line);
        text.push('\n');
        put(&text);
    }

    /// Draws the block anew, or on no terminal a line per tenth of the tasks.
    pub fn show(&mut self, scene: &Scene) {
        if self.terminal {
            let mut text = self.erase();
            let lines = block(scene);
            self.drawn = lines.len();
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
            put(&text);
        } else {
            let tenths = scene.completed * 10 / scene.tasks.max(1);
            if tenths > self.tenths {
                self.tenths = tenths;
                put(&format!(
                    "{:5.1} s  {} of {} tasks completed\n",
                    scene.elapsed.as_secs_f32(),
                    scene.completed,
                    scene.tasks
                ));
            }
        }
    }

    /// Leaves the last block on the screen.
    pub fn finish(&mut self) {
        self.drawn = 0;
    }

    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

/// A reader that has hung up is no error.
fn put(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn block(scene: &Scene) -> Vec<String> {
    let mut lines = vec![String::new(), format!("  broker  {}", scene.broker)];
    for actor in &scene.actors {
        let state = if actor.alive { format!("{} in hand", actor.in_hand) } else { "dead".to_owned() };
        lines.push(format!("  {:<6}  {:<22} {:>4} done  {state}", actor.name, actor.labels, actor.done));
    }
    let filled = |count: u32| BAR_WIDTH * count.min(scene.tasks) as usize / scene.tasks.max(1) as usize;
    let (done, waiting) = (filled(scene.completed), filled(scene.submitted).max(filled(scene.completed)));
    lines.push(format!(
        "  tasks   {}{}{} {}/{}  {:.1} s",
        "█".repeat(done),
        "▒".repeat(waiting - done),
        "░".repeat(BAR_WIDTH - waiting),
        scene.completed,
        scene.tasks,
        scene.elapsed.as_secs_f32(),
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_one_block() {
        let actor = |name, alive| Actor { name, labels: "lang=rust".into(), done: 7, in_hand: 2, alive };
        let scene = Scene {
            broker: "nats://127.0.0.1:1  pid 2".into(),
            actors: vec![actor("ada", false), actor("alan", true)],
            submitted: 20,
            completed: 10,
            tasks: 40,
            elapsed: Duration::from_millis(1500),
        };
        assert_eq!(
            block(&scene).join("\n"),
            "\n  broker  nats://127.0.0.1:1  pid 2\n\
             \x20 ada     lang=rust                 7 done  dead\n\
             \x20 alan    lang=rust                 7 done  2 in hand\n\
             \x20 tasks   ██████████▒▒▒▒▒▒▒▒▒▒░░░░░░░░░░░░░░░░░░░░ 10/40  1.5 s"
        );
    }
}
