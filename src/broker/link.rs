//! The one door of the broker: a client's bytes in, effects on router, streams and outboxes out.
//!
//! Every client has a link, however its bytes travel. It parses in place, lets its [`Session`] judge each operation, and
//! carries publishes with its [`Courier`]. Dropping it ends the client's subscriptions.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info};

use super::account::Account;
use super::arrival::Arrival;
use super::bridge::Mapped;
use super::client_state::{ClientState, Identity, InfoTerms};
use super::closed::ClosedClient;
use super::courier::{Courier, Delivered, Parcel};
use super::gate::Admission;
use super::guard::Guard;
use super::memory::Share;
use super::message_trace::{self, Asked, Trace};
use super::outbox::{Appended, Closed};
use super::registry::Broker;
use super::rights::Rights;
use super::subscription::Subscription;
use super::trace;
use crate::auth::{
    CertificateNames, Grant, Login, Presented, Refusal, Secret, TlsFacts, is_seed, oversteps, schedules_beyond,
};
use crate::protocol::{ClientOp, Connect, Info, Parser, ProtocolError, encode, quote};
use crate::session::{Admit, Phase, Session, Tick};
use crate::types::{Timestamp, header};

/// How long a client may wait for its password to be checked again: all of them wait at once.
const REVIEW_PATIENCE: Duration = Duration::from_secs(60);

/// What became of the bytes given to [`Link::feed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that are done with; the caller keeps the rest and adds to it.
    pub consumed: usize,
    /// More bytes that the next operation is known to need; 0 when unknown.
    pub needed: usize,
    /// The connection ends once its outbox is flushed.
    pub close: bool,
    /// CONNECT has come: nothing more is read before [`Link::authenticate`] has returned.
    pub authenticate: bool,
    /// Receivers have enough to take for now: the rest of the input is to be fed again once they have got it.
    pub paused: bool,
}

/// See the module.
pub struct Link {
    broker: Arc<Broker>,
    arrival: Arrival,
    certificate: Option<CertificateNames>,
    nonce: String,
    account: Arc<Account>,
    /// Whether the client counts among the account's.
    counted: bool,
    guard: Option<Arc<Guard>>,
    subscriptions_max: usize,
    /// The slow hash that the client's password was found to have.
    vouched: Option<Secret>,
    /// What those have said of the client who are asked by auth callouts.
    called_out: Option<Arc<Grant>>,
    client: Arc<ClientState>,
    session: Session,
    parser: Parser,
    courier: Courier,
    present: bool,
    /// What its subscriptions count for.
    share: Share,
}

impl Link {
    /// Admits a client and queues its INFO; `None` when the broker has as many as it may.
    pub fn open(broker: &Arc<Broker>, arrival: impl Into<Arrival>, now: Timestamp) -> Option<Link> {
        let mut arrival = arrival.into();
        let client = broker.admit(&mut arrival, now)?;
        let asked = arrival.trusted.is_none() && broker.gate.book().is_required(arrival.way());
        let account = arrival.trusted.clone().unwrap_or_else(|| broker.account.clone());
        let terms = broker.terms();
        let nonce = if asked { broker.gate.nonce() } else { String::new() };
        client.set_info_terms(InfoTerms {
            nonce: nonce.clone(),
            tls: arrival.tls,
            port: arrival.port,
            trusted: arrival.trusted.is_some(),
        });
        let link = Link {
            courier: Courier::new(account.clone(), client.clone()).metered(broker.meter()),
            session: Session::new(terms.settings(asked).clone(), client.id, now),
            parser: Parser::new(),
            nonce,
            certificate: None,
            arrival,
            account,
            counted: false,
            guard: None,
            subscriptions_max: terms.options.subscriptions_max,
            vouched: None,
            called_out: None,
            client,
            broker: broker.clone(),
            present: false,
            share: Share::new(&broker.memory),
        };
        let info = link.info();
        link.say(|out| encode::info(out, &info));
        debug!("{} - cid:{} - Client connection created", link.client.address, link.client.id);
        Some(link)
    }

    fn info(&self) -> Info {
        // What counts for this client: its account or its JWT may allow it less.
        let max_payload = self.session.limits().max_payload as i64;
        Info { max_payload, ..self.broker.info_for(&self.client) }
    }

