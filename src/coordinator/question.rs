//! Questions that agents ask their dispatchers, and the answers: a part of the task's record.

use serde::{Deserialize, Serialize};

use super::errors;
use super::record::{Phase, Record, State};
use super::task::Outcome;
use crate::types::Timestamp;

/// A question, and its answer once there is one. It stays open if the task goes on otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The first of a run is 1.
    pub number: u32,
    /// What it asks for: [`State::InputRequired`] or [`State::AuthRequired`].
    pub state: State,
    pub question: String,
    pub agent: String,
    pub attempt: u32,
    pub asked: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answered: Timestamp,
}

fn is_zero(time: &Timestamp) -> bool {
    time.is_zero()
}

impl Question {
    /// As everybody may see it: what was given for authorization is between dispatcher and agent.
    pub fn shown(&self) -> Question {
        let secret = self.state == State::AuthRequired;
        Question { answer: self.answer.clone().filter(|_| !secret), ..self.clone() }
    }
}

/// What an agent is told of answered questions: JSON in ASCII, so that it fits in a header of any client's.
pub fn told<'a>(questions: impl Iterator<Item = &'a Question>) -> String {
    let list: Vec<serde_json::Value> = questions
        .map(|question| {
            serde_json::json!({
                "number": question.number, "state": question.state, "question": question.question,
                "answer": question.answer,
            })
        })
        .collect();
    let mut text = String::new();
    for letter in serde_json::Value::from(list).to_string().chars() {
        if letter.is_ascii() && letter != '\u{7f}' {
            text.push(letter);
        } else {
            let mut units = [0; 2];
            letter.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

impl Record {
    /// The question whose answer put the task in line, where it still waits: it goes first, to the agent that asked.
    pub fn resumes(&self) -> Option<&Question> {
        let last = self.questions.last()?;
        let waits = self.phase == Phase::Queued && self.mode.is_assigned();
        (waits && last.answer.is_some() && last.answered == self.queued).then_some(last)
    }

    /// The agent cannot go on without an answer: its slot is free, its lease is parked.
    pub(super) fn ask(&self, lease: &str, auth: bool, question: &str, now: Timestamp) -> Outcome {
        let phase = if auth { Phase::AuthRequired } else { Phase::InputRequired };
        if !self.holds(lease) {
            return Err(errors::LEASE_LOST);
        }
        if self.phase == Phase::Cancelling {
            return Ok(Some(self.canceled(&self.reason, now)));
        }
        if self.phase.is_parked() {
            let same = self.questions.last().is_some_and(|open| open.question == question && self.phase == phase);
            return if same { Ok(None) } else { Err(errors::bad_request("a question is open already")) };
        }
        let mut next = self.next(phase, now);
        next.assigned = Timestamp::ZERO;
        next.questions.push(Question {
            number: self.questions.len() as u32 + 1,
            state: phase.state(),
            question: question.to_owned(),
            agent: self.agent.clone(),
            attempt: self.speaking(),
            asked: now,
            answer: None,
            answered: Timestamp::ZERO,
        });
        Ok(Some(next))
    }

    /// Back in line, without a new attempt. `number` names the question when the answer says which one it is for.
    pub(super) fn answer(&self, number: Option<u32>, answer: &str, now: Timestamp) -> Outcome {
        let is_meant = |question: &&Question| number.is_none_or(|number| number == question.number);
        if self.phase.is_parked() && self.questions.last().is_some_and(|open| is_meant(&open)) {
            // The delivery to come counts the attempt again.
            let counted = self.mode.is_assigned() || self.attempt > self.attempts_before;
            let attempt = self.attempt.saturating_sub(u32::from(counted));
            let mut next = Record { attempt, ..self.clone() }.queued(now);
            let open = next.questions.last_mut().expect("it was just looked at");
            open.answer = Some(answer.to_owned());
            open.answered = now;
            return Ok(Some(next));
        }
        // The same answer again, by somebody who did not hear that it was taken.
        let mut answered = self.questions.iter().rev().filter(is_meant);
        if answered.next().is_some_and(|question| question.answer.as_deref() == Some(answer)) {
            return Ok(None);
        }
        Err(errors::NOT_ASKED.with(match (number, self.phase.is_parked()) {
            (Some(number), _) => format!("not question {number}"),
            _ => self.state.as_str().to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_is_told_is_one_line_of_ascii() {
        let mut question = Question {
            number: 1,
            state: State::InputRequired,
            question: "Which?\r\nA \"b\" or ü \u{1f600}".into(),
            agent: "ann".into(),
            attempt: 1,
            asked: Timestamp(1),
            answer: Some("both\n\u{7f}".into()),
            answered: Timestamp(2),
        };
        let text = told([&question].into_iter());
        assert!(text.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{text}");
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back[0]["question"], question.question.as_str());
        assert_eq!(back[0]["answer"], "both\n\u{7f}");
        assert_eq!(question.shown().answer, question.answer);
        question.state = State::AuthRequired;
        assert_eq!(question.shown().answer, None);
        assert_eq!(question.shown().answered, Timestamp(2));
    }
}
