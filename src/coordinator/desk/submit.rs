//! SUBMIT: from a body and `Task-*` headers to a stored record.

use super::crons::Firing;
use super::{Busy, Desk, Input, Parcel};
use crate::client::Incoming;
use crate::coordinator::backoff::Backoff;
use crate::coordinator::labels::Requirement;
use crate::coordinator::queue::{Mode, Paused, QueueConfig};
use crate::coordinator::record::{self, Phase, Record};
use crate::coordinator::scheduler::ClassKey;
use crate::coordinator::seconds::{self, SECONDS_MAX};
use crate::coordinator::task::Event;
use crate::coordinator::{errors, names};
use crate::types::{ApiError, Headers, Timestamp, subject};

/// Steps of a task's own backoff.
const BACKOFF_MAX: usize = 32;
/// Tasks that one may wait for.
const AFTER_MAX: usize = 100;
/// Headers that travel with a task: they are in its record and in all that is told of it.
const HEADERS_BYTES_MAX: usize = 8 << 10;
/// Nobody tells when a worker that knows nothing of tasks began with one for the second time.
const TIMEOUT_IN_PULL_QUEUE: &str = "Task-Timeout is for tasks that are given to agents, and nobody does that in a queue of \
                                     mode pull: set Task-Deadline, or lease_s and max_attempts of the queue";

impl Desk {
    pub(super) fn submit(&mut self, message: &Incoming) -> Result<(), ApiError> {
        let headers = message.headers();
        let given = headers.get_str("Task-Id");
        if let Some(id) = given {
            if !record::is_id(id) {
                return Err(errors::bad_request("Task-Id is one token of A-Z a-z 0-9 _ -, up to 64"));
            }
            if let Some(index) = self.ids.get(id).copied() {
                return self.submit_again(index, message);
            }
        }
        let id = given.map_or_else(|| self.random.token(22), str::to_owned);
        let mut record = self.new_record(headers, message.payload(), id, false)?;
        if !self.check_after(&mut record, message)? {
            return Ok(());
        }
        let parcel = Parcel { lines: names::user_lines(headers), body: message.payload_bytes() };
        self.begin_task(record, parcel, Some(message), None);
        Ok(())
    }

    /// The record of a task to be submitted now, or of one that is only `tried`: then its queue may be full.
    ///
    /// # Errors
    /// What the headers say that cannot be; that the queue does not take it now.
    pub(super) fn new_record(
        &mut self,
        headers: Headers<'_>,
        body: &[u8],
        id: String,
        tried: bool,
    ) -> Result<Record, ApiError> {
        if body.len() > self.settings.body_bytes_max {
            let limit = self.settings.body_bytes_max;
            return Err(errors::TOO_LARGE.with(format!("the body is above {limit} bytes")));
        }
        let queue = headers.get_str("Task-Queue").unwrap_or(names::DEFAULT_QUEUE);
        if !record::is_id(queue) {
            return Err(errors::bad_request("Task-Queue is one token of A-Z a-z 0-9 _ -, up to 64"));
        }
        let config = self.queue_config(queue).clone();
        let mut record = read_headers(headers, &config, self.now)?;
        record.created = self.submitted_at();
        if !record.result_to.is_empty() && !self.may_send_to(&record.result_to) {
            let allowed = self.settings.result_subjects.join(", ");
            let reason = format!("Task-Result-To is below {allowed} (result_subjects of the coordinator)");
            return Err(errors::NOT_PERMITTED.with(reason));
        }
        if let Some(adopt) = &config.adopt {
            let reason = format!("the tasks of this queue are what is published to the stream {}", adopt.stream);
            return Err(errors::bad_request(reason));
        }
        if config.mode == Mode::Pull && record.timeout().is_some() {
            return Err(errors::bad_request(TIMEOUT_IN_PULL_QUEUE));
        }
        let lines = names::user_lines(headers);
        if lines.len() > HEADERS_BYTES_MAX {
            return Err(
                errors::TOO_LARGE.with(format!("the headers that are not ours are above {HEADERS_BYTES_MAX} bytes"))
            );
        }
        record.headers = lines.lines().map(str::to_owned).collect();
        if tried {
            return Ok(record);
        }
        if config.paused == Paused::Refusing {
            return Err(errors::PAUSED);
        }
        if config.max_queued > 0 && self.queue_open(queue) >= config.max_queued {
            return Err(errors::QUEUE_FULL);
        }
        self.check_parent(&record)?;
        record.id = id;
        record.queue = queue.to_owned();
        record.digest = record::digest(body);
        record.bytes = body.len();
        if config.mode == Mode::Pull {
            record.lease = self.random.token(12).into();
        }
        if headers.get_str("Task-Must-Match").is_some_and(|value| value == "true" || value == "1") {
            let class = class_of(&record);
            if config.mode.is_assigned() && !self.roster.iter().any(|(_, agent)| class.matches(agent)) {
                return Err(errors::NO_MATCHING_AGENT);
            }
        }
        Ok(record)
    }

