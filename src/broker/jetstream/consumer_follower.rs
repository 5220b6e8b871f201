//! Following an origin through a consumer, as nats-server follows every origin (`setupMirrorConsumer`,
//! `trySetupSourceConsumer`, ADR-60): where the configuration names a consumer, where acks decide what the origin keeps,
//! and where the origin answers under another API prefix.
//!
//! Requests and deliveries go over the account's subjects. A delivery is answered, by flow control, when it is durable
//! here. Whatever goes wrong, a gap above all, the consumer is set up again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::follower::{End, Follower, UnderWay, settled};
use super::followers::Begin;
use super::mailbox::Mailbox;
use super::sourcing::Standing;
use super::sourcing_consumer::IDENTITY;
use crate::broker::{Courier, Inbound};
use crate::consumer::ack::DeliveryInfo;
use crate::consumer::{AckPolicy, ConsumerConfig, DeliverPolicy, GoDuration};
use crate::stream::source_name;
use crate::types::header::HeaderBuilder;
use crate::types::{ApiError, Headers, StoredMessage, Timestamp, id};

/// How long a consumer may take to be made, and one that is there to be reset.
const CREATE_MAX: Duration = Duration::from_secs(30);
const RESET_MAX: Duration = Duration::from_secs(5);
const HEARTBEAT: GoDuration = GoDuration::SECOND;
/// Silence after which the consumer counts as gone.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// Messages and bytes handed over at once.
const BATCH_MESSAGES_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
const API_PREFIX: &str = "$JS.API";
const LAST_CONSUMER_SEQ: &str = "Nats-Last-Consumer";
const LAST_STREAM_SEQ: &str = "Nats-Last-Stream";

/// A consumer that is ready to deliver.
struct Line {
    consumer: String,
    identity: Arc<str>,
    /// It has been through with everything up to here.
    delivered: u64,
    pending: u64,
    /// Where it delivers to; open since before it was asked for, so that nothing is missed.
    mailbox: Mailbox,
    /// Nobody else will use it.
    is_ephemeral: bool,
}

/// Why there is none.
enum NoLine {
    /// Nobody answers; nats-server tells nothing of it either.
    Silence,
    Error(ApiError),
}

/// Follows the sequences of a consumer's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Track {
    consumer_seq: u64,
    stream_seq: u64,
}

/// What a delivery is in the light of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Next,
    /// It is here already, or was sent before the consumer was set up.
    Known,
    /// Something before it is missing, or the consumer has been reset.
    Gap,
}

impl Track {
    fn step(&mut self, consumer_seq: u64, stream_seq: u64) -> Step {
        let in_line = consumer_seq == self.consumer_seq + 1;
        if in_line {
            self.consumer_seq = consumer_seq;
        }
        match stream_seq > self.stream_seq {
            false => Step::Known,
            true if self.consumer_seq == 0 => Step::Known,
            true if !in_line => Step::Gap,
            true => {
                self.stream_seq = stream_seq;
                Step::Next
            }
        }
    }
}

/// An answer to a CONSUMER.CREATE or CONSUMER.RESET, as far as it matters here.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<ApiError>,
    name: String,
    config: Option<ConsumerConfig>,
    delivered: Delivered,
    num_pending: u64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Delivered {
    stream_seq: u64,
}

impl Follower {
    /// The prefix under which the origin's API answers.
    fn api_prefix(&self) -> &str {
        self.foreign_prefix().unwrap_or(API_PREFIX)
    }

    fn setup_failed(&self, why: impl std::fmt::Display) -> ApiError {
        match self.is_mirror() {
            true => ApiError::MIRROR_CONSUMER_SETUP_FAILED.with(why),
            false => ApiError::SOURCE_CONSUMER_SETUP_FAILED.with(why),
        }
    }