    /// What a client is told that [`Link::open`] did not admit.
    pub fn refuse_connection(broker: &Broker, out: &mut Vec<u8>) {
        encode::info(out, &broker.info());
        encode::err(out, &ProtocolError::MaxConnections.text());
    }

    /// The client's time begins now: its TLS handshake is done.
    pub fn restart(&mut self, now: Timestamp) {
        self.session.restart(now);
    }

    /// The client's TLS handshake is done, and has settled this.
    pub fn set_tls(&mut self, facts: TlsFacts) {
        self.certificate = facts.names();
        self.client.set_tls(facts);
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub fn client(&self) -> &Arc<ClientState> {
        &self.client
    }

    /// Works through `input`, which starts at an operation's first byte. Receivers are woken before it returns.
    pub fn feed(&mut self, input: &[u8], now: Timestamp) -> Fed {
        let mut fed = Fed { consumed: 0, needed: 0, close: false, authenticate: false, paused: false };
        self.session.handle_input(now);
        let mut limits = self.session.limits();
        while fed.consumed < input.len() {
            let (op, taken) = match self.parser.next(&input[fed.consumed..], &limits) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => {
                    fed.needed = self.parser.needed();
                    break;
                }
                Err(error) => {
                    if error == ProtocolError::MaxPayload
                        && self.session.phase() == Phase::Connected
                        && let Some((subject, headers, bytes)) = message_trace::too_large(&input[fed.consumed..])
                    {
                        self.trace_refused(subject, headers, bytes, "maximum payload exceeded".to_owned());
                    }
                    self.refuse(&error);
                    fed.close = true;
                    break;
                }
            };
            if trace::is_on() {
                trace::incoming(&self.client, &op, &input[fed.consumed..fed.consumed + taken]);
            }
            fed.consumed += taken;
            // Before it is judged: what a client may publish on is where it comes out.
            let (mapped, said) = match op {
                ClientOp::Pub { subject, .. } => (self.account.mapped(subject), subject),
                _ => (Mapped::Same, &b""[..]),
            };
            let done = match self.session.admit_as(&op, mapped.of(said)) {
                Ok(admit) => self.carry_out(admit, op, &mapped),
                Err(error) => Err(error),
            };
            if let (Err(ProtocolError::PublishDenied(denied)), ClientOp::Pub { subject, headers, payload, .. }) =
                (&done, &op)
                && **denied == *mapped.of(subject)
            {
                let error = ProtocolError::PublishDenied(denied.clone()).text().into_owned();
                self.trace_refused(subject, headers, headers.len() + payload.len(), error);
            }
            if let Err(error) = done
                && self.refuse(&error)
            {
                fed.close = true;
                break;
            }
            if matches!(op, ClientOp::Connect(_)) {
                if self.session.phase() == Phase::Authenticating {
                    fed.authenticate = true;
                    break;
                }
                limits = self.session.limits();
            }
            if self.courier.is_bursting() && fed.consumed < input.len() {
                fed.paused = true;
                break;
            }
        }
        self.client.set_traffic(self.session.traffic(), now);
        self.courier.flush();
        fed
    }

