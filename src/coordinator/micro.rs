//! The coordinator as the micro service `tasks` (ADR-32): `$SRV.PING`, `INFO` and `STATS`.

use serde_json::{Value, json};

use super::desk::{VERBS, VerbStats};
use super::names;
use crate::types::Timestamp;

const NAME: &str = "tasks";
pub const QUEUE_GROUP: &str = "q";

/// The service's identity.
#[derive(Clone, Debug)]
pub struct Service {
    pub id: String,
    pub started: Timestamp,
}

impl Service {
    /// The subjects it answers on.
    pub fn subjects(&self) -> Vec<String> {
        ["PING", "INFO", "STATS"]
            .iter()
            .flat_map(|verb| {
                [format!("$SRV.{verb}"), format!("$SRV.{verb}.{NAME}"), format!("$SRV.{verb}.{NAME}.{}", self.id)]
            })
            .collect()
    }

    /// The answer to a request on one of its subjects.
    pub fn answer(&self, subject: &str, stats: &[VerbStats]) -> Option<Value> {
        let verb = subject.split('.').nth(1)?;
        let mut body = json!({
            "name": NAME, "id": self.id, "version": env!("CARGO_PKG_VERSION"), "metadata": {},
            "type": format!("io.nats.micro.v1.{}_response", verb.to_ascii_lowercase()),
        });
        match verb {
            "PING" => {}
            "INFO" => {
                body["description"] = "Durable tasks for agents that speak NATS".into();
                body["endpoints"] = VERBS.iter().map(endpoint).collect();
            }
            "STATS" => {
                body["started"] = self.started.to_rfc3339().into();
                body["endpoints"] = VERBS
                    .iter()
                    .zip(stats)
                    .map(|(verb, stats)| {
                        let mut shown = endpoint(verb);
                        shown["num_requests"] = stats.requests.into();
                        shown["num_errors"] = stats.errors.into();
                        shown["last_error"] = stats.last_error.as_str().into();
                        shown["processing_time"] = stats.processing_ns.into();
                        shown["average_processing_time"] = (stats.processing_ns / stats.requests.max(1)).into();
                        shown
                    })
                    .collect();
            }
            _ => return None,
        }
        Some(body)
    }
}

fn endpoint((name, subject): &(&str, &str)) -> Value {
    json!({ "name": name, "subject": format!("{}{subject}", names::API), "queue_group": QUEUE_GROUP, "metadata": {} })
}
