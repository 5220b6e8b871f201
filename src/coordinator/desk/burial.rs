//! From a dead message of an adopted stream to a letter, and back: a requeued letter's message is published to its subject
//! again and followed to its end.

use super::adopt::Corpse;
use super::calls::{Answer, Call};
use super::services::Request;
use super::{Busy, Desk, Input, Output, Parcel};
use crate::client::{JetStreamError, StoredEntry, decode_ack};
use crate::coordinator::names;
use crate::coordinator::queue::Mode;
use crate::coordinator::record::{self, Fault, Origin, Phase, Record};
use crate::coordinator::task::Event;
use crate::types::Headers;

impl Desk {
    /// Stores the letter of a message: `None` is one that has left its stream already.
    pub(super) fn bury_with(&mut self, queue: &str, corpse: Corpse, entry: Option<StoredEntry>) {
        let now = self.now;
        let Some(adopted) =
            self.adoptions.by_queue.get(queue).filter(|adopted| !adopted.tasks.contains_key(&corpse.seq))
        else {
            self.adoptions.burials -= 1;
            return self.forget_advisory(corpse.advisory);
        };
        let Some(id) = adopted.letter_id(queue, corpse.seq) else {
            self.adoptions.burials -= 1;
            return self.bury_later(queue, &corpse);
        };
        let stream = adopted.adopt.stream.clone();
        if self.ids.contains_key(&id) {
            self.adoptions.burials -= 1;
            return self.forget_advisory(corpse.advisory);
        }
        let entry = entry.unwrap_or(StoredEntry {
            seq: 0,
            time: now,
            subject: String::new(),
            headers: bytes::Bytes::new(),
            payload: bytes::Bytes::new(),
        });
        let too_large = entry.payload.len() > self.settings.body_bytes_max;
        let lost = entry.seq == 0 || too_large;
        let body = if too_large { bytes::Bytes::new() } else { entry.payload };
        let mut error = corpse.error;
        if lost {
            error.push_str(if too_large {
                "; too large to be copied"
            } else {
                "; it left its stream before it was copied"
            });
        }
        let mut record = Record {
            id,
            queue: queue.to_owned(),
            mode: Mode::Adopted,
            run: 1,
            attempt: corpse.deliveries,
            max_attempts: corpse.deliveries.max(1),
            priority: 5,
            created: entry.time,
            updated: now,
            lease: self.random.token(12).into(),
            digest: record::digest(&body),
            bytes: body.len(),
            reason: error.as_str().into(),
            fault: Some(Box::new(Fault { error, attempt: corpse.deliveries, at: now, ..Fault::default() })),
            origin: Some(Box::new(Origin {
                stream,
                subject: entry.subject,
                seq: corpse.seq,
                lost,
                ..Origin::default()
            })),
            ..Record::default()
        };
        record.set_phase(Phase::Dead);
        let index = self.insert_task(record.clone(), 0);
        self.queue_mut(queue).open += 1;
        self.know_origin(index);
        self.payload_bytes += body.len();
        if let Some(task) = self.task_mut(index) {
            let lines = names::user_lines(Headers::new(&entry.headers));
            task.payload = Some(Box::new(Parcel { lines, body }));
            task.advisory = corpse.advisory;
        }
        self.commit(index, record, Some(Input { event: Event::Due, from: None, purge: None }), true);
    }

    /// A message that is followed already.
    pub(super) fn dies_again(&mut self, index: u32, corpse: Corpse) {
        let Some(task) = self.task_mut(index) else { return };
        let following = matches!(task.record.phase, Phase::Queued | Phase::Running)
            && task.record.origin.as_ref().is_some_and(|origin| origin.seq == corpse.seq);
        if !following {
            // Being stored, or long known.
            if task.revision > 0 {
                self.forget_advisory(corpse.advisory);
            }
            return;
        }
        task.advisory = corpse.advisory;
        let event = match corpse.terminated {
            true => Event::PullTerminated { delivery: corpse.deliveries, error: corpse.error },
            false => Event::DeliveriesUsed { deliveries: corpse.deliveries },
        };
        self.enqueue_event(index, event);
    }

