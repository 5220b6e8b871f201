//! Plain text tables and ages, for people.

use std::time::Duration;

use crate::types::Timestamp;

/// Columns as wide as their widest cell, two spaces apart; the last one is not padded.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// # Panics
    /// When the row has another number of cells than the header.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row fits its table");
        // What clients wrote must not move the cursor of who looks at it.
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }
}

impl Table {
    /// The table's text, no wider than the terminal it goes to.
    pub fn fitted(&self) -> String {
        match terminal_columns() {
            Some(columns) => self.within(columns),
            None => self.to_string(),
        }
    }

    /// The widest columns but the first, whose cells people copy, are cut until all fit into `columns`, as far as it goes.
    fn within(&self, columns: usize) -> String {
        let mut widths = self.widths();
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        while total(&widths) > columns {
            let Some(widest) = (1..widths.len()).max_by_key(|column| widths[*column]) else { break };
            if widths[widest] <= NARROWEST {
                break;
            }
            widths[widest] -= 1;
        }
        self.lines(&widths)
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        (0..self.rows[0].len()).map(width).collect()
    }

    fn lines(&self, widths: &[usize]) -> String {
        let mut lines = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                if cell.chars().count() > *width {
                    line.extend(cell.chars().take(width - 1).chain("\u{2026}  ".chars()));
                } else {
                    line.push_str(&format!("{cell:<width$}  "));
                }
            }
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }
}

/// A column is never cut below this.
const NARROWEST: usize = 8;

/// The width of standard output, when that is a terminal.
fn terminal_columns() -> Option<usize> {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    }
    #[cfg(not(unix))]
    None
}

/// The text with control characters replaced.
pub fn printable(text: &str) -> String {
    text.chars().map(|shown| if shown.is_control() { '\u{fffd}' } else { shown }).collect()
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines(&self.widths()))
    }
}

/// `12s`, `4m`, `3h`, `9d`: the largest unit only.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(since).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `7d` or a bare number of seconds.
///
/// # Errors
/// A text for the usage message.
pub fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|byte: char| !byte.is_ascii_digit() && byte != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("a duration is a number with ms, s, m, h or d".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "a duration is a number with ms, s, m, h or d".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "that duration is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(vec!["a-long-id".into(), "working".into()]);
        table.row(vec!["ü".into(), "a\x1b[31mb".into()]);
        assert_eq!(table.to_string(), "ID         STATE\na-long-id  working\nü          a\u{fffd}[31mb\n");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_columns() {
        let mut table = Table::new(&["ID", "STATE", "WHY"]);
        table.row(vec!["a-very-long-id-to-copy".into(), "working".into(), "because of this and that".into()]);
        assert_eq!(table.within(43).lines().last(), Some("a-very-long-id-to-copy  working  because o\u{2026}"));
        assert_eq!(table.within(200), table.to_string());
        assert!(table.within(1).contains("a-very-long-id-to-copy  working  because\u{2026}"));
    }

    #[test]
    fn durations_and_ages() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("1.5m", 90_000), ("2h", 7_200_000), ("7", 7_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "x", "3 s", "3y", "1e3s", "-1s", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
        let now = Timestamp(1_000_000 * 1_000_000_000);
        for (seconds, expected) in [(5, "5s"), (65, "1m"), (7_200, "2h"), (200_000, "2d")] {
            assert_eq!(age(now - Duration::from_secs(seconds), now), expected);
        }
    }
}
