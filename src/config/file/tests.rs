use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::resolve::{self, Sources};
use super::value::{Kind, Map};
use super::{FileError, FileErrors, read_text};
use crate::config::{Config, Listen};

/// Reads `main.conf` of a machine with these files and this environment.
fn tree(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<(Map, Vec<String>), FileError> {
    let files: BTreeMap<PathBuf, &str> = files.iter().map(|(path, text)| (PathBuf::from(path), *text)).collect();
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let sources = Sources {
        file: &|path: &Path| files.get(path).map(|text| (*text).to_owned()).ok_or(std::io::ErrorKind::NotFound.into()),
        variable: &|name| variables.get(name).map(|text| (*text).to_owned()),
    };
    let mut warnings = Vec::new();
    resolve::read(Path::new("main.conf"), &sources, &mut warnings).map(|map| (map, warnings))
}

/// The tree in few letters: text in quotes, everything else as it is.
fn show(map: &Map) -> String {
    let pairs: Vec<String> =
        map.iter().map(|entry| format!("{}={}", entry.key, show_kind(&entry.value.kind))).collect();
    format!("{{{}}}", pairs.join(" "))
}

fn show_kind(kind: &Kind) -> String {
    match kind {
        Kind::Text(text) => format!("{text:?}"),
        Kind::Integer(number, _) => number.to_string(),
        Kind::Float(number, _) => format!("{number:?}"),
        Kind::Bool(value) => value.to_string(),
        Kind::Date(text) => text.clone(),
        Kind::Array(values) => {
            format!("[{}]", values.iter().map(|value| show_kind(&value.kind)).collect::<Vec<_>>().join(" "))
        }
        Kind::Map(map) => show(map),
    }
}

#[test]
fn the_grammar_is_nats_servers() {
    let check = |text: &str, expected: &str| {
        let (map, _) = tree(&[("main.conf", text)], &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(show(&map), expected, "{text}");
    };
    check("", "{}");
    check("# nothing\n// at all", "{}");
    check("a: 1", "{a=1}");
    check("a = 1\nb 2;c:3 # d: 4\n", "{a=1 b=2 c=3}");
    check("a 1 // and\r\nb 2\r\n", "{a=1 b=2}");
    check("\u{feff}a: 1", "{a=1}");
    check("{ \"a\": 1, \"b\": [true, \"x\"], \"c\": {\"d\": null} }", "{a=1 b=[true \"x\"] c={d=\"null\"}}");
    check("{\n\"port\": 4567\n}\n", "{port=4567}");
    check("a {\n b: 1, c: 2; d 3 }\ne: {}", "{a={b=1 c=2 d=3} e={}}");
    check("a\n{\n b:\n 1\n}", "{a={b=1}}");
    check("a: [1, 2\n3,\n 'x'\n // no\n yes ]", "{a=[1 2 3 \"x\" true]}");
    check("a: [[1],[]]\nb: [{c: 1}\n{c: 2}]", "{a=[[1] []] b=[{c=1} {c=2}]}");
    check("a: 'it\\n'", "{a=\"it\\\\n\"}");
    check(r#"a: "\t\x41\"\\""#, r#"{a="\tA\"\\"}"#);
    check(r"a: x\x41", "{a=\"xA\"}");
    check("a: nats://u:p@127.0.0.1:4222", "{a=\"nats://u:p@127.0.0.1:4222\"}");
    check("a: 127.0.0.1\nb: 1.5\nc: -2", "{a=\"127.0.0.1\" b=1.5 c=-2}");
    check("a: 1KB\nb: 1k\nc: 10s", "{a=1024 b=1000 c=\"10s\"}");
    check("a: 2026-11-21T02:02:42Z", "{a=2026-11-21T02:02:42Z}");
    check("a (\n one )\n two\n)\nb: 1", "{a=\"\\n one )\\n two\\n\" b=1}");
    check("'a b': 1\n\"c:d\" 2", "{a b=1 c:d=2}");
    check("a: $2a$11$xyz", "{a=\"$2a$11$xyz\"}");
    check("include_me: 1\ninclude: 2", "{include_me=1 include=2}");
    check("a: 1\nA: 2\na: 3", "{A=2 a=3}");
    check("a { b: 1 }\n}\n", "{a={b=1}}");
    check("a.>: 1", "{a.>=1}");
}

#[test]
fn bad_syntax_is_shown_where_it_is() {
    let check = |text: &str, expected: &str| {
        let error = tree(&[("main.conf", text)], &[]).unwrap_err().to_string();
        assert_eq!(error, expected, "{text}");
    };
    check(
        "{\n  \"port\": : \"invalid syntax\"\n}",
        "Parse error on line 2: 'Expected a value to end with a new line, a comma or a comment, but got '\"' instead' \
         (main.conf:2:13)",
    );
    check("a: 1\nb:\nc: 2", "Parse error on line 2: 'Expected a value for \"b\"' (main.conf:2:1)");
    check("a", "Parse error on line 1: 'Expected a value for \"a\"' (main.conf:1:1)");
    check("a\nb: 1", "Parse error on line 1: 'Expected a value for \"a\"' (main.conf:1:1)");
    check("a { b: 1", "Parse error on line 1: 'Unexpected EOF processing map: a '}' is missing' (main.conf:1:9)");
    check("a [ 1", "Parse error on line 1: 'Unexpected EOF processing array: a ']' is missing' (main.conf:1:6)");
    check("a: 'x", "Parse error on line 1: 'Unexpected EOF: this string has no closing '' (main.conf:1:4)");
    check(
        "a: [1 2]",
        "Parse error on line 1: 'Expected an array value terminator ',' or an array terminator ']', but got '2' instead' (main.conf:1:7)",
    );
    check("a: [,]", "Parse error on line 1: 'Unexpected array value terminator ','' (main.conf:1:5)");
    check(": 1", "Parse error on line 1: 'Unexpected key separator ':'' (main.conf:1:1)");
    check(
        "a: \"\\q\"",
        "Parse error on line 1: 'Invalid escape character. Only the following escape characters are allowed: \\xXX, \
         \\t, \\n, \\r, \\\", \\\\' (main.conf:1:5)",
    );
    check("a: \"\\xff\"", "Parse error on line 1: 'This string's \\x escapes do not make valid UTF-8' (main.conf:1:5)");
    check(
        "a: (\nx",
        "Parse error on line 1: 'Unexpected EOF processing block: a ')' on a line of its own is missing' (main.conf:1:4)",
    );
    check(
        "é: 1\né: 99999999999999999999",
        "Parse error on line 2: 'integer '99999999999999999999' is out of the range' (main.conf:2:4)",
    );
    check(
        "a: 1 }\nb: 2",
        "Parse error on line 2: 'Expected the end of the file after its closing '}'' (main.conf:2:1)",
    );
    let deep = format!("a: {}", "[".repeat(10_000));
    let error = tree(&[("main.conf", &deep)], &[]).unwrap_err().to_string();
    assert!(error.contains("nested too deeply"), "{error}");
}

#[test]
fn variables_are_found_inside_out_and_in_the_environment() {
    let environment = [
        ("PORT", "4222"),
        ("HOSTS", "[a, b]"),
        ("LOOP", "$LOOP"),
        ("INDIRECT", "$PORT"),
        ("BAD", "{"),
        ("NAME", "'$PORT'"),
    ];
    let check = |text: &str, expected: &str| {
        let found = tree(&[("main.conf", text)], &environment);
        let shown = found.map(|(map, _)| show(&map)).unwrap_or_else(|error| error.to_string());
        assert_eq!(shown, expected, "{text}");
    };
    check("a: $PORT\nb: $HOSTS\nc: $INDIRECT\nd: $NAME", "{a=4222 b=[\"a\" \"b\"] c=4222 d=\"$PORT\"}");
    check("x: 1\na { x: 2, b: $x }\nc: $x", "{x=1 a={x=2 b=2} c=1}");
    check("PORT: 1\na: $PORT", "{PORT=1 a=1}");
    check("a: '$PORT'\nb: \"$PORT\"", "{a=\"$PORT\" b=\"$PORT\"}");
    let text = "if it is meant as text, put it in quotes, otherwise set it above or in the environment";
    check(
        "\na: $nowhere",
        &format!(
            "Parse error on line 2: 'variable reference for 'nowhere' on line 2 can not be found; {text}' (main.conf:2:4)"
        ),
    );
    check(
        "b: $a\na: 1",
        &format!(
            "Parse error on line 1: 'variable reference for 'a' on line 1 can not be found; {text}' (main.conf:1:4)"
        ),
    );
    for name in ["LOOP", "BAD"] {
        let error = tree(&[("main.conf", &format!("a: ${name}"))], &environment).unwrap_err().to_string();
        assert!(error.contains("could not be parsed"), "{error}");
    }
}

#[test]
fn included_files_are_read_from_their_own_folder() {
    let files = [
        ("main.conf", "a: 1\ninclude sub/one.conf\nm { include 'sub/two.conf'\n x: $b }"),
        ("sub/one.conf", "include two.conf; c: 3"),
        ("sub/two.conf", "b: 2"),
    ];
    let (map, _) = tree(&files, &[]).unwrap();
    assert_eq!(show(&map), "{a=1 b=2 c=3 m={b=2 x=2}}");
    let check = |files: &[(&str, &str)], expected: &str| {
        assert_eq!(tree(files, &[]).unwrap_err().to_string(), expected);
    };
    check(
        &[("main.conf", "include other.conf")],
        "Parse error on line 1: 'error parsing include file 'other.conf', open other.conf: no such file or directory' \
         (main.conf:1:1)",
    );
    check(
        &[("main.conf", "include a.conf"), ("a.conf", "\ninclude main.conf")],
        "Parse error on line 2: 'main.conf includes itself' (a.conf:2:1)",
    );
    check(
        &[("main.conf", "include sub/a.conf"), ("sub/a.conf", "\n\n x: [")],
        "Parse error on line 3: 'Unexpected EOF processing array: a ']' is missing' (sub/a.conf:3:6)",
    );
    check(&[], "error opening config file: open main.conf: no such file or directory");
    let endless = |path: &Path| -> std::io::Result<String> {
        let _ = path;
        Ok("include sub/../sub/x.conf".to_owned())
    };
    let sources = Sources { file: &endless, variable: &|_| None };
    let error = resolve::read(Path::new("main.conf"), &sources, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("includes itself"), "{error}");
}

#[test]
fn the_second_of_two_equal_keys_counts_and_is_told() {
    let (_, warnings) = tree(&[("main.conf", "a: 1\nb: 2\na: 3")], &[]).unwrap();
    assert_eq!(warnings, ["main.conf:3:1: \"a\" replaces the one at main.conf:1:1"]);
}

fn config_of(text: &str) -> Result<Config, FileErrors> {
    read_text(Config::in_folder("base"), text)
}

#[test]
fn settings_reach_the_config() {
    let at = |host: &str, port| Some(Listen { host: host.into(), port });
    let check = |text: &str, expected: &dyn Fn(&mut Config)| {
        let mut wanted = Config::in_folder("base");
        expected(&mut wanted);
        assert_eq!(config_of(text).unwrap_or_else(|error| panic!("{text}: {error}")), wanted, "{text}");
    };
    check("port: -1", &|config| config.listen = at("127.0.0.1", 0));
    check("host: 0.0.0.0\nport: 5222", &|config| config.listen = at("0.0.0.0", 5222));
    check("listen: '[::1]:5222'", &|config| config.listen = at("::1", 5222));
    check("listen: 5222", &|config| config.listen = at("127.0.0.1", 5222));
    check("net: 10.0.0.1\nlisten: ':5222'", &|config| config.listen = at("10.0.0.1", 5222));
    check("http: localhost:-1", &|config| config.monitor = at("localhost", 0));
    check("http_port: 0", &|config| config.monitor = None);
    check("http_port: 8000\nhost: 10.0.0.1", &|config| {
        config.monitor = at("10.0.0.1", 8000);
        config.listen = at("10.0.0.1", 4222);
    });
    check("https_port: 8443", &|config| config.monitor_tls = at("127.0.0.1", 8443));
    check("server_name: box\nserver_tags: [A, 'b:c']", &|config| {
        config.server_name = Some("box".into());
        config.server_tags = vec!["a".into(), "b:c".into()];
    });
    check("MAX_PAYLOAD: 64MB\nmax_pending: 1GB", &|config| {
        config.limits.payload_bytes_max = 64 << 20;
        config.limits.pending_bytes_max = 1 << 30;
    });
    check("max_conn: 0\nmax_subs: -1", &|config| config.limits.connections_max = usize::MAX);
    check("memory_budget: 64MB", &|config| config.limits.memory_bytes_max = 64 << 20);
    check("max_connections: 10\nmax_subscriptions: 5", &|config| {
        config.limits.connections_max = 10;
        config.limits.subscriptions_max = 5;
    });
    check("ping_interval: '20s', ping_max: 3; write_deadline: 2m", &|config| {
        config.limits.ping_interval = Duration::from_secs(20);
        config.limits.pings_out_max = 3;
        config.limits.write_deadline = Duration::from_secs(120);
    });
    check("lame_duck_duration: 30s\nlame_duck_grace_period: 100ms", &|config| {
        config.limits.lame_duck_duration = Duration::from_secs(30);
        config.limits.lame_duck_grace = Duration::from_millis(100);
    });
    check("debug: true, trace: yes, logtime: off\nlog_file: /tmp/x\nlog_size_limit: 1k", &|config| {
        config.log.debug = true;
        config.log.trace = true;
        config.log.time = false;
        config.log.file = Some("/tmp/x".into());
        config.log.file_bytes_max = 1000;
    });
    check("jetstream: enabled\nstore_dir: /data", &|config| config.store_dir = "/data".into());
    check("jetstream: false", &|config| {
        config.jetstream = false;
        config.coordinator = false;
    });
    check(
        "jetstream { store_dir: /data, max_mem: 1G, max_file: \"1G\", domain: hub, limits { max_ack_pending: 5 } }",
        &|config| {
            config.store_dir = "/data".into();
            config.jetstream_options.domain = Some("hub".into());
            config.jetstream_options.memory_bytes_max = Some(1_000_000_000);
            config.jetstream_options.storage_bytes_max = Some(1 << 30);
            config.jetstream_limits.assets.max_ack_pending = 5;
        },
    );
    check("PORT = 5222\nport: $PORT", &|config| config.listen = at("127.0.0.1", 5222));
}

#[test]
fn what_is_not_served_is_told_and_ignored() {
    let warnings = config_of("cluster { port: 6222, routes: [nats://x] }\nmqtt { port: 1883 }").unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "test.conf:1:1: \"cluster\" is ignored: natterjack is one server, without clusters and leaf nodes",
            "test.conf:2:1: \"mqtt\" is ignored: natterjack does not speak MQTT",
        ]
    );
}

#[test]
fn wrong_settings_are_told_all_at_once() {
    let check = |text: &str, expected: &[&str]| {
        let errors = config_of(text).unwrap_err().to_string();
        assert_eq!(errors, expected.join("\n"), "{text}");
    };
    check(
        "prot: 1\n  max_payload: many\njetstream {\n domane: x }",
        &[
            "test.conf:1:1: unknown field \"prot\"; did you mean \"port\"?",
            "test.conf:2:16: expected a whole number, not the text \"many\"",
            "test.conf:4:2: unknown field \"domane\"; did you mean \"domain\"?",
        ],
    );
    check("port: 70000", &["test.conf:1:7: a port is at most 65535, or -1 for any free one, not 70000"]);
    check("debug: 5", &["test.conf:1:8: expected true or false, not the number 5"]);
    check("ping_interval: {}", &["test.conf:1:16: expected a duration like \"2m\" or \"250ms\", not a map"]);
    check("lame_duck_duration: 5s", &["test.conf:1:21: invalid lame_duck_duration of 5s, minimum is 30 seconds"]);
    check("server_name: 'a b'", &["test.conf:1:14: server name cannot contain spaces"]);
    check("max_payload: 3GB", &["test.conf:1:1: max_payload value is too big"]);
    check("listen: here", &["test.conf:1:9: could not parse address string \"here\": it is like 127.0.0.1:4222"]);
    check("zzz: 1", &["test.conf:1:1: unknown field \"zzz\""]);
    for (slip, meant) in [
        ("max_closed_client", "max_closed_clients"),
        ("allow_nontls", "allow_non_tls"),
        ("trace_header", "trace_headers"),
    ] {
        let expected = format!("test.conf:1:1: unknown field {slip:?}; did you mean {meant:?}?");
        check(&format!("{slip}: 1"), &[&expected]);
    }
    config_of("zzz: 1\nport: $zzz").unwrap();
}
