//! Accounts are apart: subjects, streams and limits.

use async_nats::jetstream;

use super::{World, next, settle};

const TEXT: &str = r#"
accounts {
    A { jetstream: enabled, users: [ { user: a, password: p } ] }
    B { jetstream { max_streams: 1, max_file: 1MB }, users: [ { user: b, password: p } ] }
    C { users: [ { user: c, password: p } ], limits { max_connections: 1 } }
    "$SYS" { users: [ { user: sys, password: p } ] }
}
authorization { timeout: 30 }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_is_another_one_in_another_account() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let mut of_a = a.subscribe("*").await.unwrap();
    let mut of_b = b.subscribe("x").await.unwrap();
    settle(&a).await;
    settle(&b).await;
    b.publish("x", "from b".into()).await.unwrap();
    settle(&b).await;
    a.publish("x", "from a".into()).await.unwrap();
    loop {
        let message = next(&mut of_a).await;
        assert_ne!(message.payload, "from b");
        if message.payload == "from a" {
            break;
        }
    }
    assert_eq!(next(&mut of_b).await.payload, "from b");
    let broker = world.server.broker();
    assert!(broker.system_account().is_system() && broker.system_account().name == "$SYS");
    assert_eq!(broker.find_account("A").unwrap().connection_count(), 1);
    drop((a, b, of_a, of_b));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_live_in_their_account_also_after_a_restart() {
    let world = World::start(TEXT).await;
    let publish = async |world: &World, user: &str, payload: &'static str| {
        let context = jetstream::new(world.user(user, "p").await.unwrap());
        let config = jetstream::stream::Config { name: "S".into(), subjects: vec!["s".into()], ..Default::default() };
        context.get_or_create_stream(config).await.unwrap();
        context.publish("s", payload.into()).await.unwrap().await.unwrap();
    };
    publish(&world, "a", "of a").await;
    publish(&world, "b", "of b").await;
    let world = world.restart().await;
    for (user, expected) in [("a", "of a"), ("b", "of b")] {
        let context = jetstream::new(world.user(user, "p").await.unwrap());
        let stream = context.get_stream("S").await.unwrap();
        assert_eq!(stream.get_raw_message(1).await.unwrap().payload, expected);
        assert_eq!(stream.cached_info().state.messages, 1);
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_held_to_its_limits() {
    let world = World::start(TEXT).await;
    let b = jetstream::new(world.user("b", "p").await.unwrap());
    let config = |name: &str| jetstream::stream::Config { name: name.into(), max_bytes: 1000, ..Default::default() };
    b.create_stream(config("ONE")).await.unwrap();
    let error = b.create_stream(config("TWO")).await.unwrap_err();
    assert!(error.to_string().contains("maximum number of streams reached"), "{error}");
    let info = b.query_account().await.unwrap();
    assert_eq!((info.limits.max_streams, info.limits.max_storage), (Some(1), Some(1 << 20)));
    // No JetStream in C, and one client at a time.
    let c = world.user("c", "p").await.unwrap();
    assert!(jetstream::new(c.clone()).query_account().await.is_err());
    let mut wire = world.wire().await;
    let refused = wire.ask(r#"CONNECT {"user":"c","pass":"p"}"#).await;
    assert_eq!(refused, ["-ERR 'maximum account active connections exceeded'", ""]);
    world.server.stop().await;
}
