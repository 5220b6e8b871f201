//! The table: medians of both servers, the median of the rounds' ratios, and each bar with met or missed.

use crate::rows::{Bar, Line, Row, Unit};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Side {
    /// natterjack, which syncs before it acks.
    Ours,
    /// nats-server as it comes.
    Default,
    /// nats-server with `sync_interval: always`.
    Always,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Ours => "natterjack",
            Side::Default => "nats-server",
            Side::Always => "nats-server, always",
        }
    }
}

/// All that was measured, by row, server and round.
#[derive(Default)]
pub struct Figures(BTreeMap<(&'static str, Side), BTreeMap<usize, Vec<f64>>>);

impl Figures {
    pub fn add(&mut self, row: &'static str, side: Side, round: usize, values: Vec<f64>) {
        self.0.entry((row, side)).or_default().insert(round, values);
    }

    fn values(&self, row: &'static str, line: usize, side: Side) -> Vec<f64> {
        self.0.get(&(row, side)).into_iter().flatten().map(|(_, values)| values[line]).collect()
    }

    /// Ours divided by theirs, in each round that has both.
    fn ratios(&self, row: &'static str, line: usize, side: Side) -> Vec<f64> {
        let (Some(ours), Some(theirs)) = (self.0.get(&(row, Side::Ours)), self.0.get(&(row, side))) else {
            return Vec::new();
        };
        ours.iter().filter_map(|(round, ours)| Some(ours[line] / theirs.get(round)?[line])).collect()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

pub fn figure(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        Unit::PerSecond if value >= 1e4 => format!("{:.0} k/s", value / 1e3),
        Unit::PerSecond => format!("{value:.0} /s"),
        Unit::Microseconds => format!("{value:.1} us"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Bytes if value >= 1e6 => format!("{:.1} MiB", value / 1024.0 / 1024.0),
        Unit::Bytes => format!("{:.1} KiB", value / 1024.0),
    }
}

/// The whole table as Markdown, ready to be quoted.
pub fn table(rows: &[&Row], figures: &Figures) -> String {
    let mut out = String::from(
        "\n| 128 B messages | natterjack | nats-server | nats-server, always | ratio | bar |\n|---|---:|---:|---:|---:|---|\n",
    );
    for row in rows {
        for (number, line) in row.lines.iter().enumerate() {
            let cell = |side| match median(figures.values(row.key, number, side)) {
                Some(value) => figure(line.unit, value),
                None => "-".into(),
            };
            let ratio = match median(figures.ratios(row.key, number, Side::Default)) {
                Some(ratio) => format!("{ratio:.2}x"),
                None => "-".into(),
            };
            let (ours, theirs, always) = (cell(Side::Ours), cell(Side::Default), cell(Side::Always));
            let bars = bars(row, number, line, figures);
            writeln!(out, "| {} | {ours} | {theirs} | {always} | {ratio} | {bars} |", line.name).expect("a String");
        }
    }
    out
}

fn bars(row: &Row, number: usize, line: &Line, figures: &Figures) -> String {
    let shown = line.bars.iter().map(|bar| {
        let ratio = |side| median(figures.ratios(row.key, number, side));
        let (text, met) = match *bar {
            Bar::AtLeast(bar) => (format!(">= {bar}x"), ratio(Side::Default).map(|ratio| ratio >= bar)),
            Bar::AtMost(bar) => (format!("<= {bar}x"), ratio(Side::Default).map(|ratio| ratio <= bar)),
            Bar::AtLeastAlways(bar) => {
                let ratio = ratio(Side::Always);
                (of_always(">=", bar, ratio), ratio.map(|ratio| ratio >= bar))
            }
            Bar::AtMostAlways(bar) => {
                let ratio = ratio(Side::Always);
                (of_always("<=", bar, ratio), ratio.map(|ratio| ratio <= bar))
            }
            Bar::OwnAtMost(bar) => {
                let own = median(figures.values(row.key, number, Side::Ours));
                (format!("<= {}", figure(line.unit, bar)), own.map(|own| own <= bar))
            }
            Bar::OwnAtLeast(bar) => {
                let own = median(figures.values(row.key, number, Side::Ours));
                (format!(">= {}", figure(line.unit, bar)), own.map(|own| own >= bar))
            }
        };
        match met {
            Some(true) => format!("{text}: met"),
            Some(false) => format!("{text}: **missed**"),
            None => text,
        }
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn of_always(sign: &str, bar: f64, ratio: Option<f64>) -> String {
    match ratio {
        Some(ratio) => format!("{sign} {bar}x of always ({ratio:.2}x)"),
        None => format!("{sign} {bar}x of always"),
    }
}