    #[inline]
    fn carry_out(&mut self, admit: Admit, op: ClientOp<'_>, mapped: &Mapped) -> Result<(), ProtocolError> {
        match (admit, op) {
            (Admit::Publish, ClientOp::Pub { subject, reply, headers, payload }) => {
                if self.session.verbose() {
                    self.say(encode::ok);
                }
                if !headers.is_empty() && message_trace::may_be_asked(headers, self.account.trace().as_deref()) {
                    match self.trace_asked(headers) {
                        Asked::Nothing => {}
                        Asked::Never => {
                            let headers = message_trace::disabled(headers);
                            return self.publish(subject, mapped, reply, &headers, payload);
                        }
                        Asked::Nowhere => return Ok(()),
                        Asked::Trace { dest, only } => {
                            return self.publish_traced((dest, only), (subject, mapped), reply, headers, payload);
                        }
                    }
                }
                self.publish(subject, mapped, reply, headers, payload)?;
            }
            (Admit::PublishInvalid, ClientOp::Pub { .. }) => {
                self.refuse(&ProtocolError::InvalidPublishSubject);
                return self.carry_out(Admit::Publish, op, mapped);
            }
            (Admit::Subscribe, ClientOp::Sub { subject, queue, sid }) => {
                self.subscribe(subject, queue, sid)?;
                if self.session.verbose() {
                    self.say(encode::ok);
                }
            }
            (Admit::Unsubscribe, ClientOp::Unsub { sid, max }) => {
                if self.session.verbose() {
                    self.say(encode::ok);
                }
                self.unsubscribe(sid, max);
            }
            (Admit::Pong { info }, _) => {
                self.say(encode::pong);
                if info {
                    self.client.set_hears_news();
                    let remote_account = self.account.name.clone();
                    let info = Info { connect_info: true, remote_account, ..self.info() };
                    self.say(|out| encode::info(out, &info));
                }
            }
            (Admit::Connected { again }, _) => {
                let login = Login { user: self.session.options().user.clone(), ..Login::default() };
                self.connected(again, login);
            }
            (Admit::PublishAnswer, ClientOp::Pub { subject, .. }) => {
                let to = mapped.of(subject);
                if !self.guard.as_ref().is_some_and(|guard| guard.may_answer(to)) {
                    return Err(ProtocolError::PublishDenied(to.into()));
                }
                return self.carry_out(Admit::Publish, op, mapped);
            }
            // Done by whoever feeds the link: see `Fed::authenticate`.
            (Admit::Authenticate, _) => {}
            _ => self.client.set_round_trip(self.session.rtt()),
        }
        Ok(())
    }

    #[inline]
    fn publish(
        &mut self,
        subject: &[u8],
        mapped: &Mapped,
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), ProtocolError> {
        let to = mapped.of(subject);
        self.check_named(to, reply, headers, payload)?;
        let receivers = if to.is_empty() { 0 } else { self.courier.publish(to, reply, headers, payload) };
        if receivers == 0 && !reply.is_empty() && self.session.no_responders() {
            self.answer_no_responders(to, reply);
        }
        Ok(())
    }

    /// Refuses a message that would have others publish or read where the client may not.
    #[inline]
    fn check_named(&self, subject: &[u8], reply: &[u8], headers: &[u8], payload: &[u8]) -> Result<(), ProtocolError> {
        let Some(permit) = self.session.permit() else { return Ok(()) };
        if let Some(error) = schedules_beyond(permit, headers) {
            return Err(error);
        }
        let named = oversteps(permit, subject, reply, headers, payload);
        named.map_or(Ok(()), |named| Err(ProtocolError::PublishDenied((&*named).into())))
    }

    /// Publishes a message and tells its way.
    #[cold]
    fn publish_traced(
        &mut self,
        asked: (String, bool),
        (subject, mapped): (&[u8], &Mapped),
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), ProtocolError> {
        if self.session.permit().is_some_and(|permit| !permit.may_publish(asked.0.as_bytes())) {
            return Err(ProtocolError::PublishDenied(asked.0.as_bytes().into()));
        }
        let bytes = headers.len() + payload.len();
        let published = message_trace::Published { subject, block: headers, bytes, error: String::new() };
        let trace = Arc::new(self.trace(asked, published));
        if let Mapped::To(to) = mapped {
            trace.mapped(to);
        }
        let to = mapped.of(subject);
        self.check_named(to, reply, headers, payload)?;
        let parcel = Parcel { to, shown_subject: to, stored_subject: b"", reply, headers, payload };
        let delivered = if to.is_empty() { Delivered::default() } else { self.courier.send_traced(parcel, &trace) };
        // The API is the system account's, to nats-server's eyes.
        if to.starts_with(b"$JS.API.") && self.account.has_filter(b"$JS.API.>") {
            trace.service(&self.broker.system_account().name, to, to);
        }
        if !delivered.stored {
            trace.tell(&mut self.courier);
        }
        if delivered.receivers == 0 && !reply.is_empty() && self.session.no_responders() {
            self.answer_no_responders(to, reply);
        }
        Ok(())
    }

