//! Labels of agents and what tasks require of them: `k`, `k=v`, `k!=v`, `k>=n`, `k<=n`, joined by commas, nothing more.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an agent says of itself: names with no, one or several values.
///
/// In JSON an object (`{"lang":["rust","go"],"gpu":true,"mem":32}`) or a list (`["lang=rust","gpu"]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    values: BTreeMap<String, Vec<String>>,
    /// The council and role of each seat the agent has: not its own to say, and not part of what is written.
    seats: Vec<(String, String)>,
}

impl Labels {
    /// Adds a value to a label.
    pub fn add(&mut self, name: &str, value: &str) {
        let values = self.values.entry(name.to_owned()).or_default();
        if !value.is_empty() && !values.iter().any(|known| known == value) {
            values.push(value.to_owned());
        }
    }

    fn get(&self, name: &str) -> Option<&[String]> {
        self.values.get(name).map(Vec::as_slice)
    }

    /// Has it meet `council` and `role` by these seats, and by no others.
    pub fn sit(&mut self, seats: Vec<(String, String)>) {
        self.seats = seats;
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object: BTreeMap<&str, serde_json::Value> = self
            .values
            .iter()
            .map(|(name, values)| {
                let value = match values.as_slice() {
                    [] => true.into(),
                    [one] => one.as_str().into(),
                    many => many.to_vec().into(),
                };
                (name.as_str(), value)
            })
            .collect();
        object.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        use serde_json::Value;
        let refuse = || serde::de::Error::custom("labels are an object of values or a list of `name` and `name=value`");
        let mut labels = Labels::default();
        match Value::deserialize(deserializer)? {
            Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    let text = item.as_str().ok_or_else(refuse)?;
                    let (name, value) = text.split_once('=').unwrap_or((text, ""));
                    labels.add(name.trim(), value.trim());
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let values = match value {
                        Value::Array(values) => values,
                        Value::Bool(false) | Value::Null => continue,
                        Value::Bool(true) => vec![Value::String(String::new())],
                        one => vec![one],
                    };
                    for value in values {
                        match value {
                            Value::String(text) => labels.add(&name, &text),
                            Value::Number(number) => labels.add(&name, &number.to_string()),
                            _ => return Err(refuse()),
                        }
                    }
                }
            }
            _ => return Err(refuse()),
        }
        Ok(labels)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Test {
    Has,
    Equal(String),
    NotEqual(String),
    /// Kept as text so that requirements compare and hash exactly; checked to be a number.
    AtLeast(String),
    AtMost(String),
}

/// A conjunction of tests over labels. The empty one is met by everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Requirement {
    tests: Vec<(String, Test)>,
}

impl Requirement {
    /// Reads the comma-separated form.
    ///
    /// # Errors
    /// A sentence naming the term that is not one of the five.
    pub fn parse(text: &str) -> Result<Requirement, String> {
        let mut tests = Vec::new();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let (name, test) = if let Some((name, value)) = term.split_once("!=") {
                (name, Test::NotEqual(value.trim().to_owned()))
            } else if let Some((name, value)) = term.split_once(">=") {
                (name, Test::AtLeast(number(value, term)?))
            } else if let Some((name, value)) = term.split_once("<=") {
                (name, Test::AtMost(number(value, term)?))
            } else if let Some((name, value)) = term.split_once('=') {
                (name, Test::Equal(value.trim().to_owned()))
            } else {
                (term, Test::Has)
            };
            let name = name.trim();
            if name.is_empty() || name.contains([' ', '<', '>', '!', '=']) {
                return Err(format!("`{term}` is none of k, k=v, k!=v, k>=n, k<=n"));
            }
            tests.push((name.to_owned(), test));
        }
        tests.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Requirement { tests })
    }

    /// Council and role are those of one seat: who is a developer here and a manager there is no manager here.
    pub fn is_met_by(&self, labels: &Labels) -> bool {
        let met_with = |seat| self.tests.iter().all(|(name, test)| met_in(test, name, labels, seat));
        if labels.seats.is_empty() { met_with(None) } else { labels.seats.iter().map(Some).any(met_with) }
    }

    /// The terms that `labels` do not meet, as they are written; of several seats, with the one that meets most.
    pub fn unmet(&self, labels: &Labels) -> Vec<String> {
        let seat = labels.seats.iter().max_by_key(|seat| self.score_with(labels, Some(seat)));
        let unmet = self.tests.iter().filter(|(name, test)| !met_in(test, name, labels, seat));
        unmet
            .map(|(name, test)| match test {
                Test::Has => name.clone(),
                Test::Equal(value) => format!("{name}={value}"),
                Test::NotEqual(value) => format!("{name}!={value}"),
                Test::AtLeast(value) => format!("{name}>={value}"),
                Test::AtMost(value) => format!("{name}<={value}"),
            })
            .collect()
    }

    /// How many of the terms `labels` meet, for ranking.
    pub fn score(&self, labels: &Labels) -> usize {
        let best = labels.seats.iter().map(|seat| self.score_with(labels, Some(seat))).max();
        best.unwrap_or_else(|| self.score_with(labels, None))
    }

    fn score_with(&self, labels: &Labels, seat: Option<&(String, String)>) -> usize {
        self.tests.iter().filter(|(name, test)| met_in(test, name, labels, seat)).count()
    }
}

