//! Go-style flags made GNU-style, so that command lines written for nats-server mean the same here: one or two dashes
//! before a long name (`-sd x`, `-js`, `-store_dir=x`), joined debug letters (`-DV`), and `-x=v`.

use std::ffi::OsString;

/// nats-server's spellings that clap would take apart into single letters, and ours for them.
const SPELLINGS: &[(&str, &[&str])] = &[
    ("sd", &["--store_dir"]),
    ("js", &["--jetstream"]),
    ("DV", &["--debug", "--trace"]),
    ("DVV", &["--debug", "--trace"]),
    ("VV", &["--trace"]),
    ("addr", &["--addr"]),
    ("net", &["--addr"]),
    ("port", &["--port"]),
    ("http_port", &["--http_port"]),
    ("name", &["--server_name"]),
    ("server_name", &["--server_name"]),
    ("jetstream", &["--jetstream"]),
    ("store_dir", &["--store_dir"]),
    ("ports_file_dir", &["--ports_file_dir"]),
    ("pid", &["--pid"]),
    ("log", &["--log"]),
    ("debug", &["--debug"]),
    ("trace", &["--trace"]),
    ("version", &["--version"]),
    ("help", &["--help"]),
];

/// Rewrites the arguments of the serving form. Those of other commands (`subcommands`) are ours and stay as they are.
pub fn normalise(arguments: impl IntoIterator<Item = OsString>, subcommands: &[&str]) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut normal: Vec<OsString> = arguments.next().into_iter().collect();
    let mut arguments = arguments.peekable();
    if let Some(first) = arguments.peek().and_then(|first| first.to_str())
        && first != "serve"
        && subcommands.contains(&first)
    {
        normal.extend(arguments);
        return normal;
    }
    for argument in arguments {
        match argument.to_str().and_then(rewrite) {
            Some(rewritten) => normal.extend(rewritten.into_iter().map(OsString::from)),
            None => normal.push(argument),
        }
    }
    normal
}

fn rewrite(argument: &str) -> Option<Vec<String>> {
    let flag = argument.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    let (_, ours) = SPELLINGS.iter().find(|(theirs, _)| *theirs == name)?;
    match value {
        None => Some(ours.iter().map(|flag| (*flag).to_owned()).collect()),
        // Go's switches may be given a truth value.
        Some("true") if is_switch(ours[0]) => Some(ours.iter().map(|flag| (*flag).to_owned()).collect()),
        Some("false") if is_switch(ours[0]) => Some(Vec::new()),
        Some(value) => Some(vec![format!("{}={value}", ours[0])]),
    }
}

fn is_switch(flag: &str) -> bool {
    matches!(flag, "--jetstream" | "--debug" | "--trace" | "--version" | "--help")
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
        check("nj -sd /data -js", "nj --store_dir /data --jetstream");
        check("nj -sd=/data -p=4222", "nj --store_dir=/data -p=4222");
        check("nj --jetstream --store_dir /data", "nj --jetstream --store_dir /data");
        check("nj -p -1 -m -1", "nj -p -1 -m -1");
        check("nj -port 5 --net=::1", "nj --port 5 --addr=::1");
        check("nj -DV", "nj --debug --trace");
        check("nj -js=false -D=x", "nj -D=x");
        check("nj -js=true", "nj --jetstream");
        check("nj serve -sd x", "nj serve --store_dir x");
        check("nj task ls -sd x", "nj task ls -sd x");
        check("nj -unknown", "nj -unknown");
        check("nj", "nj");
    }
}
