//! What the server tells the system account of its own accord: who comes and goes, how it does, and that it ends
//! (nats-server `server/events.go`). Nothing is written when nobody listens.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::accountz::AccountStat;
use super::source::Account;
use super::system::{Letterhead, System};
use crate::api::ClientInfo;
use crate::broker::{Account as BrokerAccount, Broker, Courier, Presence};
use crate::types::{Timestamp, id};

/// Comings and goings that wait to be told; further ones are dropped with a warning.
const WAITING_MAX: usize = 65_536;
/// nats-server's `statsHBInterval`.
const STATSZ_INTERVAL: Duration = Duration::from_secs(10);
/// nats-server's `eventsHBInterval`.
const CONNS_INTERVAL: Duration = Duration::from_secs(30);
/// Tells the default account who was not let in.
const ACCOUNT_AUTH_ERROR: &str = "$SYS.ACCOUNT.CLIENT.AUTH.ERR";
/// nats-server never tells how many connections its default account has.
const DEFAULT_ACCOUNT: &str = "$G";

/// See the module.
pub struct Events {
    broker: Arc<Broker>,
    letterhead: Arc<Letterhead>,
    courier: Courier,
}

impl Events {
    /// Tells what happens from now on until `stop` is cancelled, and then that the server ends. Returns the task's future.
    pub fn start(broker: &Arc<Broker>, system: &System, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        broker.watch_presence(move |presence| {
            if let Err(mpsc::error::TrySendError::Full(_)) = sender.try_send(presence.clone()) {
                warn!(cid = presence.client_id, "events are too far behind to tell of this connection");
            }
        });
        let courier = broker.courier_in(broker.system_account());
        let events = Events { broker: broker.clone(), letterhead: system.letterhead().clone(), courier };
        events.run(receiver, stop)
    }

    async fn run(mut self, mut presences: mpsc::Receiver<Presence>, stop: CancellationToken) {
        let mut statsz = tokio::time::interval(STATSZ_INTERVAL);
        let mut conns = tokio::time::interval(CONNS_INTERVAL);
        for timer in [&mut statsz, &mut conns] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                presence = presences.recv() => match presence {
                    Some(presence) => self.presence(&presence),
                    None => break,
                },
                _ = statsz.tick() => self.statsz().await,
                _ = conns.tick() => self.all_connections(),
            }
            self.courier.flush();
        }
        let subject = format!("$SYS.SERVER.{}.SHUTDOWN", self.server_id());
        let letterhead = self.letterhead.clone();
        self.tell(&subject, |now| letterhead.server(now));
        self.courier.flush();
    }

    fn server_id(&self) -> String {
        self.letterhead.reports().identity.server_id.clone()
    }

    /// Publishes an event if anyone listens.
    fn tell(&mut self, subject: &str, body: impl FnOnce(Timestamp) -> Value) {
        tell(self.broker.system_account(), &mut self.courier, subject, body);
    }

    async fn statsz(&mut self) {
        let subject = format!("$SYS.SERVER.{}.STATSZ", self.server_id());
        if !self.broker.system_account().has_interest(subject.as_bytes()) {
            return;
        }
        let stats = self.letterhead.reports().statsz(Timestamp::now()).await;
        let letterhead = self.letterhead.clone();
        self.tell(&subject, |now| json!({"server": letterhead.server(now), "statsz": stats}));
    }

    fn presence(&mut self, presence: &Presence) {
        let account = match presence.identity.account.as_str() {
            "" => DEFAULT_ACCOUNT,
            account => account,
        };
        let letterhead = self.letterhead.clone();
        match &presence.closed {
            None => self.tell(&format!("$SYS.ACCOUNT.{account}.CONNECT"), |now| {
                let mut event = event("client_connect", &letterhead, now);
                event["client"] = client(presence, account);
                event
            }),
            Some(closed) => {
                let body = |now: Timestamp| {
                    let mut event = event("client_disconnect", &letterhead, now);
                    event["client"] = client(presence, account);
                    event["sent"] = json!({"msgs": closed.out_msgs, "bytes": closed.out_bytes});
                    event["received"] = json!({"msgs": closed.in_msgs, "bytes": closed.in_bytes});
                    event["reason"] = json!(closed.reason);
                    event
                };
                if closed.reason.starts_with("Authentication") {
                    let subject = format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", self.server_id());
                    self.tell(&subject, body);
                    // nats-server's clients are in this account until they are let into another one.
                    let mut courier = self.broker.courier();
                    tell(&self.broker.account, &mut courier, ACCOUNT_AUTH_ERROR, body);
                    courier.flush();
                }
                self.tell(&format!("$SYS.ACCOUNT.{account}.DISCONNECT"), body);
            }
        }
        self.connections(account);
    }

    fn all_connections(&mut self) {
        let mut heard = self.broker.accounts();
        heard.retain(|account| self.is_heard_of(&account.name));
        if heard.is_empty() {
            return;
        }
        let clients = self.broker.client_count() > 0;
        for figures in self.letterhead.reports().source.accounts() {
            // Both are in order of their names.
            let account = heard.binary_search_by(|account| account.name.cmp(&figures.name));
            if account.is_ok_and(|at| clients || heard[at].has_interest(b"$SYS.>")) {
                self.tell_connections(&figures);
            }
        }
    }

    /// Whether anybody listens to how many connections an account has.
    fn is_heard_of(&self, account: &str) -> bool {
        let system = self.broker.system_account();
        account != DEFAULT_ACCOUNT
            && connection_subjects(account).iter().any(|subject| system.has_interest(subject.as_bytes()))
    }

    /// Tells how many connections an account has.
    fn connections(&mut self, account: &str) {
        if !self.is_heard_of(account) {
            return;
        }
        let Some(figures) = self.letterhead.reports().source.account(account) else { return };
        self.tell_connections(&figures);
    }

    fn tell_connections(&mut self, account: &Account) {
        let letterhead = self.letterhead.clone();
        for subject in &connection_subjects(&account.name) {
            self.tell(subject, |now| account_connections(&letterhead, account, now));
        }
    }
}

