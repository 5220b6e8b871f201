//! The one door of the broker: a client's bytes in, effects on router, streams and outboxes out.
//!
//! Every client has a link, however its bytes travel. It parses in place, lets its [`Session`] judge each operation, and
//! carries publishes with its [`Courier`]. Dropping it ends the client's subscriptions.

use std::sync::Arc;

use tracing::{debug, trace};

use super::account::Account;
use super::client_state::{ClientState, Identity};
use super::courier::Courier;
use super::outbox::{Appended, Closed};
use super::registry::Broker;
use super::subscription::Subscription;
use crate::protocol::{ClientOp, Info, Parser, ProtocolError, encode};
use crate::session::{Admit, Session, Tick};
use crate::types::{Timestamp, header};

/// What became of the bytes given to [`Link::feed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Bytes that are done with; the caller keeps the rest and adds to it.
    pub consumed: usize,
    /// More bytes that the next operation is known to need; 0 when unknown.
    pub needed: usize,
    /// The connection ends once its outbox is flushed.
    pub close: bool,
}

/// See the module.
pub struct Link {
    broker: Arc<Broker>,
    account: Arc<Account>,
    client: Arc<ClientState>,
    session: Session,
    parser: Parser,
    courier: Courier,
    present: bool,
}

impl Link {
    /// Admits a client and queues its INFO; `None` when the broker has as many as it may.
    pub fn open(broker: &Arc<Broker>, address: String, now: Timestamp) -> Option<Link> {
        let client = broker.admit(address, now)?;
        let account = broker.account.clone();
        let link = Link {
            courier: Courier::new(account.clone(), client.clone()),
            session: Session::new(broker.session_settings.clone(), client.id, now),
            parser: Parser::new(),
            account,
            client,
            broker: broker.clone(),
            present: false,
        };
        let info = link.info();
        link.say(|out| encode::info(out, &info));
        Some(link)
    }

    fn info(&self) -> Info {
        let mut info = self.broker.info();
        info.client_id = self.client.id;
        info.client_ip =
            self.client.address.rsplit_once(':').map_or("", |(ip, _)| ip).trim_matches(['[', ']']).to_owned();
        info
    }

    /// What a client is told that [`Link::open`] did not admit.
    pub fn refuse_connection(broker: &Broker, out: &mut Vec<u8>) {
        encode::info(out, &broker.info());
        encode::err(out, &ProtocolError::MaxConnections.text());
    }

    pub fn client(&self) -> &Arc<ClientState> {
        &self.client
    }

    /// Works through `input`, which starts at an operation's first byte. Receivers are woken before it returns.
    pub fn feed(&mut self, input: &[u8], now: Timestamp) -> Fed {
        let mut fed = Fed { consumed: 0, needed: 0, close: false };
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
                    self.refuse(&error);
                    fed.close = true;
                    break;
                }
            };
            fed.consumed += taken;
            let done = match self.session.admit(&op) {
                Ok(admit) => self.carry_out(admit, op),
                Err(error) => Err(error),
            };
            if let Err(error) = done
                && self.refuse(&error)
            {
                fed.close = true;
                break;
            }
            if matches!(op, ClientOp::Connect(_)) {
                limits = self.session.limits();
            }
        }
        self.client.set_traffic(self.session.traffic(), now);
        self.courier.flush();
        fed
    }

    #[inline]
    fn carry_out(&mut self, admit: Admit, op: ClientOp<'_>) -> Result<(), ProtocolError> {
        match (admit, op) {
            (Admit::Publish, ClientOp::Pub { subject, reply, headers, payload }) => {
                if self.session.verbose() {
                    self.say(encode::ok);
                }
                let mapped = self.account.mapped(subject);
                if self.courier.publish(mapped.as_deref().unwrap_or(subject), reply, headers, payload) == 0
                    && !reply.is_empty()
                    && self.session.no_responders()
                {
                    self.answer_no_responders(subject, reply);
                }
            }
            (Admit::PublishInvalid, ClientOp::Pub { .. }) => {
                self.refuse(&ProtocolError::InvalidPublishSubject);
                return self.carry_out(Admit::Publish, op);
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
                    let remote_account = self.account.name.clone();
                    let info = Info { connect_info: true, remote_account, ..self.info() };
                    self.say(|out| encode::info(out, &info));
                }
            }
            (Admit::Connected { again }, _) => self.connected(again),
            (Admit::Authenticate, _) => {
                // Nobody can be asked yet, so nobody is let in where credentials are required.
                let admit = self.session.handle_authenticated(false)?;
                return self.carry_out(admit, op);
            }
            _ => self.client.set_round_trip(self.session.rtt()),
        }
        Ok(())
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
            if self.client.outbox.append_message(&subscription, reply, &[], &block, &[]) == Appended::First {
                self.client.outbox.wake();
            }
            if subscription.is_exhausted() {
                self.account.unsubscribe(&subscription);
            }
        }
    }

    fn connected(&mut self, again: bool) {
        if again {
            self.drop_subscriptions();
        }
        let connect = self.session.options();
        self.courier.set_echo(connect.echo);
        self.client.set_identity(Identity {
            name: connect.name.clone(),
            lang: connect.lang.clone(),
            version: connect.version.clone(),
            user: connect.user.clone(),
        });
        if !self.present {
            self.present = true;
            self.broker.tell_presence(&self.client, true);
        }
        if self.session.verbose() {
            self.say(encode::ok);
        }
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
            let max = self.broker.options.subscriptions_max;
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
            ));
            subscriptions.insert(sid.into(), subscription.clone());
            subscription
        };
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
    }

    /// Writes the error to the client; true when the connection ends with it.
    #[cold]
    fn refuse(&mut self, error: &ProtocolError) -> bool {
        debug!("{} - cid:{} - {error}", self.client.address, self.client.id);
        if *error != ProtocolError::ClientError {
            let text = error.text();
            self.say(|out| encode::err(out, &text));
        }
        if error.closes() {
            self.client.outbox.close(Closed::AfterFlush);
        }
        error.closes()
    }

    fn say(&self, write: impl FnOnce(&mut Vec<u8>)) {
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
                trace!(cid = self.client.id, "closing: {error}");
                self.refuse(&error);
                false
            }
        }
    }

    /// Whether this client publishes faster than someone can take it.
    pub fn has_laggards(&self) -> bool {
        self.courier.has_laggards()
    }

    /// Waits until those have caught up. Cancel safe.
    pub async fn wait_for_laggards(&mut self) {
        self.courier.wait_for_laggards().await;
    }

    /// Gives back what only a busy client needs.
    pub fn rest(&mut self) {
        self.courier.rest();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.drop_subscriptions();
        self.client.outbox.close(Closed::AfterFlush);
        self.broker.dismiss(&self.client);
        if self.present {
            self.broker.tell_presence(&self.client, false);
        }
    }
}
