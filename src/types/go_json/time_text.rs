//! Why a text is no time, in the words of Go's `time.Time.UnmarshalJSON`.

use super::fault::quote;

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// Go's error for a text that is not RFC 3339.
pub fn fault(text: &str) -> String {
    let whole = quote(text.as_bytes());
    match first_wrong(text) {
        Wrong::Shape { rest, part } => {
            format!("parsing time {whole} as {LAYOUT:?}: cannot parse {} as {part:?}", quote(rest.as_bytes()))
        }
        Wrong::Range(what) => format!("parsing time {whole}: {what} out of range"),
        Wrong::Extra(rest) => format!("parsing time {whole}: extra text: {}", quote(rest.as_bytes())),
    }
}

enum Wrong<'a> {
    /// What cannot be read as this part of the layout.
    Shape {
        rest: &'a str,
        part: &'static str,
    },
    Range(&'static str),
    Extra(&'a str),
}

fn first_wrong(text: &str) -> Wrong<'_> {
    let mut rest = text;
    for (part, digits, what) in [
        ("2006", 4, ""),
        ("-", 0, ""),
        ("01", 2, "month"),
        ("-", 0, ""),
        ("02", 2, "day"),
        ("T", 0, ""),
        ("15", 2, "hour"),
        (":", 0, ""),
        ("04", 2, "minute"),
        (":", 0, ""),
        ("05", 2, "second"),
    ] {
        if digits == 0 {
            match rest.strip_prefix(part) {
                Some(after) => rest = after,
                None => return Wrong::Shape { rest, part },
            }
            continue;
        }
        let Some(number) = rest.get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())) else {
            return Wrong::Shape { rest, part };
        };
        let number: u32 = number.parse().expect("a few digits");
        let out_of_range = match what {
            "month" => !(1..=12).contains(&number),
            "day" => !(1..=31).contains(&number),
            "hour" => number > 23,
            "minute" | "second" => number > 59,
            _ => false,
        };
        if out_of_range {
            return Wrong::Range(what);
        }
        rest = &rest[digits..];
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            rest = &fraction[digits..];
        }
    }
    let zone = match rest.strip_prefix('Z') {
        Some(after) => after,
        None => {
            let shape = Wrong::Shape { rest, part: "Z07:00" };
            let Some(zone) = rest.get(..6).map(str::as_bytes) else { return shape };
            let digits = [1, 2, 4, 5].iter().all(|at| zone[*at].is_ascii_digit());
            if !matches!(zone[0], b'+' | b'-') || zone[3] != b':' || !digits {
                return shape;
            }
            if &zone[1..3] > b"24".as_slice() {
                return Wrong::Range("time zone offset hour");
            }
            if &zone[4..6] > b"60".as_slice() {
                return Wrong::Range("time zone offset minute");
            }
            &rest[6..]
        }
    };
    if !zone.is_empty() {
        return Wrong::Extra(zone);
    }
    // Nothing else is left than a day its month does not have.
    Wrong::Range("day")
}
