//! QUEUE.PUT, PAUSE, RESUME, INFO and LIST, and the counters that limits need.

use super::Desk;
use super::adopt::Adopted;
use super::calls::{Answer, Call};
use super::page::Wanted;
use crate::client::{BatchEntry, Incoming, decode_ack};
use crate::coordinator::queue::{Mode, Paused, QueueConfig};
use crate::coordinator::rate::Bucket;
use crate::coordinator::{errors, names, record};
use crate::types::{ApiError, Timestamp};

/// Until when a pull queue's consumer is paused: until it is resumed.
const FAR: Timestamp = Timestamp(7_258_118_400_000_000_000);

/// A queue at run time.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub config: QueueConfig,
    /// The settings on their way to the store, which the next change builds on.
    pub coming: Option<Box<QueueConfig>>,
    /// Whether QUEUE.PUT made it, rather than the first task.
    pub stored: bool,
    /// Tasks not finished.
    pub open: u32,
    /// Tasks that hold an agent's slot.
    pub running: u32,
    /// A consumer info of it is under way.
    pub asked: bool,
    pub bucket: Bucket,
}

impl Queue {
    /// Whether it may run one more now.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.has_room() && self.bucket.admits(self.config.rate, now)
    }

    fn has_room(&self) -> bool {
        self.config.paused == Paused::No && (self.config.max_running == 0 || self.running < self.config.max_running)
    }

    /// When its rate lets it run one more, if nothing else holds it back.
    pub fn next_token(&self, now: Timestamp) -> Option<Timestamp> {
        let late = self.has_room() && !self.bucket.admits(self.config.rate, now);
        late.then(|| self.bucket.next(self.config.rate, now))
    }
}

impl Desk {
    pub(super) fn queue_config(&self, queue: &str) -> &QueueConfig {
        self.queues.get(queue).map_or(&self.default_queue, |queue| &queue.config)
    }

    pub(super) fn queue_mut(&mut self, queue: &str) -> &mut Queue {
        self.queues.entry_ref(queue).or_default()
    }

    pub(super) fn queue_open(&self, queue: &str) -> u32 {
        self.queues.get(queue).map_or(0, |queue| queue.open)
    }

    pub(super) fn queue_admits(&self, queue: &str) -> bool {
        self.queues.get(queue).is_none_or(|queue| queue.admits(self.now))
    }

