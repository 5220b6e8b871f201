//! Councils in a world: somebody forms and dissolves them, others hear the offers, claim seats and leave them. At rest every
//! council is formed of those who sit in its seats, and whoever listens was told of each change, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use natterjack::client::{Client, Status};
use serde::Deserialize;
use serde_json::json;

use super::history::read;
use super::link::{Link, Reply, call};
use super::random::Random;
use super::table;
use super::world::Shared;

/// Keeps what councils tell.
pub const STREAM: &str = "STATUSES";
const BUCKET: &str = "TASK_COUNCILS";
const OFFERS: &str = "councils.offers";
const COUNCILS: u64 = 3;
/// The last one is optional.
const SEATS: [&str; 4] = ["lead.1", "hand.1", "hand.2", "guest.1"];
/// In whose names seats are claimed: some are registered agents, whose seats go with them.
const NAMES: [&str; 6] = ["ann", "bob", "cid", "dan", "a0", "a1"];

/// Who takes which seat once nothing is killed any more.
const CALM: [(&str, &str); 4] = [("lead.1", "eve"), ("hand.1", "flo"), ("hand.2", "gus"), ("guest.1", "hal")];

/// Forms and dissolves councils until the world ends.
pub async fn chair(world: Arc<Shared>, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let link = Link::surely(&world.address, "chair").await;
        while link.client.status() != Status::Closed {
            tokio::time::sleep(Duration::from_millis(20 + random.below(150))).await;
            let council = format!("c{}", random.below(COUNCILS));
            if world.is_calm() || !random.one_in(4) {
                form(&world, &link.client, &council).await;
            } else if let Reply::Fine(_) = call(&link.client, &format!("COUNCIL.DISSOLVE.{council}"), &[], b"").await {
                world.ledger.count("councils dissolved");
            }
        }
    }
}

async fn form(world: &Shared, client: &Client, council: &str) {
    let terms = json!({
        "roles": { "lead": 1, "hand": 2 }, "optional": { "guest": 1 }, "offer_to": OFFERS,
        "status_to": format!("councils.told.{council}"), "deadline_s": 4, "seat_ttl_s": 0,
        "headers": { "Council": council },
    });
    let name = format!("COUNCIL.FORM.{council}");
    match call(client, &name, &[], terms.to_string().as_bytes()).await {
        reply @ Reply::Fine(_) => {
            let answer = reply.json();
            world.ledger.count(if answer["duplicate"] == true { "councils formed again" } else { "councils begun" });
            let run = answer["run"].as_u64().unwrap_or_default();
            world.ledger.books().formings.insert((council.to_owned(), run));
        }
        Reply::Refused(code) => world.ledger.wrong(format!("{council}: FORM was refused with {code}")),
        Reply::Unknown => {}
    }
}

/// Claims seats that are offered, and leaves some, until the world ends.
pub async fn member(world: Arc<Shared>, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let link = Link::surely(&world.address, "member").await;
        let Ok(mut offers) = link.client.subscribe(OFFERS) else { continue };
        let mut leaving = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                offer = offers.next() => {
                    let Some(offer) = offer else { break };
                    let council = offer.headers().get_str("Council").unwrap_or_default();
                    // In the end all that are free, by some who sit nowhere else.
                    let claims = match world.is_calm() {
                        true => CALM.to_vec(),
                        false => vec![(*random.pick(&SEATS), *random.pick(&NAMES))],
                    };
                    for (seat, name) in claims {
                        let key = format!("{council}.{seat}");
                        if link.client.kv_create(BUCKET, &key, name.as_bytes()).await.is_ok() {
                            world.ledger.count("seats claimed");
                        }
                    }
                }
                _ = leaving.tick() => {
                    if link.client.status() == Status::Closed {
                        break;
                    }
                    if !world.is_calm() && random.one_in(10) {
                        let key = format!("c{}.{}", random.below(COUNCILS), random.pick(&SEATS));
                        if link.client.kv_delete(BUCKET, &key).await.is_ok() {
                            world.ledger.count("seats left");
                        }
                    }
                }
            }
        }
    }
}

/// What of a council's record the checks look at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Record {
    pub status: String,
    pub run: u64,
    pub members: BTreeMap<String, String>,
}

/// A change that was told.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Told {
    pub status: String,
    pub members: BTreeMap<String, String>,
    pub open: Vec<String>,
}

