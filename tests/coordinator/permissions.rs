//! Whoever may submit and ask, and no more, cannot do more by way of a task.

use natterjack::client::Client;
use natterjack::types::header::HeaderBuilder;
use serde_json::{Value, json};

use super::agent::{Agent, ask, await_result, call, submit, until};
use super::support::{Embedded, World};

/// The error that the server complains of after a publish, if it does.
async fn publish(client: &Client, subject: &str, reply: &str, headers: &[(&str, &str)]) -> Option<String> {
    let before = client.last_error();
    let block = match headers {
        [] => Vec::new(),
        headers => headers.iter().fold(HeaderBuilder::new(), |block, (name, value)| block.add(name, value)).build(),
    };
    client.publish_message(subject.as_bytes(), reply.as_bytes(), &block, b"").unwrap();
    client.flush().await.unwrap();
    client.last_error().filter(|now| Some(now) != before.as_ref())
}

fn denied(subject: &str) -> Option<String> {
    Some(format!("Permissions Violation for Publish to \"{subject}\""))
}

/// On any server: what the coordinator does with its own rights is the same for everybody who may submit.
#[tokio::test]
async fn results_and_answers_go_only_where_anybody_may_send_them() {
    let world = World::start().await;
    let user = world.client("user").await;
    for (to, code) in [("alarms.fire", 30403), ("result.x", 30403), ("$JS.API.STREAM.DELETE.X", 30400), ("a.*", 30400)]
    {
        let refused = call(&user, "SUBMIT", &[("Task-Id", "t"), ("Task-Result-To", to)], b"").await.unwrap_err();
        assert_eq!(refused.0, code, "{to}: {}", refused.1);
    }
    let mut results = user.subscribe("results.>").unwrap();
    submit(&user, &[("Task-Id", "t"), ("Task-Result-To", "results.t")], b"").await;

    // An answer below `$` would be a key, a request to JetStream or to the coordinator itself.
    for reply in ["$KV.TASK.s.forged", "$JS.API.STREAM.DELETE.KV_TASK", "$TASK.API.CANCEL.t", "$SRV.PING"] {
        user.publish_message(b"$TASK.API.GET.t", reply.as_bytes(), b"", b"").unwrap();
        user.publish_message(b"$SRV.INFO.tasks", reply.as_bytes(), b"", b"").unwrap();
    }
    assert_eq!(ask(&user, "GET.t", Value::Null).await["phase"], "queued");
    assert!(user.kv_get("TASK", "s.forged").await.unwrap().is_none());

    // A record that somebody wrote by hand is no way around it either.
    let mut alarms = user.subscribe("alarms.>").unwrap();
    submit(&user, &[("Task-Id", "forged")], b"").await;
    let stored = user.kv_get("TASK", "s.forged").await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&stored.value).unwrap();
    (record["state"], record["phase"]) = ("failed".into(), "dead".into());
    (record["result_to"], record["result_due"]) = ("alarms.fire".into(), true.into());
    user.request("$KV.TASK.s.forged", record.to_string().as_bytes(), super::agent::LONG).await.unwrap();
    assert_eq!(call(&user, "CANCEL.forged", &[], b"").await.unwrap_err().0, 30410);
    until(&user, "forged", |record| record.get("result_due").is_none()).await;
    assert!(alarms.try_next().is_none(), "a result was sent where none may go");

    let agent = Agent::register(world.client("ann").await, "ann", json!({})).await;
    let task = agent.pull().await;
    agent.complete(&task, b"done").await.unwrap();
    assert_eq!(results.next().await.unwrap().payload(), b"done");
    world.end().await;
}

