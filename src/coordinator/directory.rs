//! Micro services (ADR-32) that work on tasks: what answers to `$SRV.INFO` say, kept by endpoint.
//!
//! An endpoint whose metadata has `task.queue` takes tasks of these queues (several are joined by commas); `task.slots` is
//! how many requests one instance has in hand at once, `task.caps` its labels. The service's own metadata holds for its
//! first endpoint, when no endpoint has any. Instances that share a subject are one worker with the sum of their slots: NATS
//! chooses among them, so labels are those that all of them have.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::labels::Labels;
use super::record;
use crate::types::{Timestamp, subject};

/// Endpoints and instances kept; further ones are passed over.
const ENDPOINTS_MAX: usize = 1000;
const INSTANCES_MAX: usize = 10_000;
/// Rounds of questions an instance may leave unanswered.
const MISSED_MAX: u32 = 3;
const SLOTS_MAX: u32 = 100_000;

/// What one instance of a service says of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub service: String,
    pub instance: String,
    pub subject: String,
    pub queues: Vec<String>,
    pub slots: u32,
    pub caps: Vec<String>,
}

/// The offers in an answer to `$SRV.INFO`; none for a service that takes no tasks or says so in a way that cannot be.
pub fn offers(info: &[u8]) -> Vec<Offer> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Endpoint {
        subject: String,
        metadata: Option<BTreeMap<String, String>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Info {
        name: String,
        id: String,
        metadata: Option<BTreeMap<String, String>>,
        endpoints: Vec<Endpoint>,
    }
    let Ok(info) = serde_json::from_slice::<Info>(info) else { return Vec::new() };
    let own = info.metadata.unwrap_or_default();
    let says = |metadata: &Option<BTreeMap<String, String>>| {
        metadata.as_ref().is_some_and(|metadata| metadata.contains_key("task.queue"))
    };
    let specific = info.endpoints.iter().any(|endpoint| says(&endpoint.metadata));
    let mut offers = Vec::new();
    for (at, endpoint) in info.endpoints.iter().enumerate() {
        if specific && !says(&endpoint.metadata) || !specific && at > 0 {
            continue;
        }
        let find = |name: &str| endpoint.metadata.as_ref().and_then(|metadata| metadata.get(name)).or(own.get(name));
        let list = |name: &str| {
            let text = find(name).map(String::as_str).unwrap_or_default();
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect::<Vec<_>>()
        };
        let queues = list("task.queue");
        let slots = find("task.slots").map_or(Some(1), |text| text.trim().parse().ok());
        let fine = !queues.is_empty()
            && queues.iter().all(|queue| record::is_id(queue))
            && subject::is_valid_literal(endpoint.subject.as_bytes())
            && !endpoint.subject.starts_with('$');
        let Some(slots) = slots.filter(|slots| fine && (1..=SLOTS_MAX).contains(slots)) else {
            if !queues.is_empty() {
                tracing::warn!(
                    service = info.name,
                    subject = endpoint.subject,
                    "its task metadata cannot be: passed over"
                );
            }
            continue;
        };
        offers.push(Offer {
            service: info.name.clone(),
            instance: info.id.clone(),
            subject: endpoint.subject.clone(),
            queues,
            slots,
            caps: list("task.caps"),
        });
    }
    offers
}

#[derive(Clone, Debug)]
struct Instance {
    slots: u32,
    caps: Vec<String>,
    heard: Timestamp,
    missed: u32,
}

/// A subject where services take tasks.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    pub service: String,
    pub queues: Vec<String>,
    instances: BTreeMap<String, Instance>,
}

impl Endpoint {
    pub fn instances(&self) -> usize {
        self.instances.len()
    }

    /// Requests that all instances together have in hand at once.
    pub fn slots(&self) -> u32 {
        let all: u64 = self.instances.values().map(|instance| u64::from(instance.slots)).sum();
        all.min(u64::from(SLOTS_MAX)) as u32
    }

    /// What every instance can.
    pub fn labels(&self) -> Labels {
        let mut labels = Labels::default();
        let Some(first) = self.instances.values().next() else { return labels };
        for cap in &first.caps {
            if self.instances.values().all(|instance| instance.caps.contains(cap)) {
                let (name, value) = cap.split_once('=').unwrap_or((cap, ""));
                labels.add(name.trim(), value.trim());
            }
        }
        labels
    }
}

/// All endpoints by subject.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    endpoints: BTreeMap<String, Endpoint>,
}

impl Directory {
    pub fn get(&self, subject: &str) -> Option<&Endpoint> {
        self.endpoints.get(subject)
    }

