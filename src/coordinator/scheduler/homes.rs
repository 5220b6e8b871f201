//! Which agent had the last task with a Task-Sticky token.

use hashbrown::HashMap;

use crate::types::Timestamp;

#[derive(Debug)]
struct Home {
    agent: String,
    since: Timestamp,
    /// Tasks with the token that are known; without any it is forgotten.
    tasks: u32,
}

/// The homes of tokens.
#[derive(Debug, Default)]
pub struct Homes {
    by_token: HashMap<String, Home>,
}

impl Homes {
    /// The id of the agent that had the last task with `token`.
    pub fn agent(&self, token: &str) -> Option<&str> {
        self.by_token.get(token).map(|home| home.agent.as_str()).filter(|agent| !agent.is_empty())
    }

    /// There is one more task with `token`.
    pub fn join(&mut self, token: &str) {
        let begin = || Home { agent: String::new(), since: Timestamp::ZERO, tasks: 0 };
        self.by_token.entry_ref(token).or_insert_with(begin).tasks += 1;
    }

    /// One less.
    pub fn leave(&mut self, token: &str) {
        if let Some(home) = self.by_token.get_mut(token) {
            home.tasks -= 1;
            if home.tasks == 0 {
                self.by_token.remove(token);
            }
        }
    }

    /// `agent` got a task with `token` then. Returns whether it was another one's before.
    pub fn settle(&mut self, token: &str, agent: &str, since: Timestamp) -> bool {
        match self.by_token.get_mut(token) {
            Some(home) if since >= home.since => {
                home.since = since;
                let moved = home.agent != agent;
                if moved {
                    agent.clone_into(&mut home.agent);
                }
                moved
            }
            _ => false,
        }
    }
}