    pub(super) fn queue_put(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        if !record::is_id(name) {
            return Err(errors::bad_request("a queue's name is one token of A-Z a-z 0-9 _ -, up to 64"));
        }
        let mut config: QueueConfig = match message.payload().trim_ascii() {
            [] => QueueConfig::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        if let Some(adopt) = &mut config.adopt {
            adopt.configured = false;
            if config.mode == Mode::Inbox {
                config.mode = Mode::Adopted;
            }
        }
        self.put_queue(name, config, message)
    }

    /// Stores a queue's settings, if they can be.
    pub(super) fn put_queue(
        &mut self,
        name: &str,
        mut config: QueueConfig,
        message: &Incoming,
    ) -> Result<(), ApiError> {
        config.check().map_err(errors::bad_request)?;
        let mut others = self.adoptions.by_queue.iter().filter(|(queue, _)| *queue != name);
        let is_same = |adopted: &Adopted| config.adopt.as_ref().is_some_and(|adopt| adopt.is(&adopted.adopt));
        if let Some((other, _)) = others.find(|(_, adopted)| is_same(adopted)) {
            return Err(errors::bad_request(format!("queue {other} has adopted this consumer already")));
        }
        config.paused = self.coming_config(name).paused;
        if let Some(known) = self.queues.get(name).filter(|known| known.open > 0)
            && known.config.mode != config.mode
        {
            return Err(errors::bad_request("the mode cannot change while the queue has open tasks"));
        }
        let (queue, request, boxed) = (name.to_owned(), message.clone(), Box::new(config.clone()));
        self.queue_mut(name).coming = Some(boxed.clone());
        if config.mode == Mode::Pull {
            self.call_create_queue_consumer(&queue, &config, |queue| Call::QueueConsumer {
                queue,
                config: boxed,
                request,
            });
        } else {
            self.store_queue(queue, config, request);
        }
        Ok(())
    }

    pub(super) fn coming_config(&self, name: &str) -> QueueConfig {
        let known = self.queues.get(name);
        let config = known.and_then(|queue| queue.coming.as_deref()).or(known.map(|queue| &queue.config));
        config.unwrap_or(&self.default_queue).clone()
    }

    pub(super) fn queue_pause(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Body {
            refuse: bool,
        }
        let body: Body = match message.payload().trim_ascii() {
            [] => Body::default(),
            text => serde_json::from_slice(text).map_err(errors::bad_request)?,
        };
        self.queue_set_paused(name, if body.refuse { Paused::Refusing } else { Paused::Waiting }, message)
    }

    pub(super) fn queue_resume(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        self.queue_set_paused(name, Paused::No, message)
    }

    fn queue_set_paused(&mut self, name: &str, paused: Paused, message: &Incoming) -> Result<(), ApiError> {
        if !self.queues.contains_key(name) {
            return Err(errors::QUEUE_NOT_FOUND);
        }
        let config = QueueConfig { paused, ..self.coming_config(name) };
        if config.mode == Mode::Adopted {
            return Err(errors::bad_request("pause the consumer itself: its workers get nothing from this queue"));
        }
        self.queue_mut(name).coming = Some(Box::new(config.clone()));
        let (queue, request) = (name.to_owned(), message.clone());
        if config.mode == Mode::Pull {
            let until = if paused == Paused::No { Timestamp::ZERO } else { FAR };
            let api = format!("CONSUMER.PAUSE.{}.{}", names::STREAM, names::queue_consumer(name));
            let call = Call::QueueConsumer { queue, config: Box::new(config), request };
            self.call_api(call, &api, &serde_json::json!({ "pause_until": until }));
        } else {
            self.store_queue(queue, config, request);
        }
        Ok(())
    }

    fn call_create_queue_consumer(&mut self, queue: &str, config: &QueueConfig, call: impl FnOnce(String) -> Call) {
        let name = names::queue_consumer(queue);
        let mut body = serde_json::json!({
            "stream_name": names::STREAM,
            "config": {
                "durable_name": name,
                "name": name,
                "filter_subject": format!("$KV.TASK.w.{queue}.>"),
                "ack_policy": "explicit",
                "deliver_policy": "all",
                "ack_wait": config.lease().as_nanos() as u64,
                "max_deliver": config.max_attempts,
                "max_ack_pending": if config.max_running > 0 { i64::from(config.max_running) } else { 10_000 },
            },
        });
        if config.paused != Paused::No {
            body["config"]["pause_until"] = FAR.to_rfc3339().into();
        }
        let call = call(queue.to_owned());
        self.call_api(call, &format!("CONSUMER.CREATE.{}.{name}", names::STREAM), &body);
    }

    /// Makes sure a pull queue's consumer is there.
    pub(super) fn ensure_queue_consumer(&mut self, queue: &str) {
        let config = self.queue_config(queue).clone();
        self.call_create_queue_consumer(queue, &config, |_| Call::Unimportant);
    }

    pub(super) fn queue_consumer_answered(
        &mut self,
        queue: String,
        config: QueueConfig,
        request: Incoming,
        answer: Answer,
    ) {
        match super::answers::json(&answer) {
            Ok(_) => self.store_queue(queue, config, request),
            Err(reason) => self.queue_not_stored(&queue, &request, reason),
        }
    }

    fn queue_not_stored(&mut self, queue: &str, request: &Incoming, reason: String) {
        self.queue_mut(queue).coming = None;
        self.refuse(request, errors::UNAVAILABLE.with(reason));
    }

    fn store_queue(&mut self, queue: String, config: QueueConfig, request: Incoming) {
        let body = serde_json::to_vec(&config).expect("a queue's settings are plain data");
        let entries = vec![BatchEntry::new(names::queue_key(&queue), body)];
        self.call_batch(Call::QueueStored { queue, config: Box::new(config), request }, entries);
    }

    pub(super) fn queue_stored(&mut self, queue: String, config: QueueConfig, request: Incoming, answer: Answer) {
        let outcome = match &answer {
            Answer::Message(message) => decode_ack(message).map_err(|error| error.to_string()),
            _ => Err(answer.reason()),
        };
        if let Err(reason) = outcome {
            return self.queue_not_stored(&queue, &request, reason);
        }
        let coming = &mut self.queue_mut(&queue).coming;
        if coming.as_deref() == Some(&config) {
            *coming = None;
        }
        if config.mode == Mode::Service {
            self.discover_soon();
        }
        self.take_config(&queue, config);
        let shown = self.show_queue(&queue);
        self.announce_queue(&queue, shown.clone());
        self.respond(&request, shown);
    }

    /// Tells whoever listens how a queue is set now. Its dead tasks are told there as well, as tasks.
    fn announce_queue(&mut self, queue: &str, mut shown: serde_json::Value) {
        shown["type"] = "io.natterjack.task.event.v1.queue".into();
        shown["time"] = serde_json::to_value(self.now).expect("a time is plain data");
        self.publish(format!("$TASK.E.QUEUE.{queue}"), "", bytes::Bytes::from(shown.to_string()));
    }

    /// Makes settings that are stored the queue's.
    pub(super) fn take_config(&mut self, queue: &str, config: QueueConfig) {
        let order = config.order();
        let known = self.queue_mut(queue);
        let before = known.config.order();
        let mode = known.config.mode;
        let kept_less = config.retention_s < known.config.retention_s;
        known.config = config;
        known.stored = true;
        self.ready.arrange(queue, order);
        self.follow(queue, mode);
        if order.ageing != before.ageing {
            self.line_up_all(queue);
        }
        if kept_less {
            self.arm_finished(queue);
        }
        self.schedule = true;
    }

    /// Sets the timers of finished tasks, which may have to go earlier than they thought.
    fn arm_finished(&mut self, queue: &str) {
        for index in 0..self.tasks.len() as u32 {
            if self.task(index).is_some_and(|task| task.record.queue == queue && task.record.phase.is_final()) {
                self.arm(index);
            }
        }
    }

    fn show_queue(&self, name: &str) -> serde_json::Value {
        let queue = self.queues.get(name).cloned().unwrap_or_default();
        let mut shown = serde_json::to_value(&queue.config).expect("a queue's settings are plain data");
        shown["queue"] = name.into();
        shown["open"] = queue.open.into();
        shown["running"] = queue.running.into();
        if queue.config.mode == Mode::Pull {
            shown["stream"] = names::STREAM.into();
            shown["consumer"] = names::queue_consumer(name).into();
        }
        if queue.config.mode == Mode::Adopted {
            shown["adopted"] = self.show_adopted(name);
        }
        if queue.config.mode == Mode::Service {
            shown["services"] = self.show_services(name);
        }
        shown
    }

    pub(super) fn queue_info(&mut self, name: &str, message: &Incoming) -> Result<(), ApiError> {
        if !self.queues.contains_key(name) {
            return Err(errors::QUEUE_NOT_FOUND);
        }
        let shown = self.show_queue(name);
        self.respond(message, shown);
        Ok(())
    }

    pub(super) fn queue_list(&mut self, message: &Incoming) -> Result<(), ApiError> {
        let Wanted { limit, after } = Wanted::read(message)?;
        let mut names: Vec<&String> = self.queues.keys().filter(|name| **name > after).collect();
        names.sort();
        let page = self.page(names.iter().map(|name| self.show_queue(name)), limit.unwrap_or(usize::MAX));
        let left = names.len() - page.len();
        let mut fields = serde_json::json!({ "queues": page });
        if left > 0 {
            fields["left"] = left.into();
        }
        self.respond(message, fields);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::coordinator::desk::Settings;
    use crate::coordinator::desk::rig::Rig;

    #[test]
    fn a_queue_tells_how_it_is_set_and_what_died_in_it() {
        let mut rig = Rig::new(Settings::default());
        rig.ask("QUEUE.PUT.q", "", r#"{"max_running":3}"#);
        rig.ask("QUEUE.PAUSE.q", "", "");
        rig.ask("SUBMIT", "Task-Id: t\r\nTask-Queue: q\r\nTask-Deadline: 1s\r\n", "");
        rig.ask("QUEUE.RESUME.q", "", "");
        rig.pass(std::time::Duration::from_secs(2));
        let told = rig.published.iter().filter(|(subject, _)| subject == "$TASK.E.QUEUE.q");
        let told: Vec<Value> = told.map(|(_, body)| serde_json::from_slice(body).unwrap()).collect();
        let shown = |event: &Value| {
            let kind = event["type"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
            let what = if kind == "queue" { &event["paused"] } else { &event["phase"] };
            assert!(event["time"].is_string(), "{event}");
            (kind, what.as_str().unwrap_or("no").to_owned())
        };
        let expected = [("queue", "no"), ("queue", "waiting"), ("queue", "no"), ("task", "dead")];
        let expected = expected.map(|(kind, what)| (kind.to_owned(), what.to_owned()));
        assert_eq!(told.iter().map(shown).collect::<Vec<_>>(), expected);
        assert_eq!((&told[0]["queue"], &told[0]["max_running"]), (&"q".into(), &3.into()));
        assert_eq!((&told[3]["id"], &told[3]["error"]), (&"t".into(), &"deadline".into()));
        assert_eq!(told[1]["open"], 0);
        assert_eq!(told[2]["open"], 1);
    }
}
