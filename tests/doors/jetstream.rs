//! JetStream in accounts: switched off and on again, held to limits whoever writes, read strictly or not. Every expectation
//! is what nats-server 2.15.1 did.

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Client, RequestErrorKind};
use serde_json::{Value, json};

use super::{PATIENCE, World};

fn text(of_a: &str) -> String {
    format!(
        r#"
accounts {{
    A {{ {of_a}users: [ {{ user: a, password: p }} ] }}
    B {{ jetstream: enabled, users: [ {{ user: b, password: p }} ] }}
    "$SYS" {{ users: [ {{ user: sys, password: p }} ] }}
}}
authorization {{ timeout: 30 }}
"#
    )
}

async fn ask(client: &Client, subject: &str, body: Value) -> Result<Value, RequestErrorKind> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.request(subject.to_owned(), body.into()).await.map_err(|error| error.kind())?;
    Ok(serde_json::from_slice(&answer.payload).unwrap())
}

async fn error_code(client: &Client, subject: &str) -> Value {
    ask(client, subject, Value::Null).await.unwrap()["error"]["err_code"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_jetstream_goes_and_comes_back_with_what_is_on_disk() {
    let (on, off) = (text("jetstream: enabled, "), text(""));
    let mut world = World::start(&on).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let (of_a, of_b) = (jetstream::new(a.clone()), jetstream::new(b.clone()));
    let config = |name: &str, storage| stream::Config {
        name: name.into(),
        subjects: vec![name.to_lowercase()],
        storage,
        ..Default::default()
    };
    for (context, name, storage) in [
        (&of_a, "S", stream::StorageType::File),
        (&of_a, "M", stream::StorageType::Memory),
        (&of_b, "S", stream::StorageType::File),
    ] {
        context.create_stream(config(name, storage)).await.unwrap();
        context.publish(name.to_lowercase(), "1".into()).await.unwrap().await.unwrap();
    }
    let durable = consumer::pull::Config { durable_name: Some("C".into()), ..Default::default() };
    of_a.get_stream("S").await.unwrap().create_consumer(durable).await.unwrap();
    for _ in 0..2 {
        world.reload(&off).await.unwrap();
        for subject in ["$JS.API.INFO", "$JS.API.STREAM.INFO.S", "$JS.API.STREAM.NAMES"] {
            assert_eq!(error_code(&a, subject).await, 10039, "{subject}");
        }
        for subject in ["s", "m", "$JS.API.CONSUMER.MSG.NEXT.S.C"] {
            assert_eq!(ask(&a, subject, json!({})).await, Err(RequestErrorKind::NoResponders), "{subject}");
        }
        assert_eq!(of_b.get_stream("S").await.unwrap().cached_info().state.messages, 1, "the neighbour's goes on");
        world.reload(&on).await.unwrap();
        let names = ask(&a, "$JS.API.STREAM.NAMES", Value::Null).await.unwrap();
        assert_eq!(names["streams"], json!(["S"]), "what was in memory is gone");
        let back = of_a.get_stream("S").await.unwrap();
        assert_eq!((back.cached_info().state.messages, back.cached_info().state.consumer_count), (1, 1));
        assert_eq!(back.get_raw_message(1).await.unwrap().payload, "1");
    }
    let ack = of_a.publish("s", "2".into()).await.unwrap().await.unwrap();
    assert_eq!(ack.sequence, 2);
    let world = world.restart().await;
    let of_a = jetstream::new(world.user("a", "p").await.unwrap());
    assert_eq!(of_a.get_stream("S").await.unwrap().cached_info().state.messages, 2);
    world.server.stop().await;
}

/// A stream that takes from another one stands still while the account has no room, and goes on when there is some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_and_sources_are_held_to_the_accounts_bytes() {
    let world = World::start(&text("jetstream { max_file: 3000 }, ")).await;
    let context = jetstream::new(world.user("a", "p").await.unwrap());
    let origin = || stream::Source { name: "O".into(), ..Default::default() };
    let plain = |name: &str| stream::Config { name: name.into(), ..Default::default() };
    context.create_stream(stream::Config { subjects: vec!["o".into()], ..plain("O") }).await.unwrap();
    for _ in 0..10 {
        context.publish("o", "x".repeat(100).into()).await.unwrap().await.unwrap();
    }
    context.create_stream(stream::Config { mirror: Some(origin()), ..plain("M") }).await.unwrap();
    let messages = async |name: &str| context.get_stream(name).await.unwrap().cached_info().state.messages;
    let until = async |name: &str, wanted: u64| {
        let reached = async {
            while messages(name).await != wanted {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} has {wanted}"));
    };
    until("M", 10).await;
    context.create_stream(stream::Config { sources: Some(vec![origin()]), ..plain("S") }).await.unwrap();
    // 1310 bytes each in O and M: 2 more messages with a source's header fit.
    until("S", 2).await;
    let refused = context.publish("o", "x".repeat(300).into()).await.unwrap().await.unwrap_err();
    assert!(refused.to_string().contains("resource limits exceeded for account"), "{refused}");
    let used = context.query_account().await.unwrap().storage;
    assert!(used <= 3000, "{used}");
    assert_eq!(messages("S").await, 2);
    context.delete_stream("M").await.unwrap();
    until("S", 9).await;
    assert!(context.query_account().await.unwrap().storage <= 3000);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_are_refused_unless_the_server_is_not_strict() {
    let create = |name: &str| json!({ "name": name, "foo": 1 });
    let strict = World::start(&text("jetstream: enabled, ")).await;
    let a = strict.user("a", "p").await.unwrap();
    let answer = ask(&a, "$JS.API.STREAM.CREATE.S", create("S")).await.unwrap();
    assert_eq!(answer["error"]["err_code"], 10025);
    strict.server.stop().await;

    let lenient = World::start(&format!("jetstream {{ strict: false }}\n{}", text("jetstream: enabled, "))).await;
    let a = lenient.user("a", "p").await.unwrap();
    let ask = async |subject: &str, body: Value| ask(&a, &format!("$JS.API.{subject}"), body).await.unwrap();
    let config = json!({ "durable_name": "C", "ack_policy": "explicit", "bar": 2 });
    for (subject, body) in [
        ("STREAM.CREATE.S", create("S")),
        ("STREAM.UPDATE.S", create("S")),
        ("STREAM.INFO.S", json!({ "foo": 1 })),
        ("STREAM.NAMES", json!({ "foo": 1 })),
        ("STREAM.LIST", json!({ "foo": 1 })),
        ("STREAM.PURGE.S", json!({ "foo": 1 })),
        ("CONSUMER.CREATE.S.C", json!({ "stream_name": "S", "foo": 1, "config": config })),
        ("CONSUMER.NAMES.S", json!({ "foo": 1 })),
        ("CONSUMER.LIST.S", json!({ "foo": 1 })),
        ("CONSUMER.PAUSE.S.C", json!({ "foo": 1 })),
        ("STREAM.SNAPSHOT.S", json!({ "deliver_subject": "d", "foo": 1 })),
    ] {
        let answer = ask(subject, body).await;
        assert_eq!(answer["error"], Value::Null, "{subject}");
    }
    // What is no body of that kind is refused all the same.
    let error = ask("STREAM.CREATE.T", json!({ "name": "T", "subjects": 5 })).await["error"].clone();
    let expected = "invalid JSON: json: cannot unmarshal number into Go struct field StreamConfigRequest.subjects of type []string";
    assert_eq!((&error["err_code"], &error["description"]), (&json!(10025), &json!(expected)));
    lenient.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_jetstream_nobody_purges() {
    let world = World::start(&format!("jetstream: disabled\n{}", text(""))).await;
    let (sys, a) = (world.user("sys", "p").await.unwrap(), world.user("a", "p").await.unwrap());
    for subject in ["$JS.API.ACCOUNT.PURGE.A", "$JS.API.INFO"] {
        for client in [&sys, &a] {
            assert_eq!(ask(client, subject, Value::Null).await, Err(RequestErrorKind::NoResponders), "{subject}");
        }
    }
    world.server.stop().await;
    let world = World::start(&text("")).await;
    let sys = world.user("sys", "p").await.unwrap();
    let answer = ask(&sys, "$JS.API.ACCOUNT.PURGE.A", Value::Null).await.unwrap();
    assert_eq!(answer["initiated"], true);
    world.server.stop().await;
}