    #[cold]
    fn trace_asked(&self, headers: &[u8]) -> Asked {
        Asked::parse(headers, self.account.trace().as_deref(), || rand::random_range(0..100))
    }

    fn trace(&self, asked: (String, bool), published: message_trace::Published<'_>) -> Trace {
        Trace::new(asked, self.info(), &self.client, &self.account, published)
    }

    /// Tells of a message that asked to be traced and is not let in.
    #[cold]
    fn trace_refused(&mut self, subject: &[u8], headers: &[u8], bytes: usize, error: String) {
        if !message_trace::may_be_asked(headers, self.account.trace().as_deref()) {
            return;
        }
        let Asked::Trace { dest, only } = self.trace_asked(headers) else { return };
        if self.session.permit().is_none_or(|permit| permit.may_publish(dest.as_bytes())) {
            let published = message_trace::Published { subject, block: headers, bytes, error };
            let trace = self.trace((dest, only), published);
            trace.tell(&mut self.courier);
        }
    }

    /// Tells a requester that nobody listens: status 503 with the subject, through its own subscription (nats-server
    /// `processInboundClientMsg`).
    #[cold]
    fn answer_no_responders(&mut self, subject: &[u8], reply: &[u8]) {
        let block = [header::VERSION_LINE, b" 503\r\nNats-Subject: ", subject, b"\r\n\r\n"].concat();
        let wanted = self
            .client
            .subscriptions()
            .values()
            .find(|subscription| {
                subscription.queue.is_none() && crate::types::subject::matches(&subscription.subject, reply)
            })
            .cloned();
        if let Some(subscription) = wanted {
            let parcel = Parcel {
                to: reply,
                shown_subject: reply,
                stored_subject: b"",
                reply: b"",
                headers: &block,
                payload: b"",
            };
            if self.client.outbox.append_message(&subscription, &parcel, None, false) == Appended::First {
                self.client.outbox.wake();
            }
            if subscription.is_exhausted() {
                self.account.unsubscribe(&subscription);
            }
        }
    }

    /// Looks at the credentials of the last CONNECT and lets the client in or not. False when the connection ends. Dropped
    /// half-way it leaves a client that nothing is read from any more.
    pub async fn authenticate(&mut self, now: Timestamp) -> bool {
        // A second CONNECT may lead into another account: nothing is received from the first one any more.
        self.drop_subscriptions();
        let connect = self.credentials();
        let presented = self.presented(&connect, now);
        let patience = self.broker.terms().options.session.connect_timeout;
        let judged = self.broker.judge(&self.client, &presented, patience, None, None).await;
        let done = match judged {
            Ok(Admission { grant, hash, called_out }) => {
                self.vouched = hash;
                self.called_out = called_out.then(|| grant.clone());
                self.enter(&grant)
            }
            Err((error, Refusal(reason))) => {
                debug!("{} - cid:{} - authentication failed: {reason}", self.client.address, self.client.id);
                let _ = self.session.handle_authenticated(None);
                if !self.present {
                    self.client.set_identity(claimed(&connect));
                }
                Err(error)
            }
        };
        match done {
            Ok(()) => true,
            Err(error) => {
                self.refuse(&error);
                // Whatever the error: nobody stays who was not let in.
                self.client.outbox.close(Closed::AfterFlush);
                false
            }
        }
    }

    /// What CONNECT said, completed by cookies.
    fn credentials(&self) -> Connect {
        let mut connect = self.session.options().clone();
        let cookies = &self.arrival.cookies;
        for (field, cookie) in [
            (&mut connect.user, &cookies.user),
            (&mut connect.pass, &cookies.pass),
            (&mut connect.auth_token, &cookies.token),
            (&mut connect.jwt, &cookies.jwt),
        ] {
            if field.is_empty() {
                field.clone_from(cookie);
            }
        }
        connect
    }

    fn presented<'a>(&'a self, connect: &'a Connect, now: Timestamp) -> Presented<'a> {
        Presented {
            connect,
            nonce: &self.nonce,
            connection_type: self.arrival.way(),
            ip: self.arrival.ip(),
            certificate: self.certificate.as_ref(),
            tls: self.client.tls().map(|facts| &**facts),
            maps_certificates: self.arrival.tls.maps_certificates,
            now,
        }
    }