/// On any server: an agent has a say about its own tasks only.
#[tokio::test]
async fn an_agent_cannot_speak_for_another() {
    let world = World::start().await;
    let user = world.client("user").await;
    let ann = Agent::register(world.client("ann").await, "ann", json!({})).await;
    submit(&user, &[("Task-Id", "t"), ("Task-Timeout", "1h")], b"").await;
    let task = ann.pull().await;
    let ack = String::from_utf8(task.reply().to_vec()).unwrap();
    assert!(ack.contains(".agent_ann."), "{ack}");
    // Bob may ack for his own consumer, and reads the number of Ann's message off the bucket.
    let bob = world.client("bob").await;
    for word in ["+TERM not any more", "-NAK"] {
        bob.publish(&ack.replace(".agent_ann.", ".agent_bob."), word.as_bytes()).unwrap();
    }
    bob.flush().await.unwrap();
    let record = ask(&user, "GET.t", Value::Null).await;
    assert_eq!((&record["agent"], record.get("lease")), (&json!("ann"), None), "the lease is for its agent's eyes");
    ann.complete(&task, b"done").await.unwrap();
    assert_eq!(await_result(&user, "t").await.unwrap(), b"done");

    // Who merely reads a pull queue's items does not complete them.
    ask(&user, "QUEUE.PUT.pulled", json!({ "mode": "pull" })).await;
    submit(&user, &[("Task-Id", "p"), ("Task-Queue", "pulled")], b"").await;
    let config = json!({ "name": "reader", "durable_name": "reader", "filter_subject": "$KV.TASK.w.>", "ack_policy": "explicit" });
    user.create_consumer("KV_TASK", &config).await.unwrap();
    let read = super::agent::pull(&user, "reader").await;
    user.publish(std::str::from_utf8(read.reply()).unwrap(), b"").unwrap();
    user.flush().await.unwrap();
    assert_eq!(ask(&user, "GET.p", Value::Null).await["phase"], "queued");
    let work = super::agent::pull(&user, "queue_pulled").await;
    user.publish(std::str::from_utf8(work.reply()).unwrap(), b"").unwrap();
    await_result(&user, "p").await.unwrap();
    world.end().await;
}

const ACCOUNTS: &str = r#"
accounts {
  A {
    jetstream: enabled
    coordinator: enabled
    mappings: { "jobs.submit": "$TASK.API.SUBMIT" }
    exports: [ { service: "$TASK.API.SUBMIT" } ]
    users: [
      { user: all, password: p }
      { user: few, password: p, permissions: {
        publish: ["$TASK.API.SUBMIT", "$TASK.API.GET.*", "jobs.submit", "results.few.>"]
        subscribe: ["_INBOX.>", "results.few.>", "$TASK.E.TASK.mine"]
      } }
      { user: ann, password: p, permissions: {
        publish: [
          "$TASK.API.AGENT.REGISTER.ann", "$TASK.API.COMPLETE.>", "$TASK.API.FAIL.>", "$TASK.API.DECLINE.>", "$TASK.P.*"
          "$TASK.HB.ann", "$JS.API.CONSUMER.MSG.NEXT.KV_TASK.agent_ann", "$JS.ACK.KV_TASK.agent_ann.>"
        ]
        subscribe: ["_INBOX.>", "$TASK.X.ann", "$TASK.X.ann.*"]
      } }
    ]
  }
  B {
    imports: [ { service: { account: A, subject: "$TASK.API.SUBMIT" }, to: "tasks.submit" } ]
    users: [ { user: b, password: p } ]
  }
}
"#;