    /// Takes what an instance says.
    pub fn hear(&mut self, offer: Offer, now: Timestamp) {
        if self.endpoints.len() >= ENDPOINTS_MAX && !self.endpoints.contains_key(&offer.subject) {
            return;
        }
        let endpoint = self.endpoints.entry(offer.subject).or_default();
        endpoint.service = offer.service;
        endpoint.queues = offer.queues;
        if endpoint.instances.len() < INSTANCES_MAX || endpoint.instances.contains_key(&offer.instance) {
            let instance = Instance { slots: offer.slots, caps: offer.caps, heard: now, missed: 0 };
            endpoint.instances.insert(offer.instance, instance);
        }
    }

    /// A round of questions begins: who left several unanswered, and for longer than `patience`, is gone. Returns the
    /// subjects that lost somebody.
    pub fn begin_round(&mut self, patience: Duration, now: Timestamp) -> Vec<String> {
        let mut changed = Vec::new();
        for (subject, endpoint) in &mut self.endpoints {
            let before = endpoint.instances.len();
            endpoint.instances.retain(|_, instance| {
                instance.missed += 1;
                instance.missed <= MISSED_MAX || now.since(instance.heard) <= patience
            });
            if endpoint.instances.len() < before {
                changed.push(subject.clone());
            }
        }
        self.endpoints.retain(|subject, endpoint| !endpoint.instances.is_empty() || changed.contains(subject));
        changed
    }

    /// Nobody listens at `subject`.
    pub fn deserted(&mut self, subject: &str) {
        self.endpoints.remove(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(metadata: &str, endpoints: &str) -> Vec<(String, Vec<String>, u32, Vec<String>)> {
        let text = format!(
            r#"{{"name":"resize","id":"I1","version":"1.0.0","metadata":{metadata},"endpoints":[{endpoints}]}}"#
        );
        offers(text.as_bytes())
            .into_iter()
            .map(|offer| (offer.subject, offer.queues, offer.slots, offer.caps))
            .collect()
    }

    #[test]
    fn offers_are_read_from_endpoints_or_the_service() {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let own = r#"{"task.queue":"images","task.slots":"3","task.caps":"lang=rust, gpu"}"#;
        let plain = r#"{"name":"run","subject":"resize.run","queue_group":"q","metadata":null}"#;
        let health = r#"{"name":"health","subject":"resize.health","queue_group":"q"}"#;
        let run = ("resize.run".to_owned(), strings(&["images"]), 3, strings(&["lang=rust", "gpu"]));
        assert_eq!(info(own, &format!("{plain},{health}")), [run]);
        // An endpoint's own metadata comes first, and what it leaves out is the service's.
        let two = r#"{"name":"two","subject":"two","metadata":{"task.queue":"a,b"}}"#;
        let both = ("two".to_owned(), strings(&["a", "b"]), 3, strings(&["lang=rust", "gpu"]));
        assert_eq!(info(own, &format!("{plain},{two}")), [both]);
        for (metadata, endpoint) in [
            ("null", plain),
            (r#"{"task.queue":"a.b"}"#, plain),
            (r#"{"task.queue":"a","task.slots":"0"}"#, plain),
            (r#"{"task.queue":"a","task.slots":"many"}"#, plain),
            (own, r#"{"subject":"a.*"}"#),
            (own, r#"{"subject":"$JS.API.STREAM.DELETE.TASKS"}"#),
            (own, ""),
        ] {
            assert_eq!(info(metadata, endpoint), [], "{metadata} {endpoint}");
        }
        assert_eq!(offers(b"no json"), []);
    }

    #[test]
    fn instances_add_up_and_leave_after_missed_rounds() {
        let mut directory = Directory::default();
        let offer = |instance: &str, caps: &[&str]| Offer {
            service: "s".into(),
            instance: instance.into(),
            subject: "s.run".into(),
            queues: vec!["q".into()],
            slots: 2,
            caps: caps.iter().map(|cap| (*cap).to_owned()).collect(),
        };
        let second = |n: u64| Timestamp(1_000_000_000_000) + Duration::from_secs(n);
        directory.hear(offer("1", &["gpu", "lang=rust"]), second(0));
        directory.hear(offer("2", &["gpu"]), second(0));
        directory.hear(offer("2", &["gpu"]), second(0));
        let endpoint = directory.get("s.run").unwrap();
        assert_eq!((endpoint.instances(), endpoint.slots()), (2, 4));
        assert_eq!(serde_json::to_value(endpoint.labels()).unwrap(), serde_json::json!({ "gpu": true }));
        let patience = Duration::from_secs(5);
        for round in 1..=9 {
            let left = directory.begin_round(patience, second(round));
            assert_eq!(left.is_empty(), round != 6, "round {round}");
            directory.hear(offer("1", &["gpu", "lang=rust"]), second(round));
        }
        assert_eq!(directory.get("s.run").unwrap().slots(), 2);
        directory.deserted("s.run");
        assert!(directory.get("s.run").is_none());
    }
}