    /// Looks at the client again, by rules that have changed ([`Broker::reload`]). False when the connection ends: at once
    /// and without a word for a client whose user has gone or moved to another account, so that it comes again; with
    /// `Authorization Violation` for one whose credentials no longer hold (nats-server `reloadAuthorization`).
    pub async fn review(&mut self, now: Timestamp) -> bool {
        let Some(review) = self.client.take_review() else { return true };
        let way = self.arrival.way();
        let terms = self.broker.terms();
        let asked = self.arrival.trusted.is_none() && self.broker.gate.book().is_required(way);
        self.session.change_settings(terms.settings(asked).clone());
        self.client.outbox.set_bytes_max(terms.options.pending_bytes_max);
        self.subscriptions_max = terms.options.subscriptions_max;
        let stays = match self.called_out.clone() {
            _ if self.arrival.trusted.is_some() => true,
            // Whoever said so need not say it again.
            Some(grant) if review.same_rules => {
                self.take_grant_anew(&grant);
                true
            }
            _ => self.review_credentials(asked, now).await,
        };
        if stays && review.news && self.client.hears_news() {
            let info = self.info();
            self.say(|out| encode::info(out, &info));
        }
        stays
    }

    async fn review_credentials(&mut self, asked: bool, now: Timestamp) -> bool {
        // Who has said nothing yet is judged when it does.
        if self.session.phase() != Phase::Connected && !(asked && self.session.has_acted()) {
            return true;
        }
        let connect = self.credentials();
        if self.broker.gate.book().has_no_more(&connect, self.arrival.way()) {
            self.client.close("Client Closed");
            return false;
        }
        let presented = self.presented(&connect, now);
        let (vouched, known) = (self.vouched.as_ref(), self.called_out.as_ref());
        let judged = self.broker.judge(&self.client, &presented, REVIEW_PATIENCE, vouched, known).await;
        match judged {
            Ok(Admission { grant, .. }) if grant.account != self.account.name || self.account.is_retired() => {
                self.client.close("Client Closed");
                false
            }
            Ok(Admission { grant, hash, called_out }) => {
                self.vouched = hash;
                self.called_out = called_out.then(|| grant.clone());
                self.take_grant_anew(&grant);
                true
            }
            Err((error, Refusal(reason))) => {
                let user = &connect.user;
                error!("{} - cid:{} - authentication error - User {user:?}", self.client.address, self.client.id);
                debug!("{} - cid:{} - authentication failed: {reason}", self.client.address, self.client.id);
                self.refuse(&error);
                self.client.outbox.close(Closed::AfterFlush);
                false
            }
        }
    }

    /// The client stays, with what `grant` lets it do: subscriptions beyond that end, with an error.
    fn take_grant_anew(&mut self, grant: &Grant) {
        let before = self.session.permit().cloned();
        self.session.handle_granted_anew(grant);
        self.tell_rights();
        self.subscriptions_max = self.subscriptions_of(grant);
        let permit = self.session.permit().cloned();
        let same = match (&before, &permit) {
            (None, None) => true,
            (Some(before), Some(permit)) => before.is_like(permit),
            _ => false,
        };
        if same {
            return;
        }
        self.guard = Guard::new(permit.as_ref());
        let mut subscriptions = self.client.subscription_list();
        subscriptions.sort_unstable_by(|left, right| (left.sid.len(), &left.sid).cmp(&(right.sid.len(), &right.sid)));
        for subscription in subscriptions {
            let queue = subscription.queue.as_deref();
            if permit.as_ref().is_none_or(|permit| permit.may_subscribe(&subscription.subject, queue)) {
                subscription.set_guard(self.guard.clone());
                continue;
            }
            self.account.unsubscribe(&subscription);
            let [subject, sid] = [&*subscription.subject, &*subscription.sid].map(quote);
            let queue = queue.map(|queue| format!(" using queue {}", quote(queue))).unwrap_or_default();
            let text = format!("Permissions Violation for Subscription to {subject}{queue} (sid {sid})");
            self.say(|out| encode::err(out, &text));
            let user = self.client.identity().user;
            info!("Removed sub {subject}{queue} (sid {sid}) for User {user:?} - not authorized");
        }
    }

