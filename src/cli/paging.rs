//! Lists of the task API, read page by page: an answer is bounded, and tells how many are `left` behind it.

use serde_json::{Value, json};

use super::connection::Connection;
use super::failure::{Failure, REFUSED};
use super::output::text;

/// What one answer is asked for at most.
const PAGE_MAX: usize = 1000;
/// How often a list is begun again because what a page ended with was gone when the next was asked for.
const RESTARTS_MAX: u32 = 3;

/// A list of the API: its endpoint, the field of the answer it is in, the field that `after` names an element by.
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a> {
    pub endpoint: &'a str,
    pub field: &'static str,
    pub id: &'static str,
}

impl Paged<'_> {
    /// Asks until `limit` elements are there, or all without one. The answer is the first page's with all elements in it, and
    /// with what the last page says is `left`.
    ///
    /// # Errors
    /// What a page was refused with.
    pub async fn read(&self, connection: &Connection, filter: &Value, limit: Option<usize>) -> Result<Value, Failure> {
        let mut restarts = 0;
        loop {
            let mut all: Vec<Value> = Vec::new();
            let mut first: Option<Value> = None;
            let outcome = loop {
                let wanted = limit.map_or(PAGE_MAX, |limit| PAGE_MAX.min(limit - all.len()));
                let mut request = filter.clone();
                request["limit"] = json!(wanted);
                if let Some(last) = all.last() {
                    request["after"] = text(last, self.id).into();
                }
                let mut page = match connection.call(self.endpoint, b"", request.to_string().as_bytes()).await {
                    Ok(page) => page,
                    Err(failure) => break Err((failure, !all.is_empty())),
                };
                let found = page[self.field].as_array_mut().map(std::mem::take).unwrap_or_default();
                let (some, left) = (!found.is_empty(), page["left"].clone());
                all.extend(found);
                first.get_or_insert(page)["left"] = left.clone();
                let full = limit.is_some_and(|limit| all.len() >= limit);
                if full || !some || left.as_u64().unwrap_or(0) == 0 {
                    break Ok(());
                }
            };
            match outcome {
                Ok(()) => {
                    let mut answer = first.unwrap_or_default();
                    answer[self.field] = all.into();
                    return Ok(answer);
                }
                Err((failure, true)) if failure.code == REFUSED && restarts < RESTARTS_MAX => restarts += 1,
                Err((failure, _)) => return Err(failure),
            }
        }
    }
}

/// The line below a table that does not show everything; nothing when it does.
pub fn more(answer: &Value) -> String {
    let left = answer["left"].as_u64().filter(|left| *left > 0);
    left.map(|left| format!("{left} more: --limit, or --after the last one here.\n")).unwrap_or_default()
}