    /// Sets up the consumer and takes what it delivers, until that ends.
    pub(super) async fn follow_through_consumer(&mut self) -> End {
        let Some(mut standing) = self.standing().await else { return End::Lost };
        let mut courier = self.registry.context.courier();
        let mut line = self.open_line(&standing, &mut courier).await;
        if let Err(NoLine::Error(error)) = &line
            && error.err_code == ApiError::CONSUMER_STREAM_IDENTITY_MISMATCH_F.err_code
        {
            // The origin was made anew: from its beginning.
            standing.seq = 0;
            standing.recreated = true;
            line = self.open_line(&standing, &mut courier).await;
        }
        let line = match line {
            Ok(line) => line,
            Err(NoLine::Silence) => return End::Absent,
            Err(NoLine::Error(error)) => {
                self.progress.fail(error);
                return End::Absent;
            }
        };
        let is_ephemeral = line.is_ephemeral;
        let end = self.follow_line(standing, line, &mut courier).await;
        if is_ephemeral && let Some(subject) = self.progress.take_consumer() {
            courier.ask(subject.as_bytes(), b"", b"", b"");
            courier.flush();
        }
        end
    }

    /// Takes what a consumer delivers, until that ends.
    async fn follow_line(&mut self, mut standing: Standing, mut line: Line, courier: &mut Courier) -> End {
        let known_as = &*standing.identity;
        if !self.is_mirror() && !known_as.is_empty() && !line.identity.is_empty() && *known_as != *line.identity {
            standing.seq = 0;
        }
        let mut under_way = UnderWay::new();
        if self.is_mirror() && line.delivered > standing.seq {
            self.hand_over(&standing, &line.identity, line.delivered, Vec::new(), &mut under_way);
        }
        let mut track = Track { consumer_seq: 0, stream_seq: standing.seq.max(line.delivered) };
        self.progress.set_lag(line.pending);
        self.progress.hear(Timestamp::now());
        let mut stale_at = Instant::now() + STALE_AFTER;
        loop {
            let first = tokio::select! {
                end = settled(&mut under_way), if !under_way.is_empty() => match end {
                    Some(end) => return end,
                    None => continue,
                },
                letter = line.mailbox.receive() => letter,
                () = tokio::time::sleep_until(stale_at) => return End::Lost,
            };
            stale_at = Instant::now() + STALE_AFTER;
            self.progress.hear(Timestamp::now());
            let mut messages = Vec::new();
            let (mut bytes, mut letter) = (0, Some(first));
            let (mut end, mut answer_to) = (None, None);
            while let Some(inbound) = letter.take() {
                if is_control(&inbound) {
                    match self.control(&inbound, &track) {
                        Control::Answer(to) => answer_to = Some(to),
                        Control::Fine => {}
                        Control::Gap => end = Some(End::Lost),
                    }
                } else if let Some(info) =
                    DeliveryInfo::parse(&inbound.reply).filter(|info| info.consumer == line.consumer.as_bytes())
                    && info.ack.delivery_count <= 1
                {
                    self.progress.set_lag(info.pending);
                    match track.step(info.ack.consumer_seq, info.ack.stream_seq) {
                        Step::Known => {}
                        Step::Gap => end = Some(End::Lost),
                        Step::Next => {
                            bytes += inbound.message.as_bytes().len();
                            let stored =
                                StoredMessage { seq: info.ack.stream_seq, time: info.time, message: inbound.message };
                            messages.push(self.made_ready(stored, &line.identity));
                        }
                    }
                }
                if end.is_none()
                    && answer_to.is_none()
                    && messages.len() < BATCH_MESSAGES_MAX
                    && bytes < BATCH_BYTES_MAX
                {
                    letter = line.mailbox.receive_now();
                }
            }
            if !messages.is_empty() {
                self.hand_over(&standing, &line.identity, 0, messages, &mut under_way);
            }
            if let Some(to) = answer_to {
                // The answer is the ack of everything before it.
                while !under_way.is_empty() {
                    if let Some(end) = settled(&mut under_way).await {
                        return end;
                    }
                }
                let headers = HeaderBuilder::new()
                    .add(LAST_CONSUMER_SEQ, track.consumer_seq)
                    .add(LAST_STREAM_SEQ, track.stream_seq)
                    .build();
                courier.ask(to.as_bytes(), b"", &headers, b"");
                courier.flush();
            }
            if let Some(end) = end {
                return end;
            }
            if self.has_enough_under_way(&under_way)
                && let Some(end) = settled(&mut under_way).await
            {
                return end;
            }
        }
    }