/// All there is to know of a world's councils.
#[derive(Clone, Debug, Default)]
pub struct Minutes {
    /// Council and run, as FORM's answers name them.
    pub formings: BTreeSet<(String, u64)>,
    /// By council and run, with the number of the change.
    pub told: BTreeMap<(String, u64), Vec<(u64, Told)>>,
    pub records: BTreeMap<String, Record>,
    /// Who has written which seat's key, by council.
    pub seats: BTreeMap<String, BTreeMap<String, String>>,
}

/// Reads what the store has of them.
///
/// # Errors
/// The broker does not answer, or something is stored that cannot be.
pub async fn minutes(world: &Shared, client: &Client) -> Result<Minutes, String> {
    let mut minutes = Minutes { formings: world.ledger.books().formings.clone(), ..Minutes::default() };
    for row in read(client, STREAM, "councils.told.>", 1).await? {
        let told = serde_json::from_slice(&row.payload).map_err(|error| format!("{}: {error}", row.subject))?;
        // council.<council>.<run>.<change>
        let id: Vec<&str> = row.header("Nats-Msg-Id").unwrap_or_default().split('.').collect();
        let [_, council, run, change] = id[..] else { return Err(format!("{}: its id is {id:?}", row.subject)) };
        let (Ok(run), Ok(change)) = (run.parse(), change.parse()) else { return Err(format!("its id is {id:?}")) };
        minutes.told.entry((council.to_owned(), run)).or_default().push((change, told));
    }
    for row in read(client, "KV_TASK_COUNCILS", "$KV.TASK_COUNCILS.>", 1).await? {
        let key = row.subject.trim_start_matches("$KV.TASK_COUNCILS.").to_owned();
        if row.header("KV-Operation").is_some() || row.header("Nats-Marker-Reason").is_some() {
            continue;
        }
        match key.split_once('.') {
            Some((council, seat)) => {
                let name = String::from_utf8_lossy(&row.payload).into_owned();
                minutes.seats.entry(council.to_owned()).or_default().insert(seat.to_owned(), name);
            }
            None => {
                let record = serde_json::from_slice(&row.payload).map_err(|error| format!("{key}: {error}"))?;
                minutes.records.insert(key, record);
            }
        }
    }
    Ok(minutes)
}

/// (from, to) of what is told of a council's run.
const EDGES: &[(&str, &[&str])] = &[
    ("-", &["formed", "expired", "dissolved"]),
    ("formed", &["degraded", "dissolved"]),
    ("degraded", &["degraded", "formed", "dissolved"]),
];

fn is_final(status: &str) -> bool {
    matches!(status, "expired" | "dissolved")
}

/// Whether nothing will change any more.
pub fn are_at_rest(minutes: &Minutes) -> bool {
    unrest(minutes).is_empty()
}

/// One sentence for everything that must not be.
pub fn violations(minutes: &Minutes) -> Vec<String> {
    let mut wrong = unrest(minutes);
    for ((council, run), told) in &minutes.told {
        wrong.extend(walk(told).into_iter().map(|what| format!("council {council}, run {run}: {what}")));
    }
    for (council, run) in &minutes.formings {
        let ended = minutes.told.get(&(council.clone(), *run)).is_some_and(|told| {
            let last = told.iter().max_by_key(|(change, _)| *change);
            last.is_some_and(|(_, told)| is_final(&told.status))
        });
        let now = minutes.records.get(council).map_or(0, |record| record.run);
        if now < *run || now > *run && !ended {
            wrong.push(format!("council {council}: run {run} was begun, is not ended, and now is {now}"));
        }
    }
    wrong
}

/// Every council is formed of who sits in its seats.
fn unrest(minutes: &Minutes) -> Vec<String> {
    let mut wrong = Vec::new();
    for (council, record) in &minutes.records {
        let seats = minutes.seats.get(council).cloned().unwrap_or_default();
        if record.status != "formed" || record.members != seats {
            wrong.push(format!("council {council}: {record:?} with the seats {seats:?}"));
        }
    }
    for council in minutes.seats.keys().filter(|council| !minutes.records.contains_key(*council)) {
        wrong.push(format!("council {council}: seats and no record"));
    }
    wrong
}

