use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::{Reading, decode, fields_of};
use crate::types::Timestamp;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "Root", default)]
struct Probe {
    name: String,
    seq: u64,
    count: i64,
    flag: bool,
    at: Option<Timestamp>,
    retention: Policy,
    subjects: Vec<String>,
    inner: Inner,
    sources: Vec<Inner>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Inner {
    flag: bool,
    max_bytes: i64,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    #[default]
    Limits,
    Interest,
}

fn strict(body: &str) -> Result<Probe, String> {
    decode(body.as_bytes(), Reading::Strict)
}

#[test]
fn what_is_good() {
    let check = |body: &str, expected: Probe| assert_eq!(strict(body), Ok(expected), "{body}");
    let named = |name: &str| Probe { name: name.to_owned(), ..Probe::default() };
    for nothing in ["", " \n", "{}", "null", "null null"] {
        check(nothing, Probe::default());
    }
    check(r#" {"name" : "S" , "seq":3}"#, Probe { seq: 3, ..named("S") });
    check(r#"{"NaMe":"S"}"#, named("S"));
    check(r#"{"name":"T","NAME":"S"}"#, named("S"));
    check(r#"{"name":"S"}{"seq":4}"#, Probe { seq: 4, ..named("S") });
    check(r#"{"name":"S","name":null,"seq":null,"at":null,"subjects":null}"#, named("S"));
    check(r#"{"subjects":["a"],"subjects":null}"#, Probe::default());
    check(r#"{"subjects":["a","b"],"subjects":["c"]}"#, Probe { subjects: vec!["c".into()], ..Probe::default() });
    check(r#"{"name":"a\u00e9\ud83d\ude00\ud800\/\n"}"#, named("aé😀\u{fffd}/\n"));
    check(r#"{"retention":"interest"}"#, Probe { retention: Policy::Interest, ..Probe::default() });
    check(
        r#"{"inner":{"flag":true},"inner":{"max_bytes":-2}}"#,
        Probe { inner: Inner { flag: true, max_bytes: -2 }, ..Probe::default() },
    );
    let metadata = [("a", "1"), ("b", ""), ("{", "}\"")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    check(
        r#"{"metadata":{"a":"1"},"metadata":{"b":null,"{":"}\""}}"#,
        Probe { metadata: metadata.into(), ..Probe::default() },
    );
}

/// The texts are what nats-server 2.15.1 answered.
#[test]
fn what_is_wrong() {
    let check = |body: &str, expected: &str| assert_eq!(strict(body), Err(expected.to_owned()), "{body}");
    check("{", "unexpected EOF");
    check("}", "invalid character '}' looking for beginning of value at offset 1");
    check(r#"{"name":"S",}"#, "invalid character '}' looking for beginning of object key string at offset 13");
    check(r#"{"name" "S"}"#, "invalid character '\"' after object key at offset 9");
    check(r#"{'name'}"#, r"invalid character '\'' looking for beginning of object key string at offset 2");
    check(r#"{"name":falsy}"#, "invalid character 'y' in literal false (expecting 'e') at offset 13");
    check(r#"{"name":"\q"}"#, r"invalid escape sequence `\q` in string at offset 11");
    check(r#"{"name":"\u12G4"}"#, r"invalid escape sequence `\u12G4` in string at offset 15");
    check("{\"name\":\"é\u{1}\"}", r"invalid character '\x01' in string at offset 12");
    check("\u{feff}{}", r"invalid character '\ufeff' looking for beginning of value at offset 3");
    check(r#"{"seq":1e+}"#, "invalid character '}' in numeric literal at offset 11");
    check(r#"{"seq":01}"#, "invalid character '1' after object key:value pair at offset 9");
    check(r#"{"subjects":["a" "b"]}"#, "invalid character '\"' after array element at offset 18");
    check(r#"{"name":"S"} trailing"#, "invalid character 'a' in literal true (expecting 'u') at offset 16");
    check(&"[".repeat(10_001), "exceeded max depth at offset 10001");
    check(
        &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        "json: cannot unmarshal array into Go value of type server.Root",
    );
    check("5", "json: cannot unmarshal number into Go value of type server.Root");
    check(r#"{"bogus":1}"#, r#"json: unknown field "bogus""#);
    check(r#"{"inner":{"a\"b":1}}"#, r#"json: unknown field "a\"b""#);
    check(r#"{"seq":"1","bogus":1}"#, "json: cannot unmarshal string into Go struct field Root.seq of type uint64");
    check(r#"{"seq":-1}"#, "json: cannot unmarshal number -1 into Go struct field Root.seq of type uint64");
    check(r#"{"count":1.0}"#, "json: cannot unmarshal number 1.0 into Go struct field Root.count of type int64");
    check(r#"{"seq":"x","seq":1}"#, "json: cannot unmarshal string into Go struct field Root.seq of type uint64");
    check(r#"{"name":5}"#, "json: cannot unmarshal number into Go struct field Root.name of type string");
    check(r#"{"name":5} {"#, "json: cannot unmarshal number into Go struct field Root.name of type string");
    check(r#"{"SEQ":""}"#, "json: cannot unmarshal string into Go struct field Root.SEQ of type uint64");
    check(r#"{"flag":"x"}"#, "json: cannot unmarshal string into Go struct field Root.flag of type bool");
    check(r#"{"inner":[]}"#, "json: cannot unmarshal array into Go struct field Root.inner of type server.Inner");
    check(r#"{"inner":{"flag":1}}"#, "json: cannot unmarshal number into Go struct field Root.inner.flag of type bool");
    check(
        r#"{"inner":{"max_bytes":""}}"#,
        "json: cannot unmarshal string into Go struct field Root.inner.max_bytes of type int",
    );
    check(r#"{"subjects":[1]}"#, "json: cannot unmarshal number into Root.subjects.0 of type string");
    check(
        r#"{"sources":[{},{"flag":1}]}"#,
        "json: cannot unmarshal number into Go struct field Root.sources.1.flag of type bool",
    );
    check(
        r#"{"metadata":{"a":1}}"#,
        "json: cannot unmarshal number into Go struct field Root.metadata.a of type string",
    );
    check(r#"{"retention":null}"#, r#"can not unmarshal "null""#);
    check(r#"{"retention":"x"}"#, r#"can not unmarshal "\"x\"""#);
    check(r#"{"at":5}"#, "json: cannot unmarshal number into Go struct field Root.at of type time.Time");
    let layout = r#""2006-01-02T15:04:05Z07:00""#;
    check(r#"{"at":"soon"}"#, &format!(r#"parsing time "soon" as {layout}: cannot parse "soon" as "2006""#));
    check(r#"{"at":"2020-01-01"}"#, &format!(r#"parsing time "2020-01-01" as {layout}: cannot parse "" as "T""#));
    check(r#"{"at":"2020-13-01T00:00:00Z"}"#, r#"parsing time "2020-13-01T00:00:00Z": month out of range"#);
    check(r#"{"at":"2020-02-30T00:00:00Z"}"#, r#"parsing time "2020-02-30T00:00:00Z": day out of range"#);
}

#[test]
fn fields_are_told() {
    assert_eq!(fields_of::<Inner>(), ["flag", "max_bytes"]);
    assert!(fields_of::<String>().is_empty());
}

#[test]
fn lenient_reading_skips_what_it_does_not_know_and_tells_no_offsets() {
    let check = |body: &str, expected: Result<u64, &str>| {
        let got = decode::<Probe>(body.as_bytes(), Reading::Lenient).map(|probe| probe.seq);
        assert_eq!(got, expected.map_err(str::to_owned), "{body}");
    };
    check(r#"{"bogus":{"a":[1,"]"]},"SEQ":2}"#, Ok(2));
    check("", Err("unexpected end of JSON input"));
    check("{", Err("unexpected end of JSON input"));
    check("x", Err("invalid character 'x' looking for beginning of value"));
    check("{} x", Err("invalid character 'x' after top-level value"));
}

proptest! {
    /// Bytes from the network never panic, and what serde_json takes for an object is no syntax error here.
    #[test]
    fn any_bytes(body in r#"[ \[\]{}:,"\\a-eu0-9.\-+tfn]{0,40}"#) {
        let got = strict(&body);
        let _ = decode::<Probe>(body.as_bytes(), Reading::Lenient);
        if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&body).is_ok() {
            let text = got.err().unwrap_or_default();
            prop_assert!(text.is_empty() || text.starts_with("json: ") || !text.contains("offset"), "{body}: {text}");
        }
    }

    #[test]
    fn any_json(value in json()) {
        let body = value.to_string();
        let text = strict(&body).err().unwrap_or_default();
        prop_assert!(!text.contains("offset") && !text.contains("EOF"), "{body}: {text}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    let name = prop_oneof!["name|seq|count|flag|at|retention|subjects|inner|sources|metadata", ".{0,4}"];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}