    /// How many subscriptions the client may have; 0 for any number.
    fn subscriptions_of(&self, grant: &Grant) -> usize {
        let limits = [self.broker.terms().options.subscriptions_max, grant.limits.subscriptions.unwrap_or(0)];
        limits.into_iter().filter(|&max| max > 0).min().unwrap_or(0)
    }

    fn enter(&mut self, grant: &Grant) -> Result<(), ProtocolError> {
        let Some(account) = self.broker.find_account(&grant.account) else {
            return self.session.handle_authenticated(None).map(|_| ());
        };
        self.leave();
        if !account.enter() {
            let _ = self.session.handle_authenticated(None);
            return Err(ProtocolError::MaxAccountConnections);
        }
        self.counted = true;
        self.account = account;
        self.courier = Courier::new(self.account.clone(), self.client.clone()).metered(self.broker.meter());
        let admit = self.session.handle_authenticated(Some(grant))?;
        self.guard = Guard::new(self.session.permit());
        self.subscriptions_max = self.subscriptions_of(grant);
        self.connected(matches!(admit, Admit::Connected { again: true }), grant.login.clone());
        Ok(())
    }

    /// Counts the client out of its account.
    fn leave(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.account.leave();
        }
    }

    fn connected(&mut self, again: bool, login: Login) {
        if again {
            self.drop_subscriptions();
        }
        // The process itself takes none of the places an account has for its clients.
        if !self.counted && self.arrival.trusted.is_none() {
            // Whoever is not asked is not turned away either.
            self.counted = self.account.enter();
        }
        self.client.set_round_trip(self.session.rtt());
        let connect = self.session.options();
        self.courier.set_echo(connect.echo);
        self.client.set_identity(Identity {
            name: connect.name.clone(),
            lang: connect.lang.clone(),
            version: connect.version.clone(),
            user: login.user.clone(),
            account: self.account.name.clone(),
            login,
        });
        self.tell_rights();
        if !self.present {
            self.present = true;
            self.broker.tell_presence(&self.client, None);
        }
        if self.session.verbose() {
            self.say(encode::ok);
        }
    }

    fn tell_rights(&self) {
        self.client.set_rights(Rights { permit: self.session.permit().cloned(), expires: self.session.expires() });
    }

    fn drop_subscriptions(&self) {
        for subscription in self.client.subscription_list() {
            self.account.unsubscribe(&subscription);
        }
    }

    fn subscribe(&mut self, subject: &[u8], queue: &[u8], sid: &[u8]) -> Result<(), ProtocolError> {
        let queue = (!queue.is_empty()).then_some(queue);
        let subscription = {
            let mut subscriptions = self.client.subscriptions();
            // A sid in use keeps its first subscription, as in nats-server.
            if subscriptions.contains_key(sid) {
                return Ok(());
            }
            let max = self.subscriptions_max;
            if max != 0 && subscriptions.len() >= max {
                return Err(ProtocolError::MaxSubscriptions);
            }
            let subscription = Arc::new(Subscription::new(
                self.account.new_key(),
                sid,
                subject,
                queue,
                self.client.clone(),
                self.session.headers(),
                self.guard.clone(),
            ));
            subscriptions.insert(sid.into(), subscription.clone());
            subscription
        };
        self.share.set(self.client.subscription_bytes());
        self.account.subscribe(&subscription).map_err(|_| {
            self.client.subscriptions().remove(sid);
            ProtocolError::InvalidSubject
        })
    }

    fn unsubscribe(&mut self, sid: &[u8], max: Option<u64>) {
        let Some(subscription) = self.client.subscriptions().get(sid).cloned() else { return };
        if let Some(max) = max {
            subscription.set_max(max);
            if !subscription.is_exhausted() {
                return;
            }
        }
        self.account.unsubscribe(&subscription);
        drop(subscription);
        self.share.set(self.client.subscription_bytes());
    }

    /// Writes the error to the client; true when the connection ends with it.
    #[cold]
    fn refuse(&mut self, error: &ProtocolError) -> bool {
        debug!("{} - cid:{} - {error}", self.client.address, self.client.id);
        if *error != ProtocolError::ClientError {
            let text = error.text();
            self.say(|out| encode::err(out, &text));
        }
        if let Some(reason) = close_reason(error) {
            self.client.set_close_reason(reason);
        }
        if error.closes() {
            self.client.outbox.close(Closed::AfterFlush);
        }
        error.closes()
    }

    fn say(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let write = |out: &mut Vec<u8>| {
            let start = out.len();
            write(out);
            if trace::is_on() {
                trace::answer(&self.client, &out[start..]);
            }
        };
        if self.client.outbox.append(write) == Appended::First {
            self.client.outbox.wake();
        }
    }

    /// When [`Link::tick`] wants to be called.
    pub fn next_deadline(&self) -> Timestamp {
        self.session.next_deadline()
    }

    /// Does what time asks for: a PING, or the end of a client that is stale or never said CONNECT. False when the
    /// connection ends.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        match self.session.handle_tick(now) {
            Tick::Nothing => true,
            Tick::Ping => {
                self.say(encode::ping);
                self.courier.rest();
                true
            }
            Tick::Close(error) => {
                if error == ProtocolError::StaleConnection {
                    self.broker.count_stale_connection();
                }
                self.refuse(&error);
                false
            }
        }
    }

    /// Whether this client publishes faster than someone can take it, or all clients together more than the process may hold.
    pub fn has_laggards(&self) -> bool {
        self.courier.has_laggards() || self.broker.memory.is_over()
    }

    /// Waits until those have caught up. Cancel safe.
    pub async fn wait_for_laggards(&mut self) {
        self.courier.wait_for_laggards().await;
        self.broker.memory.until_eased().await;
    }

    /// Gives back what only a busy client needs.
    pub fn rest(&mut self) {
        self.courier.rest();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let last = Arc::new(ClosedClient::of(&self.client, Timestamp::now()));
        self.drop_subscriptions();
        self.leave();
        self.client.outbox.close(Closed::AfterFlush);
        // Whoever sees that it has gone finds its place free.
        self.arrival.place = None;
        self.broker.dismiss(&self.client, last.clone());
        if self.present || last.reason.starts_with("Authentication") {
            self.broker.tell_presence(&self.client, Some(last));
        }
    }
}

