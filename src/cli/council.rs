//! `natterjack council …`: agents that come together for one job.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::{ConnectFlags, Connection};
use super::failure::{EXIT_CODES, Failure, REFUSED};
use super::output::{self, Listed, Watch, list, show, text, without_nulls};
use super::paging::{self, Paged};
use super::table::{self, Table};
use super::task_options::header;

/// Form councils of agents, see who sits in them, dissolve them.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct CouncilCommand {
    #[command(flatten)]
    connect: ConnectFlags,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List councils.
    #[command(visible_alias = "list")]
    Ls {
        /// Only those that are forming, formed, degraded, expired or dissolved.
        #[arg(long)]
        status: Option<String>,
        /// At most so many.
        #[arg(short, long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Only those behind this one, to page on.
        #[arg(long, value_name = "COUNCIL")]
        after: Option<String>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show a council, its members and what is missing.
    Info { council: String },
    /// Offer the seats of a council until they are taken.
    #[command(after_help = "\
Example:
  natterjack council form c7 --role tpm=1 --role developer=4 --offer-to chorus.councils.forming \\
      --status-to chorus.councils.c7.status --wait '{\"issue\": 7}'")]
    Form(Box<Form>),
    /// End a council.
    Dissolve {
        council: String,
        /// Why, for its members.
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Form {
    council: String,
    /// What is offered: JSON, or a text.
    body: Option<String>,
    /// Read the offer from this file.
    #[arg(short, long, value_name = "PATH", conflicts_with = "body")]
    file: Option<PathBuf>,
    /// Seats of a role: developer=4.
    #[arg(short, long = "role", value_name = "ROLE=SEATS", value_parser = seats, required = true)]
    roles: Vec<(String, u32)>,
    /// Seats that do not count for the quorum.
    #[arg(long, value_name = "ROLE=SEATS", value_parser = seats)]
    optional: Vec<(String, u32)>,
    /// How many seats must be taken: `all`, or a number.
    #[arg(long)]
    quorum: Option<String>,
    /// Subject of the offer.
    #[arg(long, value_name = "SUBJECT")]
    offer_to: String,
    /// Subject that is told when it is formed, degraded, expired or dissolved.
    #[arg(long, value_name = "SUBJECT")]
    status_to: Option<String>,
    /// Headers of the offer and of what is told.
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// How long it may take.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    deadline: Option<Duration>,
    /// How long a seat holds that is not written anew, of an agent that is not registered.
    #[arg(long, value_name = "DURATION", value_parser = table::duration)]
    seat_ttl: Option<Duration>,
    /// Wait until it is formed.
    #[arg(short, long)]
    wait: bool,
}

impl CouncilCommand {
    /// # Errors
    /// What to tell the caller.
    pub async fn run(self) -> Result<(), Failure> {
        let json = self.connect.json;
        let connection = Connection::open(&self.connect).await?;
        match self.action {
            Action::Ls { status, limit, after, watch } => {
                let filter = without_nulls(json!({ "status": status, "after": after }));
                let listed = Listed { field: "councils", id: "council", restless: &[] };
                let pages = Paged { endpoint: "COUNCIL.LIST", field: "councils", id: "council" };
                let ask = async || pages.read(&connection, &filter, Some(limit as usize)).await;
                watch.show(json, &listed, ask, render_list).await?;
            }
            Action::Info { council } => {
                show(&connection.call(&format!("COUNCIL.INFO.{council}"), b"", b"").await?, json, output::record);
            }
            Action::Form(asked) => form(&connection, &asked, json).await?,
            Action::Dissolve { council, reason } => {
                let body = without_nulls(json!({ "reason": reason })).to_string();
                let answer = connection.call(&format!("COUNCIL.DISSOLVE.{council}"), b"", body.as_bytes()).await?;
                show(&answer, json, |answer| format!("Council {council} is {}.", text(answer, "status")));
            }
        }
        connection.close().await;
        Ok(())
    }
}

async fn form(connection: &Connection, asked: &Form, json: bool) -> Result<(), Failure> {
    let council = &asked.council;
    let bad = |error| connection.failure(&error);
    let mut events = connection.client().subscribe(&format!("$TASK.E.COUNCIL.{council}")).map_err(bad)?;
    let request = asked.request()?;
    let mut now = connection.call(&format!("COUNCIL.FORM.{council}"), b"", request.as_bytes()).await?;
    while asked.wait && text(&now, "status") == "forming" {
        // An event says that something changed; the answer says what is so.
        let _ = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
        now = connection.call(&format!("COUNCIL.INFO.{council}"), b"", b"").await?;
    }
    show(&now, json, |now| {
        let missing =
            if is_empty(&now["missing"]) { String::new() } else { format!("; missing: {}", roles(&now["missing"])) };
        format!("Council {council} is {}{missing}.", text(now, "status"))
    });
    if text(&now, "status") == "expired" {
        return Err(Failure::silent(REFUSED));
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(serde_json::Map::is_empty)
}

impl Form {
    /// The request as it is sent; the offer in it as it was given.
    fn request(&self) -> Result<String, Failure> {
        let offer = match (&self.file, &self.body) {
            (Some(path), _) => read_text(path)?,
            (None, body) => body.clone().unwrap_or_default(),
        };
        let seats = |roles: &[(String, u32)]| {
            let seats: serde_json::Map<String, Value> =
                roles.iter().map(|(role, count)| (role.clone(), (*count).into())).collect();
            (!seats.is_empty()).then_some(seats)
        };
        let headers: serde_json::Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let quorum =
            self.quorum.as_deref().map(|quorum| quorum.parse::<u32>().map_or_else(|_| quorum.into(), Value::from));
        let request = without_nulls(json!({
            "roles": seats(&self.roles),
            "optional": seats(&self.optional),
            "quorum": quorum,
            "offer_to": self.offer_to,
            "status_to": self.status_to,
            "headers": (!headers.is_empty()).then_some(headers),
            "deadline_s": self.deadline.map(|deadline| deadline.as_secs_f64()),
            "seat_ttl_s": self.seat_ttl.map(|time| time.as_secs_f64()),
        }))
        .to_string();
        let open = request.strip_suffix('}').expect("an object ends with a brace");
        Ok(if offer.is_empty() { request } else { format!("{open},\"body\":{}}}", quoted(&offer)) })
    }
}

/// The offer as a JSON value of which the coordinator makes the same bytes again: JSON is published as it is written, a JSON
/// text as what is in it.
fn quoted(offer: &str) -> String {
    let is_text = offer.starts_with('"') || offer == "null" || offer.trim() != offer;
    match serde_json::from_str::<&serde_json::value::RawValue>(offer) {
        Ok(raw) if !is_text => raw.get().to_owned(),
        _ => Value::from(offer).to_string(),
    }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(REFUSED, format!("Cannot read {}: {error}.", path.display())))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = format!(
            "{} is no text: byte {at} is not UTF-8, and an offer is JSON or a text.\nSend what is binary as base64, or say in the \
             offer where it is.",
            path.display()
        );
        Failure::new(REFUSED, text)
    })
}