/// The changes of one run, all of them, in order.
fn walk(told: &[(u64, Told)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut changes: BTreeMap<u64, &Told> = BTreeMap::new();
    for (change, told) in told {
        if changes.insert(*change, told).is_some_and(|other| other != told) {
            wrong.push(format!("change {change} was told in two ways"));
        }
    }
    let nothing = Told { status: "-".to_owned(), ..Told::default() };
    let (mut before, mut members, mut lost) = (&nothing, None::<&BTreeMap<String, String>>, BTreeSet::new());
    for (number, (change, told)) in changes.into_iter().enumerate() {
        if change != number as u64 + 1 {
            wrong.push(format!("change {change} comes after {number}"));
            break;
        }
        let (from, to) = (before.status.as_str(), told.status.as_str());
        if !table::is_edge(EDGES, from, to) {
            wrong.push(format!("{from} -> {to}"));
        }
        lost.extend(told.open.iter().cloned());
        if to == "formed" {
            if SEATS[..3].iter().any(|seat| !told.members.contains_key(*seat)) {
                wrong.push(format!("formed of {:?}", told.members));
            }
            if told.members.values().collect::<BTreeSet<_>>().len() < told.members.len() {
                wrong.push(format!("an agent sits twice: {:?}", told.members));
            }
            let kept = |all: &BTreeMap<String, String>| {
                all.iter().filter(|(seat, _)| !lost.contains(*seat)).map(|(a, b)| (a.clone(), b.clone())).collect()
            };
            let (was, is): (Option<Vec<_>>, Vec<_>) = (members.map(kept), kept(&told.members));
            if was.is_some_and(|was| was != is) {
                wrong.push(format!("{members:?} became {:?} with {lost:?} lost", told.members));
            }
            (members, lost) = (Some(&told.members), BTreeSet::new());
        }
        before = told;
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seated(names: &[(&str, &str)]) -> BTreeMap<String, String> {
        names.iter().map(|(seat, name)| ((*seat).to_owned(), (*name).to_owned())).collect()
    }

    fn good() -> Minutes {
        let first = seated(&[("lead.1", "ann"), ("hand.1", "bob"), ("hand.2", "cid")]);
        let second = seated(&[("lead.1", "ann"), ("hand.1", "dan"), ("hand.2", "cid")]);
        let told = |status: &str, members: &BTreeMap<String, String>, open: &[&str]| Told {
            status: status.to_owned(),
            members: members.clone(),
            open: open.iter().map(|seat| (*seat).to_owned()).collect(),
        };
        let mut minutes = Minutes::default();
        let nobody = BTreeMap::new();
        minutes.told.insert(("c".into(), 1), vec![(1, told("expired", &nobody, &[]))]);
        let second_run = vec![
            (1, told("formed", &first, &[])),
            (2, told("degraded", &first, &["hand.1"])),
            (2, told("degraded", &first, &["hand.1"])),
            (3, told("formed", &second, &[])),
        ];
        minutes.told.insert(("c".into(), 2), second_run);
        minutes.formings = [("c".into(), 1), ("c".into(), 2)].into();
        let record = Record { status: "formed".into(), run: 2, members: second.clone() };
        minutes.records.insert("c".into(), record);
        minutes.seats.insert("c".into(), second);
        minutes
    }

    #[test]
    fn what_is_as_it_should_be_passes_and_every_planted_violation_is_found() {
        assert_eq!(violations(&good()), [""; 0]);
        let check = |expected: &str, plant: &dyn Fn(&mut Minutes)| {
            let mut minutes = good();
            plant(&mut minutes);
            let found = violations(&minutes);
            assert!(found.iter().any(|found| found.contains(expected)), "{expected:?} is not among {found:#?}");
        };
        fn run(minutes: &mut Minutes, run: u64) -> &mut Vec<(u64, Told)> {
            minutes.told.get_mut(&("c".into(), run)).unwrap()
        }
        check("told in two ways", &|m| run(m, 2)[2].1.open.clear());
        check("change 3 comes after 1", &|m| drop(run(m, 2).drain(1..3)));
        check("- -> degraded", &|m| run(m, 1)[0].1.status = "degraded".into());
        check("formed of", &|m| drop(run(m, 2)[0].1.members.remove("lead.1")));
        check("an agent sits twice", &|m| drop(run(m, 2)[3].1.members.insert("hand.1".into(), "ann".into())));
        check("with {\"hand.1\"} lost", &|m| drop(run(m, 2)[3].1.members.insert("hand.2".into(), "eve".into())));
        check("run 3 was begun", &|m| m.formings.extend([("c".into(), 3)]));
        check("run 1 was begun", &|m| drop(m.told.remove(&("c".into(), 1))));
        check("with the seats", &|m| m.records.get_mut("c").unwrap().status = "degraded".into());
        check("with the seats", &|m| drop(m.seats.get_mut("c").unwrap().remove("hand.1")));
        check("seats and no record", &|m| m.records.clear());
    }
}