/// With our broker, which knows what the asker may do.
#[tokio::test]
async fn a_restricted_user_lends_no_rights_of_the_coordinator() {
    let world = Embedded::start(ACCOUNTS).await;
    let (all, few) = (world.user("all").await, world.user("few").await);
    submit(&few, &[("Task-Id", "mine")], b"").await;
    assert_eq!(ask(&few, "GET.mine", Value::Null).await["phase"], "queued");

    // What is not allowed by name.
    for subject in ["$TASK.API.AWAIT.mine", "$TASK.API.CANCEL.mine", "$TASK.API.LIST", "$TASK.API.AGENT.REGISTER.few"] {
        assert_eq!(publish(&few, subject, "", &[]).await, denied(subject));
    }
    for subject in ["$TASK.P.mine", "$TASK.HB.ann", "$KV.TASK.s.mine", "$JS.API.STREAM.MSG.GET.KV_TASK", "$TASK.X.ann"]
    {
        assert_eq!(publish(&few, subject, "", &[]).await, denied(subject));
    }
    for subject in ["$TASK.E.TASK.other", "$TASK.E.>", "$TASK.P.*", "$KV.TASK.>", "$TASK.API.>"] {
        let _subscription = few.subscribe(subject).unwrap();
        few.flush().await.unwrap();
        let told = format!("Permissions Violation for Subscription to \"{subject}\"");
        assert_eq!(few.last_error(), Some(told));
    }

    // What it would have the coordinator do in its place.
    let submit_to = |id: &'static str, to: &'static str| [("Task-Id", id), ("Task-Result-To", to)];
    let api = "$TASK.API.SUBMIT";
    assert_eq!(publish(&few, api, "", &submit_to("x", "results.other")).await, denied("results.other"));
    assert_eq!(publish(&few, "jobs.submit", "", &submit_to("x", "results.other2")).await, denied("results.other2"));
    assert_eq!(publish(&few, "$TASK.API.GET.mine", "results.other3", &[]).await, denied("results.other3"));
    assert_eq!(publish(&few, api, "plugin.inbound.x", &[("Task-Id", "x")]).await, denied("plugin.inbound.x"));
    assert_eq!(call(&few, "GET.x", &[], b"").await.unwrap_err().0, 30404, "nothing of it was submitted");
    let mut results = few.subscribe("results.few.>").unwrap();
    submit(&few, &submit_to("ok", "results.few.1"), b"").await;
    let inbox = few.new_inbox();
    let mut own = few.subscribe(&inbox).unwrap();
    submit(&few, &[("Task-Id", "inbox"), ("Task-Result-To", &inbox)], b"").await;
    // Others may, within what the coordinator sends at all.
    submit(&all, &submit_to("other", "results.other"), b"").await;
    assert_eq!(call(&all, "SUBMIT", &submit_to("y", "alarms.fire"), b"").await.unwrap_err().0, 30403);

    // An agent with as few rights as it can do with.
    let agent = Agent::register(world.user("ann").await, "ann", json!({ "slots": 4 })).await;
    let _control = agent.client.subscribe(agent.card["control"].as_str().unwrap()).unwrap();
    let _presence = agent.client.subscribe(agent.card["presence"].as_str().unwrap()).unwrap();
    agent.client.publish(agent.card["heartbeat"].as_str().unwrap(), b"").unwrap();
    for _ in 0..4 {
        let task = agent.pull().await;
        agent.client.publish(task.headers().get_str("Task-Progress").unwrap(), b"half").unwrap();
        agent.complete(&task, b"done").await.unwrap();
        agent.ack(&task, "+ACK");
    }
    agent.client.flush().await.unwrap();
    assert_eq!(agent.client.last_error(), None);
    assert_eq!(
        publish(&agent.client, "$TASK.API.AGENT.REGISTER.bob", "", &[]).await,
        denied("$TASK.API.AGENT.REGISTER.bob")
    );
    assert_eq!(results.next().await.unwrap().subject_str(), "results.few.1");
    assert_eq!(own.next().await.unwrap().payload(), b"done");

    // From another account a task can be submitted, its result not sent about.
    let b = world.user("b").await;
    let block = HeaderBuilder::new().add("Task-Id", "far").add("Task-Result-To", "results.far").build();
    let refused = b.request_message("tasks.submit", &block, b"", super::agent::LONG).await.unwrap();
    assert_eq!(refused.headers().get_str("Nats-Service-Error-Code"), Some("403"));
    let block = HeaderBuilder::new().add("Task-Id", "far").build();
    let answer = b.request_message("tasks.submit", &block, b"", super::agent::LONG).await.unwrap();
    assert!(answer.headers().get("Nats-Service-Error").is_none());
    assert_eq!(ask(&all, "GET.far", Value::Null).await["id"], "far");
    world.server.stop().await;
}

#[tokio::test]
async fn where_results_may_go_is_the_administrators_to_say() {
    let text = |top: &str, own: &str| {
        format!(
            "{top}\naccounts {{ A {{ jetstream: enabled, coordinator {own}, users: [ {{user: a, password: p}} ] }} }}"
        )
    };
    let mut world = Embedded::start(&text("coordinator { result_subjects: [\"out.*\"] }", ": enabled")).await;
    let try_all = async |world: &Embedded| {
        let user = world.user("a").await;
        let mut outcome = Vec::new();
        for to in ["out.x", "results.x", "mine.x.y"] {
            let answer = call(&user, "SUBMIT", &[("Task-Result-To", to)], b"").await;
            outcome.push(answer.is_ok());
        }
        outcome
    };
    assert_eq!(try_all(&world).await, [true, false, false]);
    world.reload(&text("", "{ result_subjects: [\"mine.>\"] }")).await;
    assert_eq!(try_all(&world).await, [false, false, true]);
    world.reload(&text("", ": enabled")).await;
    assert_eq!(try_all(&world).await, [false, true, false]);
    world.server.stop().await;
}