/// Who somebody says to be that is not let in, for events and monitoring.
fn claimed(connect: &Connect) -> Identity {
    let user = if connect.nkey.is_empty() { &connect.user } else { &connect.nkey };
    Identity {
        name: connect.name.clone(),
        lang: connect.lang.clone(),
        version: connect.version.clone(),
        // Some show the secret half of their key where the key belongs.
        user: if is_seed(user) { "[REDACTED]".into() } else { user.clone() },
        ..Identity::default()
    }
}

/// Why a connection ends with this error, in the words that monitoring uses; `None` when it does not.
fn close_reason(error: &ProtocolError) -> Option<&'static str> {
    Some(match error {
        ProtocolError::UnknownOperation
        | ProtocolError::ArgumentCount
        | ProtocolError::BadSize
        | ProtocolError::BadHeaderSize
        | ProtocolError::HeaderSizeOverTotal
        | ProtocolError::BadJson
        | ProtocolError::ClientError => "Parse Error",
        ProtocolError::MaxControlLine => "Maximum Control Line Exceeded",
        ProtocolError::MaxPayload => "Maximum Message Payload Exceeded",
        ProtocolError::HeadersNotSupported => "Message Header Violation",
        ProtocolError::BadClientProtocol => "Bad Client Protocol Version",
        ProtocolError::NoRespondersRequiresHeaders => "No Responders Requires Headers",
        ProtocolError::AuthorizationViolation => "Authentication Failure",
        ProtocolError::AuthenticationExpired | ProtocolError::AccountExpired => "Authentication Expired",
        ProtocolError::MaxAccountConnections => "Maximum Account Connections Exceeded",
        ProtocolError::AuthenticationTimeout => "Authentication Timeout",
        ProtocolError::StaleConnection => "Stale Connection",
        ProtocolError::MaxConnections => "Maximum Connections Exceeded",
        ProtocolError::ServerShutdown => "Server Shutdown",
        _ => return None,
    })
}