    /// Makes the consumer, or resets the one that is configured.
    async fn open_line(&self, standing: &Standing, courier: &mut Courier) -> Result<Line, NoLine> {
        let (source, prefix) = (&self.source, self.api_prefix());
        let identity = if standing.recreated || self.is_mirror() { "" } else { &*standing.identity };
        let headers = HeaderBuilder::new().add(IDENTITY, identity).build();
        let config = self.consumer_config(standing);
        let deliver_subject = match &source.consumer {
            Some(consumer) => &consumer.deliver_subject,
            None => &config.deliver_subject,
        };
        let mailbox = Mailbox::open(&self.registry.context.account, deliver_subject.clone())
            .ok_or_else(|| NoLine::Error(self.setup_failed("invalid deliver subject")))?;
        let asked = match &source.consumer {
            Some(consumer) => {
                let subject = format!("{prefix}.CONSUMER.RESET.{}.{}", source.name, consumer.name);
                self.ask(courier, &subject, &headers, b"", RESET_MAX).await
            }
            None => {
                let filter = match &*config.filter_subject {
                    "" => String::new(),
                    filter => format!(".{}.{filter}", config.name),
                };
                let subject = format!("{prefix}.CONSUMER.CREATE.{}{filter}", source.name);
                let body = serde_json::json!({"stream_name": source.name, "config": config}).to_string();
                self.ask(courier, &subject, &headers, body.as_bytes(), CREATE_MAX).await
            }
        };
        let letter = asked.ok_or(NoLine::Silence)?;
        let headers = Headers::new(letter.message.headers());
        if headers.status().is_some() {
            return Err(NoLine::Silence);
        }
        let identity = headers.get_str(IDENTITY).unwrap_or_default().into();
        let bad = || NoLine::Error(self.setup_failed("invalid consumer create response"));
        let answer: Answer = serde_json::from_slice(letter.message.payload()).map_err(|_| bad())?;
        if let Some(error) = answer.error {
            return Err(NoLine::Error(error));
        }
        let config = answer.config.ok_or_else(bad)?;
        if source.consumer.is_some() && config.ack_policy != AckPolicy::FlowControl {
            return Err(NoLine::Error(match self.is_mirror() {
                true => ApiError::MIRROR_CONSUMER_REQUIRES_ACK_FC,
                false => ApiError::SOURCE_CONSUMER_REQUIRES_ACK_FC,
            }));
        }
        let (delivered, pending) = (answer.delivered.stream_seq, answer.num_pending);
        if config.sourcing && source.consumer.is_none() {
            let subject = format!("{prefix}.CONSUMER.DELETE.{}.{}", source.name, answer.name);
            self.progress.made_consumer(subject);
        }
        let is_ephemeral = config.direct;
        Ok(Line { consumer: answer.name, identity, delivered, pending, mailbox, is_ephemeral })
    }

