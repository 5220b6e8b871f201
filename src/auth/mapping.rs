//! Subjects that an account's clients publish to and that are routed as others, by weight (nats-server
//! `AddWeightedMappings`).

use crate::types::transform::Dice;
use crate::types::{Transform, subject, wildcards};

/// One rule as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MappingSpec {
    pub source: String,
    /// Destinations and their percent.
    pub destinations: Vec<(String, u8)>,
}

/// One rule, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    source: Box<[u8]>,
    /// The sum of the percents up to each destination, and what it does.
    destinations: Vec<(u8, Transform)>,
}

impl Mapping {
    /// # Errors
    /// Why the rule does not hold, in nats-server's words.
    pub fn new(spec: &MappingSpec) -> Result<Mapping, String> {
        let source = &spec.source;
        if !subject::is_valid(source.as_bytes()) {
            return Err("invalid subject".to_owned());
        }
        let mut total = 0u8;
        let mut destinations: Vec<(u8, Transform)> = Vec::new();
        let mut is_own = false;
        for (at, (destination, percent)) in spec.destinations.iter().enumerate() {
            if spec.destinations[..at].iter().any(|(other, _)| other == destination) {
                return Err(format!("duplicate entry for {destination:?}"));
            }
            if *percent > 100 {
                return Err("individual weights need to be <= 100".to_owned());
            }
            total += percent;
            if total > 100 {
                return Err("total weight needs to be <= 100".to_owned());
            }
            is_own |= destination == source;
            destinations.push((*percent, transform(source, destination)?));
        }
        // What is left stays where it is, unless it is said to be lost.
        if total != 100 && !is_own {
            destinations.push((100 - total, transform(source, &wildcards::numbered(source))?));
        }
        destinations.sort_by_key(|(percent, _)| *percent);
        let mut sum = 0;
        for (percent, _) in &mut destinations {
            sum += *percent;
            *percent = sum;
        }
        Ok(Mapping { source: source.as_bytes().into(), destinations })
    }

    pub fn matches(&self, subject: &[u8]) -> bool {
        subject::matches(&self.source, subject)
    }

    /// Where a message on a subject that matches goes; `None` when it goes nowhere.
    pub fn apply(&self, subject: &[u8], percent: u8, dice: &mut Dice) -> Option<Vec<u8>> {
        let (_, transform) = self.destinations.iter().find(|(sum, _)| percent < *sum)?;
        transform.apply(subject, dice)
    }
}

fn transform(source: &str, destination: &str) -> Result<Transform, String> {
    match Transform::checked(source, destination) {
        Ok(Some(transform)) => Ok(transform),
        Ok(None) => Err("invalid subject".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(source: &str, destinations: &[(&str, u8)]) -> Result<Mapping, String> {
        let destinations = destinations.iter().map(|&(text, percent)| (text.to_owned(), percent)).collect();
        Mapping::new(&MappingSpec { source: source.to_owned(), destinations })
    }

    #[test]
    fn percents_decide() {
        let check = |destinations: &[(&str, u8)], percent, expected: Option<&str>| {
            let mapping = mapping("a.*.*", destinations).unwrap();
            assert!(mapping.matches(b"a.1.2") && !mapping.matches(b"a.1"));
            let found = mapping.apply(b"a.1.2", percent, &mut Dice::new(1));
            assert_eq!(found.map(|bytes| String::from_utf8(bytes).unwrap()).as_deref(), expected, "{destinations:?}");
        };
        check(&[("b.$2.$1", 100)], 0, Some("b.2.1"));
        check(&[("b.$2.$1", 100)], 99, Some("b.2.1"));
        check(&[("b.$2.$1", 70), ("c.$1.$2", 30)], 29, Some("c.1.2"));
        check(&[("b.$2.$1", 70), ("c.$1.$2", 30)], 30, Some("b.2.1"));
        // The rest stays, or is lost where the source itself is named.
        check(&[("b.$2.$1", 40)], 39, Some("b.2.1"));
        check(&[("b.$2.$1", 40)], 40, Some("a.1.2"));
        let lossy = mapping("a", &[("a", 40)]).unwrap();
        assert_eq!(lossy.apply(b"a", 39, &mut Dice::new(1)).as_deref(), Some(&b"a"[..]));
        assert_eq!(lossy.apply(b"a", 40, &mut Dice::new(1)), None);
    }

    #[test]
    fn rules_that_do_not_hold_are_refused() {
        let check = |source, destinations: &[(&str, u8)], expected: &str| {
            let error = mapping(source, destinations).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("a..b", &[("c", 100)], "invalid subject");
        check("a", &[("c", 60), ("d", 60)], "total weight needs to be <= 100");
        check("a", &[("c", 101)], "individual weights need to be <= 100");
        check("a", &[("c", 10), ("c", 10)], "duplicate entry for \"c\"");
        check("a.*", &[("c.$2", 100)], "wildcard index out of range");
        check("a.*", &[("c..d", 100)], "invalid");
    }
}
