//! What a user may publish and subscribe to, as its configuration or JWT says it.

use std::time::Duration;

use crate::types::subject;

/// A user's permissions. Whatever is left out is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub publish: SubjectRules,
    pub subscribe: SubjectRules,
    /// Whether the reply subjects of requests it receives may be published to, beside `publish`.
    pub responses: Option<ResponseLimits>,
}

/// Subjects allowed and denied; a denial counts for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectRules {
    /// `None`: everything. An empty list: nothing.
    pub allow: Option<Vec<SubjectRule>>,
    pub deny: Vec<SubjectRule>,
}

/// A filter, and for subscriptions the queue groups it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectRule {
    pub filter: Box<str>,
    /// A queue group or a wildcard for some; `None`: with and without one.
    pub queue: Option<Box<str>>,
}

/// How often and how long a reply subject may be answered on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// `None`: as often as it likes.
    pub msgs_max: Option<u32>,
    /// `None`: for ever.
    pub expires: Option<Duration>,
}

impl Default for ResponseLimits {
    /// nats-server's: one answer within two minutes.
    fn default() -> ResponseLimits {
        ResponseLimits { msgs_max: Some(1), expires: Some(Duration::from_secs(2 * 60)) }
    }
}

impl SubjectRule {
    /// A rule from `filter` or `filter queue`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<SubjectRule, String> {
        let mut words = text.split_whitespace();
        let (filter, queue) = (words.next().unwrap_or_default(), words.next());
        let valid = |word: &str| subject::is_valid(word.as_bytes());
        if words.next().is_some() || !valid(filter) || queue.is_some_and(|queue| !valid(queue)) {
            return Err(format!("invalid subject-queue {text:?}"));
        }
        Ok(SubjectRule { filter: filter.into(), queue: queue.map(Into::into) })
    }

    /// As [`SubjectRule::parse`] for publishing, which knows no queue groups.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_publish(text: &str) -> Result<SubjectRule, String> {
        if subject::is_valid(text.as_bytes()) {
            Ok(SubjectRule { filter: text.into(), queue: None })
        } else {
            Err(format!("{text:?} is not a valid subject"))
        }
    }
}

impl SubjectRules {
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }
}

impl Permissions {
    /// Whether they restrict nothing.
    pub fn is_open(&self) -> bool {
        self.publish.is_open() && self.subscribe.is_open() && self.responses.is_none()
    }
}
