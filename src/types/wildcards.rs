//! A filter's wildcards by number and back: `a.*.b.*` is `a.$1.b.$2` (nats-server `transformTokenize`,
//! `transformUntokenize`).

use super::transform::wildcard_number;

/// The filter with its `*` numbered from 1.
pub fn numbered(filter: &str) -> String {
    let mut number = 0;
    let tokens = filter.split('.').map(|token| match token {
        "*" => {
            number += 1;
            format!("${number}")
        }
        _ => token.to_owned(),
    });
    tokens.collect::<Vec<_>>().join(".")
}

/// The filter that a destination's subjects match: each token that stands for a wildcard is `*`.
pub fn plain(destination: &str) -> String {
    let tokens = destination.split('.').map(|token| if wildcard_number(token).is_some() { "*" } else { token });
    tokens.collect::<Vec<_>>().join(".")
}

/// The way back of a transform from `filter` to `destination` that uses every wildcard once: the destination as a filter, and
/// the filter with its wildcards numbered as they stand there.
pub fn reversed(filter: &str, destination: &str) -> (String, String) {
    let order: Vec<usize> = destination.split('.').filter_map(wildcard_number).collect();
    let mut place = 0;
    let tokens = filter.split('.').map(|token| match token {
        "*" => {
            place += 1;
            let back = order.iter().position(|&number| number == place);
            back.map_or_else(|| "*".to_owned(), |back| format!("${}", back + 1))
        }
        _ => token.to_owned(),
    });
    let back = tokens.collect::<Vec<_>>().join(".");
    (plain(destination), back)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_get_numbers_and_lose_them() {
        assert_eq!(numbered("a.*.b.*.>"), "a.$1.b.$2.>");
        assert_eq!(plain("a.$2.b.{{ Wildcard(1) }}.>"), "a.*.b.*.>");
        assert_eq!(plain("a.$x.{{split(1)}}"), "a.$x.{{split(1)}}");
    }

    #[test]
    fn a_transform_has_a_way_back() {
        let check = |filter, destination, expected: (&str, &str)| {
            assert_eq!(reversed(filter, destination), (expected.0.into(), expected.1.into()));
        };
        check("x.*.*", "y.$2.$1", ("y.*.*", "x.$2.$1"));
        check("x.*.*.*", "$3.y.$1.$2", ("*.y.*.*", "x.$2.$3.$1"));
        check("x.>", "y.>", ("y.>", "x.>"));
    }
}