    /// An adopted message's task has entered a phase, which is stored.
    pub(super) fn settle_adopted(&mut self, index: u32, is_new: bool) {
        let Some(task) = self.task_mut(index) else { return };
        let phase = task.record.phase;
        if phase == Phase::Dead {
            let advisory = std::mem::take(&mut task.advisory);
            self.forget_advisory(advisory);
        }
        if is_new {
            self.adoptions.burials = self.adoptions.burials.saturating_sub(1);
            self.read_advisories();
        } else if phase == Phase::Queued {
            self.republish(index);
        }
    }

    /// Its letter could not be stored.
    pub(super) fn not_buried(&mut self, record: &Record, advisory: u64) {
        self.adoptions.burials = self.adoptions.burials.saturating_sub(1);
        let seq = record.origin.as_ref().map_or(0, |origin| origin.seq);
        let corpse = Corpse { seq, error: String::new(), deliveries: 0, terminated: false, advisory };
        self.bury_later(&record.queue, &corpse);
    }

    /// Finds the task by its message from now on.
    pub(super) fn know_origin(&mut self, index: u32) {
        let Some(record) = self.tasks.get(index as usize).and_then(Option::as_ref).map(|task| &task.record) else {
            return;
        };
        let Some(origin) = &record.origin else { return };
        if let Some(adopted) = self.adoptions.by_queue.get_mut(&record.queue) {
            adopted.tasks.insert(if origin.seq > 0 { origin.seq } else { origin.was }, index);
        }
    }

    pub(super) fn forget_origin(&mut self, record: &Record, index: u32) {
        if record.origin.is_some()
            && let Some(adopted) = self.adoptions.by_queue.get_mut(&record.queue)
        {
            adopted.tasks.retain(|_, known| *known != index);
        }
    }

    /// In a work queue a dead message lies for ever; when its letter is purged or it was published again, it goes.
    pub(super) fn drop_original(&mut self, queue: &str, seq: u64) {
        let Some(adopted) = self.adoptions.by_queue.get(queue).filter(|adopted| adopted.is_work_queue()) else {
            return;
        };
        let api = format!("STREAM.MSG.DELETE.{}", adopted.adopt.stream);
        self.call_api(Call::Unimportant, &api, &serde_json::json!({ "seq": seq, "no_erase": true }));
    }

    /// As [`Desk::drop_original`], of a letter that is purged, which is forgotten once its message is out: as long as the
    /// letter is there, whoever looks for dead messages knows this one. False when there is nothing to take out.
    pub(super) fn drops_first(&mut self, index: u32) -> bool {
        let Some(task) = self.task(index) else { return false };
        let (serial, queue) = (task.serial, task.record.queue.clone());
        let Some(origin) = task.record.origin.as_ref().filter(|_| task.record.forget) else { return false };
        let seq = if origin.seq > 0 { origin.seq } else { origin.was };
        let Some(adopted) = self.adoptions.by_queue.get_mut(&queue) else { return false };
        if adopted.is_unknown() {
            // Whether its stream is a work queue is being asked.
            adopted.undecided.push((index, serial));
        } else if adopted.is_work_queue() {
            let api = format!("STREAM.MSG.DELETE.{}", adopted.adopt.stream);
            let body = serde_json::json!({ "seq": seq, "no_erase": true });
            self.call_api(Call::Dropped { task: index, serial }, &api, &body);
        } else {
            return false;
        }
        let retry_at = self.now + self.settings.call_timeout;
        if let Some(task) = self.task_mut(index) {
            task.busy = Some(Busy::Dropping);
            task.retry_at = retry_at;
        }
        self.arm(index);
        true
    }

    pub(super) fn dropped(&mut self, index: u32, serial: u64, answer: &Answer) {
        // An error says that it is not there; who was not heard is asked again.
        let over = matches!(answer, Answer::Message(message) if !message.is_no_responders());
        let Some(task) = self.same_task(index, serial).filter(|_| over) else { return };
        task.busy = None;
        if task.line.is_empty() {
            self.forget_task(index);
        } else {
            self.drain(index);
        }
    }

