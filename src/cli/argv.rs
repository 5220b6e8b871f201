//! Go-style flags made GNU-style, so that command lines written for nats-server mean the same here: one or two dashes
//! before any name (`-sd x`, `--p 4222`, `-store_dir=x`), joined letters that are names of their own (`-DV`), switches
//! with a truth value (`-D=false`), and a value that is always the next word (`-p -1`).

use std::ffi::OsString;

use clap::{ArgAction, Args as _};

use super::flags::ServeFlags;

/// nats-server's names that clap has no room for (two letters after one dash), and the flags they stand for.
const JOINED: &[(&str, &[&str])] = &[
    ("sd", &["store_dir"]),
    ("js", &["jetstream"]),
    ("ms", &["https_port"]),
    ("sl", &["signal"]),
    ("DV", &["debug", "trace"]),
    ("DVV", &["debug", "trace", "trace_verbose"]),
    ("VV", &["trace", "trace_verbose"]),
];

/// One flag as nats-server's command line could name it.
struct Flag {
    names: Vec<String>,
    long: String,
    is_switch: bool,
}

/// Rewrites the arguments of the serving form. Those of other commands (`subcommands`) are ours and stay as they are.
pub fn normalise(arguments: impl IntoIterator<Item = OsString>, subcommands: &[&str]) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut normal: Vec<OsString> = arguments.next().into_iter().collect();
    let mut arguments = arguments.peekable();
    let first = arguments.peek().and_then(|first| first.to_str()).unwrap_or_default().to_owned();
    if first != "serve" && subcommands.contains(&first.as_str()) {
        normal.extend(arguments);
        return normal;
    }
    if first.eq_ignore_ascii_case("version") {
        normal.push("--version".into());
        return normal;
    }
    let known = known_flags();
    while let Some(argument) = arguments.next() {
        let Some((name, value)) = argument.to_str().and_then(split) else {
            normal.push(argument);
            continue;
        };
        let targets: Vec<&Flag> = match JOINED.iter().find(|(joined, _)| *joined == name) {
            Some((_, longs)) => known.iter().filter(|flag| longs.contains(&flag.long.as_str())).collect(),
            None => known.iter().filter(|flag| flag.names.iter().any(|known| known == name)).collect(),
        };
        let Some(first) = targets.first() else {
            normal.push(argument);
            continue;
        };
        let value = match value {
            Some(value) => Some(OsString::from(value)),
            // A missing value is for clap to complain about.
            None if !first.is_switch => arguments.next(),
            None => None,
        };
        for flag in targets {
            let mut word = OsString::from(format!("--{}", flag.long));
            if let Some(value) = &value {
                word.push("=");
                word.push(value);
            }
            normal.push(word);
        }
    }
    normal
}

/// `-x=v` as its name and value; `None` when it is no flag.
fn split(argument: &str) -> Option<(&str, Option<&str>)> {
    let flag = argument.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    match flag.split_once('=') {
        _ if flag.is_empty() => None,
        Some((name, value)) => Some((name, Some(value))),
        None => Some((flag, None)),
    }
}

/// Every serving flag that has a long name, as clap knows it.
fn known_flags() -> Vec<Flag> {
    let command = ServeFlags::augment_args(clap::Command::new("serve"));
    let version = Flag { names: vec!["v".into(), "version".into()], long: "version".into(), is_switch: true };
    let help = Flag { names: vec!["h".into(), "help".into()], long: "help".into(), is_switch: true };
    let mut flags = vec![version, help];
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        let mut names = vec![long.to_owned()];
        names.extend(argument.get_all_aliases().unwrap_or_default().into_iter().map(str::to_owned));
        names.extend(argument.get_short().map(String::from));
        let takes_optional = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
        let is_switch = !matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) || takes_optional;
        flags.push(Flag { names, long: long.to_owned(), is_switch });
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_flags_become_ours() {
        let check = |line: &str, expected: &str| {
            let words = line.split(' ').map(OsString::from);
            let normal = normalise(words, &["serve", "task"]);
            let joined = normal.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
            assert_eq!(joined, expected, "{line}");
        };
        check("nj -sd /data -js", "nj --store_dir=/data --jetstream");
        check("nj -sd=/data -p=4222", "nj --store_dir=/data --port=4222");
        check("nj --sd=/data --p 4222", "nj --store_dir=/data --port=4222");
        check("nj --jetstream --store_dir /data", "nj --jetstream --store_dir=/data");
        check("nj -p -1 -m -1", "nj --port=-1 --http_port=-1");
        check("nj -port 5 --net=::1 -addr a", "nj --port=5 --addr=::1 --addr=a");
        check("nj -DV", "nj --debug --trace");
        check("nj --DVV", "nj --debug --trace --trace_verbose");
        check("nj -DV=false", "nj --debug=false --trace=false");
        check("nj -js=false -D=x", "nj --jetstream=false --debug=x");
        check("nj -sl ldm=7", "nj --signal=ldm=7");
        check("nj -n -js", "nj --server_name=-js");
        check("nj serve -sd x", "nj serve --store_dir=x");
        check("nj task ls -sd x", "nj task ls -sd x");
        check("nj -unknown x", "nj -unknown x");
        check("nj -p", "nj --port");
        check("nj -v", "nj --version");
        check("nj version", "nj --version");
        check("nj - --", "nj - --");
        check("nj", "nj");
    }
}