    /// Stores a new task; one that an agent can take at once is stored as assigned already.
    pub(super) fn begin_task(
        &mut self,
        record: Record,
        parcel: Parcel,
        message: Option<&Incoming>,
        firing: Option<Firing>,
    ) {
        let mut next = record;
        let index = self.insert_task(next.clone(), 0);
        self.queue_mut(&next.queue).open += 1;
        // Whoever waits and can be served now comes before a newcomer.
        self.assign_ready();
        if next.phase == Phase::Queued && next.mode.is_assigned() && self.queue_admits(&next.queue) {
            let class = class_of(&next);
            if let Some(agent) = self.ready.direct(&class, &next.key, &mut self.roster) {
                let lease = self.random.token(12);
                let agent_id = self.reserve(agent, index);
                self.spend_token(index);
                let assign = Event::Assign { agent: agent_id, lease };
                let pauses = Backoff::default();
                let mut context =
                    crate::coordinator::task::Context { now: self.now, pauses: &pauses, random: &mut self.random };
                if let Ok(Some(assigned)) = next.handle(&assign, &mut context) {
                    next = assigned;
                }
            }
        }
        let bytes = parcel.body.len();
        self.payload_bytes += bytes;
        if let Some(task) = self.task_mut(index) {
            task.payload = Some(Box::new(parcel));
            task.firing = firing.map(Box::new);
        }
        let input = Input { event: Event::Due, from: message.cloned(), purge: None };
        self.commit(index, next, Some(input), true);
        if self.payload_bytes > self.settings.payload_bytes_max {
            self.drop_payload(index);
        }
    }

    /// Whether results may go to `subject`. The coordinator publishes them with rights of its own, so this must hold for
    /// everybody who may submit.
    pub(super) fn may_send_to(&self, subject: &str) -> bool {
        let mut filters = self.settings.result_subjects.iter();
        !subject.starts_with('$') && filters.any(|filter| subject::matches(filter.as_bytes(), subject.as_bytes()))
    }

    /// The same id again: no change for the same body, a refusal for another.
    fn submit_again(&mut self, index: u32, message: &Incoming) -> Result<(), ApiError> {
        let Some(task) = self.task_mut(index) else { return Err(errors::TASK_NOT_FOUND) };
        if task.record.digest != record::digest(message.payload()) {
            return Err(errors::SAME_ID_OTHER_BODY);
        }
        // Not before the first one is stored.
        if task.revision == 0 && matches!(task.busy, Some(Busy::Committing(_) | Busy::Reloading(_))) {
            task.line.push_back(Input { event: Event::Due, from: Some(message.clone()), purge: None });
        } else {
            self.respond_state(index, message, Some(true));
        }
        Ok(())
    }
}

/// Who may serve a task.
pub(super) fn class_of(record: &Record) -> ClassKey {
    ClassKey {
        queue: record.queue.clone(),
        requires: Requirement::parse(&record.requires).unwrap_or_default(),
        prefer: Requirement::parse(&record.prefer).unwrap_or_default(),
        excluded: record.excluded.to_vec(),
        sticky: record.sticky.clone().into(),
        hard: record.hard,
        asker: String::new(),
    }
}