    /// Publishes a requeued letter's message, once that is stored; again until its stream has said where it is.
    pub(super) fn republish(&mut self, index: u32) {
        let Some(task) = self.task(index) else { return };
        let (serial, record) = (task.serial, &task.record);
        let due = record.phase == Phase::Queued && record.origin.as_ref().is_some_and(|origin| origin.seq == 0);
        if !due {
            return;
        }
        let Some(request) = task.request.clone() else {
            let key = names::payload_key(&record.id);
            return self.call_direct_get(Call::RepublishBody { task: index, serial }, &key);
        };
        let call = self.open_call(Call::Republished { task: index, serial });
        self.outputs.push(Output::Publish {
            subject: bytes::Bytes::from(request.subject),
            call: Some(call),
            headers: names::block(&request.lines),
            payload: request.body,
        });
    }

    pub(super) fn republish_body_answered(&mut self, index: u32, serial: u64, answer: &Answer) {
        let retry_at = self.now + self.settings.call_timeout;
        let Some(task) = self.same_task(index, serial) else { return };
        match super::answers::stored(answer) {
            Ok(Some(entry)) => {
                let lines = names::user_lines(Headers::new(&entry.headers));
                task.request = republication(&task.record, &Parcel { lines, body: entry.payload }).map(Box::new);
                self.republish(index);
            }
            Ok(None) => self.enqueue_event(index, Event::PayloadLost),
            Err(_) => {
                task.retry_at = retry_at;
                self.arm(index);
            }
        }
    }

    pub(super) fn republished(&mut self, index: u32, serial: u64, answer: &Answer) {
        let retry_at = self.now + self.settings.call_timeout;
        let Some(task) = self.same_task(index, serial) else { return };
        let outcome = match answer {
            Answer::Message(message) if message.is_no_responders() => {
                Err(Some("no stream takes its subject".to_owned()))
            }
            Answer::Message(message) => decode_ack(message).map(|ack| ack.seq).map_err(|error| match error {
                JetStreamError::Api(error) => Some(error.description.to_string()),
                _ => None,
            }),
            _ => Err(None),
        };
        match outcome {
            Ok(seq) if task.busy.is_none() && task.record.phase == Phase::Queued => {
                let mut next = task.record.clone();
                let Some(origin) = &mut next.origin else { return };
                origin.seq = seq;
                let (was, queue) = (origin.was, next.queue.clone());
                if was != seq {
                    self.drop_original(&queue, was);
                }
                self.commit(index, next, None, false);
            }
            Err(Some(reason)) => {
                let error = format!("cannot be published again: {reason}");
                self.enqueue_event(index, Event::PullTerminated { delivery: 0, error });
            }
            _ => {
                task.retry_at = retry_at;
                self.arm(index);
            }
        }
    }
}

/// The message of a requeued letter. `Retry-Count` is what its workers may read; the message id lets its stream know it again.
pub(super) fn republication(record: &Record, parcel: &Parcel) -> Option<Request> {
    let origin = record.origin.as_ref()?;
    let mut count = 0_u64;
    let mut lines = String::new();
    for line in parcel.lines.split_inclusive("\r\n") {
        match line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("Retry-Count")) {
            Some((_, value)) => count = value.trim().parse().unwrap_or(0),
            None => lines.push_str(line),
        }
    }
    let Record { id, run, .. } = record;
    let stream = &origin.stream;
    lines.push_str(&format!(
        "Retry-Count: {}\r\nTask-Id: {id}\r\nTask-Run: {run}\r\nNats-Msg-Id: task.{id}.{run}\r\n\
         Nats-Expected-Stream: {stream}\r\n",
        count.saturating_add(1)
    ));
    Some(Request { subject: origin.subject.clone(), lines, body: parcel.body.clone() })
}

/// What a letter tells of where its message was.
pub(super) fn origin_lines(record: &Record) -> String {
    let Some(Origin { stream, subject, seq, was, .. }) = record.origin.as_deref() else { return String::new() };
    let seq = if *seq > 0 { seq } else { was };
    format!("Task-Stream: {stream}\r\nTask-Stream-Seq: {seq}\r\nTask-Subject: {subject}\r\n")
}
