//! DIRECT.GET: messages without JSON around them (ADR-31), and where reads by clients find what is durable.

use tracing::error;

use super::call::TRIES_MAX;
use super::commit::Release;
use super::service;
use super::stream_task::StreamTask;
use crate::api::{DirectGet, DirectGetError, Endpoint, MsgGet, direct_headers, end_of_batch, next_in_batch};
use crate::broker::Inbound;
use crate::stream::Filter;
use crate::types::{StoredMessage, subject};

/// Most subjects one request may get the last messages of (nats-server `getDirectMulti`).
const MULTI_RESULTS_MAX: usize = 1024;

/// What a read found.
pub(super) enum Look {
    Found(StoredMessage),
    Missing,
    /// It is there and not durable yet: ask again after the next commit.
    NotYet,
}

/// What a direct get led to.
enum Outcome {
    Done,
    NotYet,
    Refused(DirectGetError),
}

impl StreamTask {
    /// Reads one message for a client.
    pub(super) fn look(&self, seq: Option<u64>) -> Look {
        let Some(seq) = seq else { return Look::Missing };
        if seq > self.visible {
            return Look::NotYet;
        }
        match self.contents.read(seq) {
            Ok(Some(stored)) => Look::Found(stored),
            Ok(None) => Look::Missing,
            Err(error) => {
                error!(stream = %self.shared.name, seq, %error, "a message cannot be read");
                Look::Missing
            }
        }
    }

    /// The last message of a subject, or of all that a filter matches.
    pub(super) fn last_of(&self, wanted: &str) -> Option<u64> {
        let index = self.contents.stream.index();
        match subject::has_wildcard(wanted.as_bytes()) {
            false => index.last_for(wanted.as_bytes()),
            true => index.last_per_subject(&mut Filter::new([wanted]), u64::MAX).last().copied(),
        }
    }

    /// Answers a direct get, or puts it off until what it asks for is durable.
    pub(super) fn direct_get(&mut self, request: Inbound, tries: u8) {
        if request.reply.is_empty() {
            return;
        }
        match self.try_direct_get(&request) {
            Outcome::Done => {}
            Outcome::NotYet if tries < TRIES_MAX => {
                self.turn.releases.push(Release::DirectGet { request, tries: tries + 1 });
            }
            Outcome::NotYet => self.refuse_direct_get(&request, DirectGetError::NotFound),
            Outcome::Refused(error) => self.refuse_direct_get(&request, error),
        }
    }

    fn refuse_direct_get(&mut self, request: &Inbound, error: DirectGetError) {
        self.courier.publish(&request.reply, b"", error.headers(), b"");
    }