/// Whether `rule` matches the literal `subject`, token by token.
fn matches(rule: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in rule.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Users with made-up rights: what they may submit, read and have results sent to is what a list of filters says that is
/// looked through one by one. `NATTERJACK_PERMISSION_SEEDS` tries further ones.
#[tokio::test]
async fn tasks_are_submitted_read_and_told_of_as_a_naive_model_judges() {
    const USERS: usize = 12;
    const RULES: [&str; 12] = [
        "$TASK.API.SUBMIT",
        "$TASK.API.SUBMIT",
        "$TASK.API.*",
        "$TASK.API.>",
        "$TASK.API.GET.*",
        "$TASK.API.GET.one",
        "results.>",
        "results.a.*",
        "results.*.b",
        "results.a.b",
        "*.b.*",
        ">",
    ];
    let seeds = std::env::var("NATTERJACK_PERMISSION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in 1..=seeds {
        println!("seed {seed}");
        let mut dice = u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |sides: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice >> 33) as usize % sides
        };
        let mut some = |most: usize| (0..roll(most + 1)).map(|_| RULES[roll(RULES.len())]).collect::<Vec<_>>();
        let users: Vec<_> = (0..USERS).map(|number| (format!("u{number}"), some(5), some(2))).collect();
        let lines = users.iter().map(|(name, allow, deny)| {
            let deny = [&deny[..], &["never.>"][..]].concat();
            format!(
                "{{ user: {name}, password: p, permissions: {{ publish: {{ allow: {allow:?}, deny: {deny:?} }}, subscribe: \"_INBOX.>\" }} }}\n"
            )
        });
        let text = format!(
            "accounts {{ A {{ jetstream: enabled, coordinator: enabled, users: [ {{ user: all, password: p }}\n{} ] }} }}",
            lines.collect::<String>()
        );
        let world = Embedded::start(&text).await;
        let all = world.user("all").await;
        submit(&all, &[("Task-Id", "one"), ("Task-Queue", "nobodys")], b"").await;
        let mut results = all.subscribe("results.>").unwrap();
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        for (name, allow, deny) in &users {
            let client = world.user(name).await;
            let may = |subject: &str| {
                allow.iter().any(|rule| matches(rule, subject)) && !deny.iter().any(|rule| matches(rule, subject))
            };
            for subject in ["$TASK.API.GET.one", "$TASK.API.GET.two", "$TASK.API.LIST", "$TASK.API.CANCEL.two"] {
                assert_eq!(
                    publish(&client, subject, "", &[]).await,
                    denied(subject).filter(|_| !may(subject)),
                    "{name}"
                );
            }
            for to in ["results.a.b", "results.a.c", "results.b.b", "results.b.c"] {
                let id = format!("{name}-{}", to.replace('.', "-"));
                // An error like the last one would not be seen.
                publish(&client, &format!("never.{id}"), "", &[]).await;
                let said = publish(&client, "$TASK.API.SUBMIT", "", &[("Task-Id", &id), ("Task-Result-To", to)]).await;
                let wanted = ["$TASK.API.SUBMIT", to].into_iter().find(|subject| !may(subject));
                assert_eq!(said, wanted.and_then(denied), "{name} has its result sent to {to}");
                match wanted {
                    None => told.push((id, to)),
                    Some(_) => refused.push(id),
                }
            }
        }
        let agent = Agent::register(all.clone(), "ann", json!({ "slots": 4, "queues": ["default"] })).await;
        let mut heard = Vec::new();
        for _ in &told {
            let task = agent.pull().await;
            agent.complete(&task, b"done").await.unwrap();
            agent.ack(&task, "+ACK");
            heard.push(results.next().await.unwrap().subject_str().to_owned());
        }
        heard.sort_unstable();
        let mut wanted: Vec<_> = told.iter().map(|(_, to)| (*to).to_owned()).collect();
        wanted.sort_unstable();
        assert_eq!(heard, wanted);
        for (id, _) in &told {
            assert_eq!(ask(&all, &format!("GET.{id}"), Value::Null).await["phase"], "completed", "{id}");
        }
        for id in &refused {
            assert_eq!(call(&all, &format!("GET.{id}"), &[], b"").await.unwrap_err().0, 30404, "{id}");
        }
        println!("{} tasks, {} refused", told.len(), refused.len());
        assert!(!told.is_empty() && !refused.is_empty());
        world.server.stop().await;
    }
}