    /// What the server asks the origin for.
    fn consumer_config(&self, standing: &Standing) -> ConsumerConfig {
        let context = &self.registry.context;
        let (kind, letter) = if self.is_mirror() { ("mirror", "M") } else { ("src", "S") };
        let own = self.shared.config();
        let domain = &context.options.domain;
        let mut metadata = std::collections::BTreeMap::from([
            (format!("_nats.{kind}.stream"), own.name.clone()),
            (format!("_nats.{kind}.acc"), context.account.name.clone()),
        ]);
        if !domain.is_empty() {
            metadata.insert(format!("_nats.{kind}.domain"), domain.clone());
        }
        let unique = id::unique();
        let deliver_prefix = self.source.external.as_ref().map(|external| &*external.deliver_prefix);
        let deliver_prefix = deliver_prefix.filter(|prefix| !prefix.is_empty()).unwrap_or("$JS");
        let mut config = ConsumerConfig {
            name: source_name::consumer_name(&own, &self.source, &context.account.name, domain),
            deliver_subject: format!("{deliver_prefix}.{letter}.{}", &unique[unique.len() - 8..]).replace("..", "."),
            ack_wait: GoDuration::from_secs(22 * 3600),
            max_deliver: 1,
            heartbeat: HEARTBEAT,
            flow_control: true,
            direct: true,
            sourcing: true,
            inactive_threshold: GoDuration::from_secs(STALE_AFTER.as_secs() as i64),
            metadata,
            ..ConsumerConfig::default()
        };
        match self.start(standing, if standing.recreated { None } else { Some(&standing.identity) }) {
            Begin::First => {}
            Begin::Seq(seq) => (config.deliver_policy, config.opt_start_seq) = (DeliverPolicy::ByStartSequence, seq),
            Begin::Time(time) => {
                (config.deliver_policy, config.opt_start_time) = (DeliverPolicy::ByStartTime, Some(time));
            }
        }
        match &self.source.filters()[..] {
            [] => {}
            [only] => config.filter_subject = (*only).to_owned(),
            several => config.filter_subjects = several.iter().map(|filter| (*filter).to_owned()).collect(),
        }
        config
    }

    /// Sends a request and waits for its answer; `None` when there is none.
    async fn ask(
        &self,
        courier: &mut Courier,
        subject: &str,
        headers: &[u8],
        body: &[u8],
        patience: Duration,
    ) -> Option<Inbound> {
        let mut mailbox = Mailbox::open(&self.registry.context.account, format!("_INBOX.{}", id::unique()))?;
        let receivers = courier.ask(subject.replace("..", ".").as_bytes(), mailbox.subject().as_bytes(), headers, body);
        courier.flush();
        if receivers == 0 {
            return None;
        }
        tokio::time::timeout(patience, mailbox.receive()).await.ok()
    }

    /// A heartbeat or a request of flow control.
    fn control(&self, inbound: &Inbound, track: &Track) -> Control {
        if !inbound.reply.is_empty() {
            return Control::Answer(String::from_utf8_lossy(&inbound.reply).into_owned());
        }
        let headers = Headers::new(inbound.message.headers());
        let last = headers.get_str(LAST_CONSUMER_SEQ).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        if last > 0 && last != track.consumer_seq {
            return Control::Gap;
        }
        match headers.get_str("Nats-Consumer-Stalled") {
            Some(to) if !to.is_empty() => Control::Answer(to.to_owned()),
            _ => Control::Fine,
        }
    }
}

/// What a control message asks for.
enum Control {
    /// An answer there, once everything before is durable.
    Answer(String),
    Fine,
    Gap,
}

fn is_control(inbound: &Inbound) -> bool {
    inbound.message.payload().is_empty() && inbound.message.headers().starts_with(b"NATS/1.0 100 ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliveries_in_line_are_taken_and_gaps_noticed() {
        let mut track = Track { consumer_seq: 0, stream_seq: 4 };
        for (consumer_seq, stream_seq, expected) in [
            // From before the consumer was set up.
            (7, 9, Step::Known),
            (1, 3, Step::Known),
            (2, 4, Step::Known),
            (3, 5, Step::Next),
            (4, 9, Step::Next),
            (6, 11, Step::Gap),
            (5, 10, Step::Next),
            // The consumer was reset: behind what is here, and ahead of it.
            (1, 2, Step::Known),
            (1, 12, Step::Gap),
            (6, 11, Step::Next),
        ] {
            assert_eq!(track.step(consumer_seq, stream_seq), expected, "{consumer_seq} {stream_seq}");
        }
        assert_eq!(track, Track { consumer_seq: 6, stream_seq: 11 });
    }
}
