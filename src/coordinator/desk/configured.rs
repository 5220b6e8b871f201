//! Consumers that the configuration adopts: each is put as a queue, again until it is one, and given up when the
//! configuration names it no more.

use std::time::Duration;

use super::Desk;
use super::adopt::RECHECK;
use crate::client::Incoming;
use crate::coordinator::names;
use crate::coordinator::queue::{Adopt, Mode, QueueConfig};

/// How long what was given up has to be stored so.
const SOON: Duration = Duration::from_secs(1);

impl Desk {
    /// Brings the queues in line with the configuration, as far as that is possible now. What it names no more goes first:
    /// another queue may be to have its consumer.
    pub(super) fn adopt_as_configured(&mut self) {
        let (wanted, unwanted): (Vec<String>, Vec<String>) =
            self.misconfigured().into_iter().partition(|queue| self.wish(queue).is_some());
        self.adoptions.unfulfilled = !wanted.is_empty() || !unwanted.is_empty();
        self.adoptions.retry_at = self.now + RECHECK;
        let given_up = unwanted.iter().filter(|queue| self.put_as_configured(queue)).count();
        if given_up > 0 {
            self.adoptions.retry_at = self.now + SOON;
            return;
        }
        for queue in wanted {
            self.put_as_configured(&queue);
        }
    }

    /// The queues that are not as the configuration wants them.
    fn misconfigured(&self) -> Vec<String> {
        let is_so = |queue: &String| self.queue_config(queue).adopt == self.configured(queue).adopt;
        let wanted = self.settings.adopt.iter().map(|(queue, _)| queue);
        let others = self.queues.keys().filter(|queue| self.wish(queue).is_none());
        wanted.chain(others).filter(|queue| !is_so(queue)).cloned().collect()
    }

    /// Whether it is on its way.
    fn put_as_configured(&mut self, queue: &str) -> bool {
        if self.queues.get(queue).is_some_and(|known| known.coming.is_some()) {
            return false;
        }
        let subject = format!("{}QUEUE.PUT.{queue}", names::API);
        let request = Incoming::new(subject.as_bytes(), b"", b"", b"");
        let outcome = self.put_queue(queue, self.configured(queue), &request);
        let is_fine = outcome.is_ok();
        self.tell_hindrance(queue, outcome.err().map(|error| error.description.to_string()));
        is_fine
    }

    /// What the configuration wants a queue to adopt.
    fn wish(&self, queue: &str) -> Option<&Adopt> {
        self.settings.adopt.iter().find(|(wanted, _)| wanted == queue).map(|(_, adopt)| adopt)
    }

    /// A queue's settings as they should be.
    fn configured(&self, queue: &str) -> QueueConfig {
        let config = self.coming_config(queue);
        match self.wish(queue) {
            Some(adopt) => QueueConfig { mode: Mode::Adopted, adopt: Some(adopt.clone()), ..config },
            None if config.adopt.as_ref().is_some_and(|adopt| adopt.configured) => {
                QueueConfig { mode: Mode::Inbox, adopt: None, ..config }
            }
            None => config,
        }
    }

    fn tell_hindrance(&mut self, queue: &str, hindrance: Option<String>) {
        let Some(reason) = hindrance else {
            self.adoptions.hindrances.remove(queue);
            return;
        };
        if self.adoptions.hindrances.get(queue) != Some(&reason) {
            match self.wish(queue) {
                Some(adopt) => tracing::warn!(
                    queue,
                    stream = adopt.stream,
                    consumer = adopt.consumer,
                    reason,
                    "what the configuration adopts is refused: name another queue there, or set this one up anew; it is tried \
                     again"
                ),
                None => tracing::warn!(
                    queue,
                    reason,
                    "the configuration adopts this queue's consumer no more, but it is still followed; it is tried again"
                ),
            }
            self.adoptions.hindrances.insert(queue.to_owned(), reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::desk::Settings;
    use crate::coordinator::desk::rig::Rig;

    fn rig(adopt: &[(&str, &str)]) -> Rig {
        Rig::new(Settings { adopt: wishes(adopt), ..Settings::default() })
    }

    fn wishes(adopt: &[(&str, &str)]) -> Vec<(String, Adopt)> {
        let wish = |consumer: &str| Adopt { stream: "S".into(), consumer: consumer.into(), configured: true };
        adopt.iter().map(|(queue, consumer)| ((*queue).to_owned(), wish(consumer))).collect()
    }

    /// With another configuration.
    fn restart(rig: &mut Rig, adopt: &[(&str, &str)]) {
        rig.settings.adopt = wishes(adopt);
        rig.restart();
        rig.run();
    }

    /// Which queue has adopted which consumer.
    fn adopted(rig: &Rig) -> Vec<(&str, &str)> {
        let mut adopted: Vec<(&str, &str)> = rig
            .desk
            .queues
            .iter()
            .filter_map(|(name, queue)| Some((name.as_str(), queue.config.adopt.as_ref()?.consumer.as_str())))
            .collect();
        adopted.sort_unstable();
        adopted
    }

    #[test]
    fn what_cannot_be_adopted_is_tried_again_and_said_meanwhile() {
        let mut rig = rig(&[]);
        rig.ask("SUBMIT", "Task-Id: t\r\nTask-Queue: q\r\n", "");
        restart(&mut rig, &[("q", "c"), ("r", "d")]);
        assert_eq!(adopted(&rig), [("r", "d")]);
        let said = rig.desk.adoptions.hindrances.clone();
        assert!(said["q"].contains("open tasks") && said.len() == 1, "{said:?}");
        rig.ask("CANCEL.t", "", "");
        rig.pass(RECHECK);
        assert_eq!(adopted(&rig), [("q", "c"), ("r", "d")]);
        rig.pass(RECHECK);
        assert!(rig.desk.adoptions.hindrances.is_empty() && !rig.desk.adoptions.unfulfilled);
    }

    #[test]
    fn what_the_configuration_names_no_more_is_let_go_and_nothing_else() {
        let mut rig = rig(&[]);
        rig.ask("QUEUE.PUT.own", "", r#"{"adopt":{"stream":"S","consumer":"mine","configured":true}}"#);
        restart(&mut rig, &[("a", "c"), ("b", "d")]);
        assert_eq!(adopted(&rig), [("a", "c"), ("b", "d"), ("own", "mine")]);
        // Under another name, the same consumer goes from one queue to the other.
        restart(&mut rig, &[("z", "c"), ("b", "d")]);
        rig.pass(SOON * 2);
        assert_eq!(adopted(&rig), [("b", "d"), ("own", "mine"), ("z", "c")]);
        assert_eq!(rig.desk.queues["a"].config, QueueConfig::default());
        restart(&mut rig, &[]);
        assert_eq!(adopted(&rig), [("own", "mine")]);
        // Settings that somebody gave it are kept.
        rig.ask("QUEUE.PUT.k", "", r#"{"retention_s":5}"#);
        restart(&mut rig, &[("k", "c")]);
        assert_eq!(adopted(&rig), [("k", "c"), ("own", "mine")]);
        restart(&mut rig, &[]);
        assert_eq!(rig.desk.queues["k"].config, QueueConfig { retention_s: 5.0, ..QueueConfig::default() });
    }
}