fn read_headers(headers: Headers<'_>, config: &QueueConfig, now: Timestamp) -> Result<Record, ApiError> {
    let text = |name: &str| headers.get_str(name).unwrap_or_default();
    let mut record = Record {
        mode: config.mode,
        run: 1,
        max_attempts: config.max_attempts,
        priority: 5,
        created: now,
        updated: now,
        ..Record::default()
    };
    for name in ["Task-Requires", "Task-Prefer"] {
        let value = text(name);
        Requirement::parse(value).map_err(|reason| errors::bad_request(format!("{name}: {reason}")))?;
        if value.len() > 1024 {
            return Err(errors::bad_request(format!("{name} is above 1024 bytes")));
        }
    }
    record.requires = text("Task-Requires").into();
    record.prefer = text("Task-Prefer").into();
    if let Some(value) = headers.get_str("Task-Priority") {
        let priority = value.parse().ok().filter(|priority| *priority <= 9);
        record.priority = priority.ok_or_else(|| errors::bad_request("Task-Priority is 0 to 9"))?;
    }
    if let Some(value) = headers.get_str("Task-Max-Attempts") {
        let attempts = value.parse().ok().filter(|attempts| (1..=1000).contains(attempts));
        record.max_attempts = attempts.ok_or_else(|| errors::bad_request("Task-Max-Attempts is 1 to 1000"))?;
    }
    if let Some(value) = headers.get_str("Task-Timeout") {
        let timeout = names::seconds(value).filter(|seconds| *seconds <= SECONDS_MAX);
        record.timeout_s =
            timeout.ok_or_else(|| errors::bad_request("Task-Timeout is a duration of up to ten years"))?;
    }
    if let Some(value) = headers.get_str("Task-Backoff") {
        let steps: Option<Vec<f64>> = value.split(',').map(|step| names::seconds(step.trim())).collect();
        let steps = steps.ok_or_else(|| errors::bad_request("Task-Backoff is durations joined by commas"))?;
        record.backoff = steps.into();
        if record.backoff.len() > BACKOFF_MAX {
            return Err(errors::bad_request(format!("Task-Backoff has more than {BACKOFF_MAX} steps")));
        }
        Backoff::from_seconds(&record.backoff).map_err(errors::bad_request)?;
    }
    for id in text("Task-After").split(',').map(str::trim).filter(|id| !id.is_empty()) {
        if !record::is_id(id) {
            return Err(errors::bad_request("Task-After is ids of tasks joined by commas"));
        }
        if !record.after.iter().any(|known| known == id) {
            record.after.push(id.to_owned());
        }
    }
    if record.after.len() > AFTER_MAX {
        return Err(errors::bad_request(format!("Task-After names more than {AFTER_MAX} tasks")));
    }
    record.deadline = time(headers, "Task-Deadline", now)?;
    let not_before = time(headers, "Task-Not-Before", now)?;
    if not_before > now {
        record.set_phase(Phase::Scheduled);
        record.wake = not_before;
    } else {
        record.set_phase(Phase::Queued);
        record.queued = now;
    }
    record.hard = match headers.get_str("Task-Sticky-Mode") {
        None | Some("soft") => false,
        Some("hard") => true,
        Some(_) => return Err(errors::bad_request("Task-Sticky-Mode is soft or hard")),
    };
    if record.hard && text("Task-Sticky").is_empty() {
        return Err(errors::bad_request("Task-Sticky-Mode without Task-Sticky"));
    }
    for (name, field) in
        [("Task-Key", &mut record.key), ("Task-Parent", &mut record.parent), ("Task-Sticky", &mut record.sticky)]
    {
        if text(name).len() > 256 {
            return Err(errors::bad_request(format!("{name} is above 256 bytes")));
        }
        *field = text(name).into();
    }
    if let Some(value) = headers.get_str("Task-Result-To") {
        let fine = subject::is_valid_literal(value.as_bytes()) && !value.starts_with('$');
        record.result_to = if fine { value } else { "" }.into();
        if !fine {
            return Err(errors::bad_request("Task-Result-To is a subject without wildcards, not below $"));
        }
        // Whoever asks from another account has no rights here at all (the header is the broker's own).
        if headers.get("Nats-Request-Info").is_some() {
            let reason = "Task-Result-To of a request from another account; AWAIT answers there";
            return Err(errors::NOT_PERMITTED.with(reason));
        }
    }
    Ok(record)
}

/// A time as RFC 3339, or as a duration from now.
fn time(headers: Headers<'_>, name: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let Some(value) = headers.get_str(name) else { return Ok(Timestamp::ZERO) };
    let from_now = || {
        let seconds = names::seconds(value).filter(|seconds| *seconds <= SECONDS_MAX)?;
        Some(now + seconds::duration(seconds))
    };
    Timestamp::parse_rfc3339(value)
        .or_else(from_now)
        .ok_or_else(|| errors::bad_request(format!("{name} is an RFC 3339 time or a duration of up to ten years")))
}

#[cfg(test)]
mod tests {
    use crate::coordinator::desk::Settings;
    use crate::coordinator::desk::rig::Rig;
    use crate::coordinator::record::Phase;

    #[test]
    fn a_pull_queue_takes_no_timeouts_but_deadlines() {
        let mut rig = Rig::new(Settings::default());
        rig.ask("QUEUE.PUT.p", "", r#"{"mode":"pull"}"#);
        let timeout = "Task-Queue: p\r\nTask-Timeout: 5s\r\n";
        let cron = format!("{timeout}Task-Schedule: @every 1h\r\n");
        for refused in [rig.ask("SUBMIT", timeout, ""), rig.ask("CRON.PUT.c", &cron, "")] {
            assert_eq!(refused["error"]["err_code"], 30400);
            let said = refused["error"]["description"].as_str().unwrap();
            assert!(said.contains("set Task-Deadline, or lease_s and max_attempts of the queue"), "{said}");
        }
        rig.ask("SUBMIT", "Task-Id: t\r\nTask-Queue: p\r\nTask-Deadline: 5s\r\n", "");
        rig.pass(std::time::Duration::from_secs(6));
        assert_eq!(rig.record("t").phase, Phase::Dead);
        rig.ask("QUEUE.PUT.i", "", "{}");
        assert_eq!(rig.ask("SUBMIT", "Task-Queue: i\r\nTask-Timeout: 5s\r\n", "")["state"], "submitted");
    }
}