/// Tells that the server is about to end and sends its clients away before.
pub fn tell_lame_duck(broker: &Broker, system: &System) {
    let letterhead = system.letterhead();
    let subject = format!("$SYS.SERVER.{}.LAMEDUCK", letterhead.reports().identity.server_id);
    let account = broker.system_account();
    let mut courier = broker.courier_in(account);
    tell(account, &mut courier, &subject, |now| letterhead.server(now));
    courier.flush();
}

/// Publishes an event if anyone in the account listens.
fn tell(account: &BrokerAccount, courier: &mut Courier, subject: &str, body: impl FnOnce(Timestamp) -> Value) {
    if account.has_interest(subject.as_bytes()) {
        let body = body(Timestamp::now()).to_string();
        courier.publish(subject.as_bytes(), b"", b"", body.as_bytes());
    }
}

fn connection_subjects(account: &str) -> [String; 2] {
    [format!("$SYS.SERVER.ACCOUNT.{account}.CONNS"), format!("$SYS.ACCOUNT.{account}.SERVER.CONNS")]
}

/// The envelope of an event.
fn event(kind: &str, letterhead: &Letterhead, now: Timestamp) -> Value {
    json!({
        "type": format!("io.nats.server.advisory.v1.{kind}"),
        "id": id::unique(),
        "timestamp": now,
        "server": letterhead.server(now),
    })
}

/// How many connections an account has, and what went over them (nats-server `AccountNumConns`).
pub(super) fn account_connections(letterhead: &Letterhead, account: &Account, now: Timestamp) -> Value {
    let mut event = event("account_connections", letterhead, now);
    let stat = serde_json::to_value(AccountStat::new(account)).expect("figures are JSON");
    if let (Some(event), Value::Object(stat)) = (event.as_object_mut(), stat) {
        event.extend(stat);
    }
    event
}

/// Who it is, and when it went.
fn client(presence: &Presence, account: &str) -> Value {
    let closed = presence.closed.as_deref();
    let info = ClientInfo {
        name_tag: account.to_owned(),
        // Of one that comes it is not known yet.
        rtt: closed.map_or(0, |closed| closed.round_trip.as_nanos() as u64),
        stop: closed.map(|closed| closed.stopped),
        ..presence.client.info(presence.identity.clone(), account)
    };
    serde_json::to_value(info).expect("who it is is plain data")
}
