//! The state machine of one client.
//!
//! ```text
//!                     CONNECT, no auth needed
//!   AwaitingConnect ---------------------------> Connected --+
//!          |  CONNECT                              ^   |     | CONNECT again
//!          +----------> Authenticating ------------+   |<----+
//!                             |        accepted        |
//!                             v refused                v
//!                          Closing <---- any error that closes
//! ```
//!
//! Without authentication a client may do everything before CONNECT, as with nats-server. With it, the parser reads
//! nothing but CONNECT ([`Session::limits`]) and [`Session::admit`] admits nothing else.

use std::sync::Arc;
use std::time::Duration;

use super::keepalive::{Keepalive, Look};
use crate::auth::{Grant, Permit, PublishCache};
use crate::protocol::connect::PROTOCOL_INFO;
use crate::protocol::{ClientOp, Connect, Info, Limits, ProtocolError};
use crate::types::{Timestamp, subject};

/// What every session of a listener shares. The defaults are nats-server's, but for `max_payload` (8 MiB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub max_control_line: usize,
    pub max_payload: usize,
    pub auth_required: bool,
    /// How long a client may take for CONNECT. Where no authentication is required, any whole operation will do.
    pub connect_timeout: Duration,
    pub ping_interval: Duration,
    /// Pings that may go unanswered.
    pub max_pings_out: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        let limits = Limits::default();
        Settings {
            max_control_line: limits.max_control_line,
            max_payload: limits.max_payload,
            auth_required: false,
            connect_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_secs(120),
            max_pings_out: 2,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    AwaitingConnect,
    /// CONNECT has come; its credentials are being looked at and nothing else is read.
    Authenticating,
    Connected,
    Closing,
}

/// What is to be done about an operation. Where it says "answer +OK", that is when [`Session::verbose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Nothing.
    Ignore,
    /// The client is connected: answer +OK. When `again`, this was not its first CONNECT: drop all its subscriptions.
    Connected { again: bool },
    /// Look at the credentials in [`Session::options`], read nothing meanwhile, then call
    /// [`Session::handle_authenticated`].
    Authenticate,
    /// Answer +OK and route the message.
    Publish,
    /// As `Publish`, but first answer with [`ProtocolError::InvalidPublishSubject`]: the client is pedantic.
    PublishInvalid,
    /// As `Publish` if the subject is the reply subject of a request the client was sent; else refuse with
    /// [`ProtocolError::PublishDenied`].
    PublishAnswer,
    /// Subscribe, then answer +OK.
    Subscribe,
    /// Answer +OK and unsubscribe.
    Unsubscribe,
    /// Answer PONG; when `info`, then INFO with `connect_info` (the client's first PING after CONNECT).
    Pong { info: bool },
}

/// What is to be done because time has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tick {
    Nothing,
    /// Send PING.
    Ping,
    /// Answer with the error and close.
    Close(ProtocolError),
}

/// Messages, and bytes of headers and payload, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTraffic {
    pub in_msgs: u64,
    pub in_bytes: u64,
    pub out_msgs: u64,
    pub out_bytes: u64,
}

/// One client's state.
#[derive(Clone, Debug)]
pub struct Session {
    settings: Arc<Settings>,
    id: u64,
    phase: Phase,
    options: Connect,
    started: Timestamp,
    last_activity: Timestamp,
    /// Whether the deadline for CONNECT is met.
    in_time: bool,
    connects: u32,
    first_ping_answered: bool,
    keepalive: Keepalive,
    traffic: SessionTraffic,
    max_payload: usize,
    /// `None`: everything is permitted.
    permit: Option<Arc<Permit>>,
    publish_cache: PublishCache,
    /// When the client's credentials end.
    expires: Option<Timestamp>,
    /// Whether its account does then.
    expires_with_account: bool,
}