fn number(text: &str, term: &str) -> Result<String, String> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(text.to_owned()),
        _ => Err(format!("`{term}` compares with something that is not a number")),
    }
}

/// Whether a term is met by the labels and, if there is one, a seat.
fn met_in(test: &Test, name: &str, labels: &Labels, seat: Option<&(String, String)>) -> bool {
    let of_seat = seat.and_then(|(council, role)| match name {
        "council" => Some(council),
        "role" => Some(role),
        _ => None,
    });
    let values = labels.get(name);
    match (test, of_seat) {
        (Test::NotEqual(unwanted), Some(value)) => value != unwanted && met(test, values),
        (_, Some(value)) => met(test, Some(std::slice::from_ref(value))) || met(test, values),
        (_, None) => met(test, values),
    }
}

fn met(test: &Test, values: Option<&[String]>) -> bool {
    let any = |check: &dyn Fn(&str) -> bool| values.is_some_and(|values| values.iter().any(|value| check(value)));
    let numeric = |bound: &str, check: fn(f64, f64) -> bool| {
        let bound: f64 = bound.parse().unwrap_or(f64::NAN);
        any(&|value| value.parse::<f64>().is_ok_and(|value| check(value, bound)))
    };
    match test {
        Test::Has => values.is_some(),
        Test::Equal(wanted) => any(&|value| value == wanted),
        Test::NotEqual(unwanted) => !any(&|value| value == unwanted),
        Test::AtLeast(bound) => numeric(bound, |value, bound| value >= bound),
        Test::AtMost(bound) => numeric(bound, |value, bound| value <= bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_filter() {
        let labels: Labels =
            serde_json::from_str(r#"{"lang":["rust","go"],"gpu":true,"mem":32,"fast":false}"#).unwrap();
        let check = |text: &str, expected: bool| {
            assert_eq!(Requirement::parse(text).unwrap().is_met_by(&labels), expected, "{text}");
        };
        check("", true);
        check("gpu", true);
        check("fast", false);
        check("lang=rust", true);
        check("lang=go, gpu", true);
        check("lang=python", false);
        check("lang!=python", true);
        check("lang!=go", false);
        check("os!=windows", true);
        check("mem>=16", true);
        check("mem>=32", true);
        check("mem>=33", false);
        check("mem<=32,mem>=32", true);
        check("disk<=5", false);
        check("lang>=1", false);
        assert_eq!(Requirement::parse("gpu,lang=python,mem>=2").unwrap().score(&labels), 2);
        let all = Requirement::parse("gpu,lang=python,mem>=64,lang!=go,os,mem <= 1").unwrap();
        assert_eq!(all.unmet(&labels), ["lang=python", "lang!=go", "mem>=64", "mem<=1", "os"]);
    }

    #[test]
    fn wrong_terms_are_named() {
        for bad in ["=x", "mem>=lots", "a b", "a>b", "mem>=NaN", "!=x", "x==="] {
            let outcome = Requirement::parse(bad);
            assert!(outcome.is_err() || bad == "x===", "{bad}");
        }
    }

    #[test]
    fn a_seat_is_council_and_role_together() {
        let mut labels: Labels = serde_json::from_str(r#"{"lang":"go","role":"ops"}"#).unwrap();
        labels.sit(vec![("c1".into(), "tpm".into()), ("c2".into(), "developer".into())]);
        let check = |text: &str, expected: bool| {
            assert_eq!(Requirement::parse(text).unwrap().is_met_by(&labels), expected, "{text}");
        };
        check("council=c1,role=tpm", true);
        check("council=c2,role=developer,lang=go", true);
        check("council=c1,role=developer", false);
        check("council=c3", false);
        check("council", true);
        check("role=ops", true);
        check("role=developer", true);
        check("council=c1,role!=tpm", false);
        check("lang=go,council!=c1", true);
        assert_eq!(Requirement::parse("council=c1,role=tpm,lang=c").unwrap().score(&labels), 2);
        assert_eq!(Requirement::parse("council=c2,role=developer,lang=c").unwrap().unmet(&labels), ["lang=c"]);
        let mut one = Labels::default();
        one.sit(vec![("c1".into(), "tpm".into())]);
        assert_eq!(Requirement::parse("council=c1,role!=tpm").unwrap().unmet(&one), ["role!=tpm"]);
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"{"lang":"go","role":"ops"}"#);
    }

    #[test]
    fn labels_round_trip() {
        for text in [r#"{"gpu":true,"lang":["rust","go"],"mem":"32"}"#, "{}"] {
            let labels: Labels = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&labels).unwrap(), text);
        }
        let listed: Labels = serde_json::from_str(r#"["lang=rust","lang=go","gpu"]"#).unwrap();
        assert_eq!(serde_json::to_string(&listed).unwrap(), r#"{"gpu":true,"lang":["rust","go"]}"#);
    }
}