/// Roles named one by one; those beyond are counted.
const ROLES_SHOWN: usize = 4;

/// `developer 4, tpm 1`, from seats by role.
fn roles(seats: &Value) -> String {
    let Some(seats) = seats.as_object() else { return String::new() };
    let mut told: Vec<String> = seats.iter().take(ROLES_SHOWN).map(|(role, count)| format!("{role} {count}")).collect();
    if let Some(more) = seats.len().checked_sub(ROLES_SHOWN).filter(|more| *more > 0) {
        told.push(format!("and {more} more roles"));
    }
    told.join(", ")
}

/// `ROLE=SEATS`; one seat without a number.
fn seats(text: &str) -> Result<(String, u32), String> {
    let (role, count) = text.split_once('=').unwrap_or((text, "1"));
    let count = count.parse().map_err(|_| "seats are ROLE=NUMBER".to_owned())?;
    if role.is_empty() { Err("seats are ROLE=NUMBER".to_owned()) } else { Ok((role.to_owned(), count)) }
}

fn render_list(found: &Value) -> String {
    let councils = list(found, "councils");
    if councils.is_empty() {
        return "No councils. `natterjack council form --help` shows how one is formed.".to_owned();
    }
    let mut table = Table::new(&["COUNCIL", "STATUS", "SEATED", "DEADLINE", "MISSING"]);
    for council in councils {
        let missing = &council["missing"];
        table.row(vec![
            text(council, "council").to_owned(),
            text(council, "status").to_owned(),
            council["seated"].to_string(),
            text(council, "deadline").to_owned(),
            roles(missing),
        ]);
    }
    table.fitted() + &paging::more(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted() {
        assert_eq!(seats("developer=4"), Ok(("developer".into(), 4)));
        assert_eq!(seats("tpm"), Ok(("tpm".into(), 1)));
        assert!(seats("=4").is_err() && seats("a=many").is_err());
    }
}