impl Session {
    /// A client that has just been accepted. `id` is its client id; it also spreads the first pings over time.
    pub fn new(settings: Arc<Settings>, id: u64, now: Timestamp) -> Session {
        Session {
            keepalive: Keepalive::new(settings.ping_interval, settings.max_pings_out, id, now),
            max_payload: settings.max_payload,
            permit: None,
            publish_cache: PublishCache::default(),
            expires: None,
            expires_with_account: false,
            settings,
            id,
            phase: Phase::AwaitingConnect,
            options: Connect::assumed(),
            started: now,
            last_activity: now,
            in_time: false,
            connects: 0,
            first_ping_answered: false,
            traffic: SessionTraffic::default(),
        }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the client's CONNECT said, or what is assumed of it until then.
    pub fn options(&self) -> &Connect {
        &self.options
    }

    /// Whether operations are answered with +OK.
    pub fn verbose(&self) -> bool {
        self.options.verbose
    }

    /// Whether the client receives its own publishes.
    pub fn echo(&self) -> bool {
        self.options.echo
    }

    /// Whether the client understands HMSG; others get messages without their headers.
    pub fn headers(&self) -> bool {
        self.options.headers
    }

    /// Whether a request of this client that nobody listens to is answered with status 503.
    pub fn no_responders(&self) -> bool {
        self.options.no_responders
    }

    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// When the client last sent anything.
    pub fn last_activity(&self) -> Timestamp {
        self.last_activity
    }

    /// The last measured round trip; zero before the first.
    pub fn rtt(&self) -> Duration {
        self.keepalive.rtt()
    }

    pub fn traffic(&self) -> SessionTraffic {
        self.traffic
    }

    /// What the parser may read now.
    pub fn limits(&self) -> Limits {
        Limits {
            max_control_line: self.settings.max_control_line,
            max_payload: self.max_payload,
            connect_only: self.settings.auth_required && self.phase != Phase::Connected,
        }
    }

    /// The client's time begins now: what came before was a handshake below this protocol.
    pub fn restart(&mut self, now: Timestamp) {
        self.started = now;
    }

    /// Bytes have arrived. To be called once per read, before what they hold is admitted.
    pub fn handle_input(&mut self, now: Timestamp) {
        self.last_activity = now;
    }

    /// Messages have been sent to the client.
    pub fn handle_delivered(&mut self, msgs: u64, bytes: u64) {
        self.traffic.out_msgs += msgs;
        self.traffic.out_bytes += bytes;
    }

    /// Whether and how an operation is to be done.
    ///
    /// # Errors
    /// What to answer instead; the session is closing when the error [closes](ProtocolError::closes).
    #[inline]
    pub fn admit(&mut self, op: &ClientOp<'_>) -> Result<Admit, ProtocolError> {
        let to = if let ClientOp::Pub { subject, .. } = *op { subject } else { b"" };
        self.admit_as(op, to)
    }

    /// As [`Session::admit`]; what is published is routed as `to`, and judged by it.
    ///
    /// # Errors
    /// As [`Session::admit`].
    #[inline]
    pub fn admit_as(&mut self, op: &ClientOp<'_>, to: &[u8]) -> Result<Admit, ProtocolError> {
        let served = match self.phase {
            Phase::Connected => true,
            Phase::AwaitingConnect => !self.settings.auth_required || matches!(op, ClientOp::Connect(_)),
            Phase::Authenticating | Phase::Closing => false,
        };
        if !served {
            return self.close(ProtocolError::AuthorizationViolation);
        }
        if !self.settings.auth_required {
            self.in_time = true;
        }
        match *op {
            ClientOp::Pub { subject, reply, headers, payload } => {
                // As it was said: rules may make anything of a subject, also of none.
                let invalid = self.options.pedantic && !subject::is_valid_literal(subject);
                self.publish(to, reply, headers, payload).map(|admit| match admit {
                    Admit::Publish if invalid => Admit::PublishInvalid,
                    admit => admit,
                })
            }
            ClientOp::Sub { subject, queue, .. } => {
                self.keepalive.hear();
                if !subject::is_valid(subject) {
                    return Err(ProtocolError::InvalidSubject);
                }
                let group = (!queue.is_empty()).then_some(queue);
                if queue == b"_sys_" {
                    return Err(ProtocolError::QueueSubscribeDenied(subject.into(), queue.into()));
                }
                if self.permit.as_ref().is_some_and(|permit| !permit.may_subscribe(subject, group)) {
                    return Err(match group {
                        None => ProtocolError::SubscribeDenied(subject.into()),
                        Some(group) => ProtocolError::QueueSubscribeDenied(subject.into(), group.into()),
                    });
                }
                Ok(Admit::Subscribe)
            }
            ClientOp::Unsub { .. } => {
                self.keepalive.hear();
                Ok(Admit::Unsubscribe)
            }
            ClientOp::Ping => {
                self.keepalive.hear();
                let first = self.connects > 0 && !std::mem::replace(&mut self.first_ping_answered, self.connects > 0);
                Ok(Admit::Pong { info: first && self.options.protocol >= PROTOCOL_INFO })
            }
            ClientOp::Pong => {
                self.keepalive.handle_pong(self.last_activity);
                Ok(Admit::Ignore)
            }
            ClientOp::Connect(body) => self.connect(body),
            ClientOp::Info(body) => match Info::parse(body) {
                Ok(_) => Ok(Admit::Ignore),
                Err(error) => self.close(error),
            },
            ClientOp::Ok => Ok(Admit::Ignore),
            ClientOp::Err(_) => self.close(ProtocolError::ClientError),
        }
    }

    #[inline]
    fn publish(
        &mut self,
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> Result<Admit, ProtocolError> {
        if !headers.is_empty() && !self.options.headers {
            return self.close(ProtocolError::HeadersNotSupported);
        }
        self.keepalive.hear();
        self.traffic.in_msgs += 1;
        self.traffic.in_bytes += (headers.len() + payload.len()) as u64;
        if is_reserved_subject(subject) {
            return Err(ProtocolError::PublishDenied(subject.into()));
        }
        if let Some(permit) = &self.permit
            && !self.publish_cache.may_publish(permit, subject)
        {
            let answers = permit.responses().is_some() && !is_reserved_reply(reply);
            return if answers { Ok(Admit::PublishAnswer) } else { Err(ProtocolError::PublishDenied(subject.into())) };
        }
        if is_reserved_reply(reply) {
            return Err(ProtocolError::ReplyDenied(reply.into()));
        }
        Ok(Admit::Publish)
    }

    fn connect(&mut self, body: &[u8]) -> Result<Admit, ProtocolError> {
        if let Err(error) = self.options.merge(body) {
            return self.close(error);
        }
        self.in_time = true;
        self.keepalive.estimate_rtt(self.last_activity.since(self.started));
        self.keepalive.restart(self.id, self.last_activity);
        if self.settings.auth_required {
            self.phase = Phase::Authenticating;
            return Ok(Admit::Authenticate);
        }
        self.finish_connect()
    }

    /// The credentials of the last CONNECT have been looked at: what they grant, or `None` when they are refused.
    ///
    /// # Errors
    /// When they were refused, or CONNECT asks for what cannot be; the session is closing.
    ///
    /// # Panics
    /// When nobody asked for it: the phase is not `Authenticating`.
    pub fn handle_authenticated(&mut self, grant: Option<&Grant>) -> Result<Admit, ProtocolError> {
        assert_eq!(self.phase, Phase::Authenticating, "credentials are looked at only after CONNECT");
        let Some(grant) = grant else { return self.close(ProtocolError::AuthorizationViolation) };
        self.take_grant(grant);
        self.finish_connect()
    }

    /// Holds the session to other settings from now on. What its user may do is told by
    /// [`Session::handle_granted_anew`].
    pub fn change_settings(&mut self, settings: Arc<Settings>) {
        self.keepalive.change(settings.ping_interval, settings.max_pings_out, self.last_activity);
        self.max_payload = settings.max_payload;
        self.settings = settings;
    }

    /// Whether the client has done anything yet.
    pub fn has_acted(&self) -> bool {
        self.in_time
    }

    /// The credentials have been looked at again, by new rules, and grant this now.
    pub fn handle_granted_anew(&mut self, grant: &Grant) {
        self.take_grant(grant);
    }

    fn take_grant(&mut self, grant: &Grant) {
        self.permit.clone_from(&grant.permit);
        self.publish_cache = PublishCache::default();
        self.max_payload = grant.limits.payload_bytes.unwrap_or(usize::MAX).min(self.settings.max_payload);
        self.expires = grant.expires;
        self.expires_with_account = grant.expires_with_account;
    }

    /// When the client's credentials end.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// What the client may do; `None` for everything.
    pub fn permit(&self) -> Option<&Arc<Permit>> {
        self.permit.as_ref()
    }

    fn finish_connect(&mut self) -> Result<Admit, ProtocolError> {
        if self.options.new_account || !self.options.account.is_empty() {
            return self.close(ProtocolError::AuthorizationViolation);
        }
        if !(0..=PROTOCOL_INFO).contains(&self.options.protocol) {
            return self.close(ProtocolError::BadClientProtocol);
        }
        if self.options.no_responders && !self.options.headers {
            return self.close(ProtocolError::NoRespondersRequiresHeaders);
        }
        self.phase = Phase::Connected;
        self.connects = self.connects.saturating_add(1);
        Ok(Admit::Connected { again: self.connects > 1 })
    }

    fn close(&mut self, error: ProtocolError) -> Result<Admit, ProtocolError> {
        self.phase = Phase::Closing;
        Err(error)
    }

    /// When [`Session::handle_tick`] next has something to do.
    pub fn next_deadline(&self) -> Timestamp {
        let next = self.expires.map_or(self.keepalive.next(), |expires| expires.min(self.keepalive.next()));
        if self.in_time { next } else { next.min(self.connect_deadline()) }
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Timestamp) -> Tick {
        if self.phase == Phase::Closing {
            return Tick::Nothing;
        }
        if !self.in_time && now >= self.connect_deadline() {
            self.phase = Phase::Closing;
            return Tick::Close(ProtocolError::AuthenticationTimeout);
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            self.phase = Phase::Closing;
            return Tick::Close(match self.expires_with_account {
                true => ProtocolError::AccountExpired,
                false => ProtocolError::AuthenticationExpired,
            });
        }
        match self.keepalive.handle_tick(now) {
            Look::Nothing => Tick::Nothing,
            Look::Ping => Tick::Ping,
            Look::Stale => {
                self.phase = Phase::Closing;
                Tick::Close(ProtocolError::StaleConnection)
            }
        }
    }

    fn connect_deadline(&self) -> Timestamp {
        self.started + self.settings.connect_timeout
    }
}

/// Subjects that nats-server keeps for its clusters, so that one may be put in our place.
fn is_reserved_subject(subject: &[u8]) -> bool {
    match subject.first() {
        Some(b'$') => subject.starts_with(b"$NRG."),
        Some(b'_') => subject.len() > b"_GR_.".len() && subject.starts_with(b"_GR_."),
        _ => false,
    }
}

/// Replies that would make whoever answers acknowledge a message of a stream, or speak for a cluster.
fn is_reserved_reply(reply: &[u8]) -> bool {
    match reply.first() {
        Some(b'$') => reply.len() > b"$JS.ACK.".len() && reply.starts_with(b"$JS.ACK."),
        Some(b'_') => reply.starts_with(b"_R_.") || reply.len() > b"_GR_.".len() && reply.starts_with(b"_GR_."),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