    fn try_direct_get(&mut self, request: &Inbound) -> Outcome {
        if service::required_level_missing(request) {
            return Outcome::Refused(DirectGetError::ApiLevel);
        }
        let body = request.message.payload();
        let parsed = match Endpoint::parse(request.message.subject()) {
            Some(Endpoint::DirectGet(_)) => DirectGet::parse(body),
            Some(Endpoint::DirectGetLast(_, subject)) => DirectGet::parse_last(subject, body),
            _ => Err(DirectGetError::BadRequest),
        };
        let (get, options) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return Outcome::Refused(error),
        };
        let index = self.contents.stream.index();
        let (filter, from) = match get {
            DirectGet::Last(wanted) => return self.direct_one(request, &options, self.last_of(&wanted)),
            DirectGet::MultiLast { filters, from_seq, up_to_seq, up_to_time } => {
                let up_to = match up_to_time {
                    Some(time) => match index.seq_at_time(time) {
                        seq if seq <= index.first_seq() => return Outcome::Refused(DirectGetError::NoResults),
                        seq => seq - 1,
                    },
                    None if up_to_seq > 0 => up_to_seq,
                    None => index.last_seq(),
                };
                // An empty one, which elsewhere stands for everything, is no subject here.
                let filters: Vec<String> = filters.into_iter().filter(|filter| !filter.is_empty()).collect();
                if filters.is_empty() {
                    return Outcome::Refused(DirectGetError::NoResults);
                }
                return self.direct_multi(request, &options, &filters, from_seq, up_to);
            }
            DirectGet::Seq(seq) if options.batch == 0 => {
                return self.direct_one(request, &options, index.exists(seq).then_some(seq));
            }
            DirectGet::Seq(seq) => (Filter::all(), seq),
            DirectGet::Time(time) => (Filter::all(), index.seq_at_time(time)),
            DirectGet::Next { filter, seq } => (Filter::new([filter]), seq),
            DirectGet::NextFromTime { filter, time } => (Filter::new([filter]), index.seq_at_time(time)),
        };
        if options.batch == 0 {
            let mut filter = filter;
            return self.direct_one(request, &options, index.next(from.max(1), &mut filter));
        }
        self.direct_batch(request, &options, filter, from.max(1))
    }

    fn direct_one(&mut self, request: &Inbound, options: &MsgGet, seq: Option<u64>) -> Outcome {
        match self.look(seq) {
            Look::Found(stored) => {
                let headers = if options.no_hdr { Vec::new() } else { direct_headers(&self.shared.name, &stored) };
                let message = &stored.message;
                let to = &request.reply;
                match self.courier.answer_stored(to, message.subject(), &headers, message.payload()) {
                    // Who may not have it is told what it would be told if there were none.
                    0 => Outcome::Refused(DirectGetError::NotFound),
                    _ => Outcome::Done,
                }
            }
            Look::NotYet => Outcome::NotYet,
            Look::Missing => Outcome::Refused(DirectGetError::NotFound),
        }
    }

    /// `batch` messages from `from` on, then a status that says how many are left.
    fn direct_batch(&mut self, request: &Inbound, options: &MsgGet, mut filter: Filter, from: u64) -> Outcome {
        let budget = self.direct_budget(options);
        let mut pending = self.contents.stream.index().count_from(from, &mut filter);
        let (mut next, mut last_seq, mut sent_bytes, mut sent) = (from, 0, 0, 0);
        while sent < options.batch && sent_bytes < budget {
            let seq = self.contents.stream.index().next(next, &mut filter);
            let stored = match self.look(seq) {
                Look::Found(stored) => stored,
                Look::NotYet if sent == 0 => return Outcome::NotYet,
                Look::Missing if sent == 0 => return Outcome::Refused(DirectGetError::NotFound),
                Look::NotYet | Look::Missing => break,
            };
            pending = pending.saturating_sub(1);
            self.send_in_batch(request, options.no_hdr, &stored, pending, last_seq);
            sent_bytes += stored.message.as_bytes().len();
            sent += 1;
            last_seq = stored.seq;
            next = stored.seq + 1;
        }
        let end = end_of_batch(pending, last_seq, None);
        self.courier.publish(&request.reply, b"", &end, b"");
        Outcome::Done
    }

    /// The last message of each subject that one of `filters` matches, as things stood at `up_to`.
    fn direct_multi(
        &mut self,
        request: &Inbound,
        options: &MsgGet,
        filters: &[String],
        from: u64,
        up_to: u64,
    ) -> Outcome {
        let budget = self.direct_budget(options);
        let mut filter = Filter::new(filters);
        let mut seqs = self.contents.stream.index().last_per_subject(&mut filter, up_to);
        // As nats-server counts, those before `from` too.
        if seqs.len() > MULTI_RESULTS_MAX {
            return Outcome::Refused(DirectGetError::TooManyResults);
        }
        seqs.retain(|seq| *seq >= from);
        if seqs.is_empty() {
            return Outcome::Refused(DirectGetError::NoResults);
        }
        if seqs.last().is_some_and(|last| *last > self.visible) {
            return Outcome::NotYet;
        }
        let (mut last_seq, mut sent_bytes, mut sent) = (0, 0, 0);
        let mut pending = seqs.len() as u64;
        for seq in seqs {
            let Look::Found(stored) = self.look(Some(seq)) else { continue };
            pending -= 1;
            // As in nats-server, `no_hdr` is for the other kinds of requests.
            self.send_in_batch(request, false, &stored, pending, last_seq);
            sent_bytes += stored.message.as_bytes().len();
            sent += 1;
            last_seq = seq;
            if sent_bytes >= budget || (options.batch > 0 && sent >= options.batch) {
                break;
            }
        }
        let end = end_of_batch(pending, last_seq, Some(up_to));
        self.courier.publish(&request.reply, b"", &end, b"");
        Outcome::Done
    }

    fn send_in_batch(
        &mut self,
        request: &Inbound,
        without_headers: bool,
        stored: &StoredMessage,
        pending: u64,
        last_seq: u64,
    ) {
        let headers = match without_headers {
            true => Vec::new(),
            false => next_in_batch(&self.shared.name, stored, pending, last_seq),
        };
        let message = &stored.message;
        self.courier.answer_stored(&request.reply, message.subject(), &headers, message.payload());
    }

    fn direct_budget(&self, options: &MsgGet) -> usize {
        match usize::try_from(options.max_bytes) {
            Ok(bytes) if bytes > 0 => bytes.min(self.context.broker.options().pending_bytes_max),
            _ => self.context.broker.options().pending_bytes_max / 4,
        }
    }
}
