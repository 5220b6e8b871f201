//! A way around the gate: whatever way a client comes, and whatever it says in whatever case, it is judged by its CONNECT.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{PATIENCE, World, next, round};
use super::answer;

const TEXT: &str = r#"
accounts {
    A { users: [ { user: a, password: p }, { user: std, password: p, allowed_connection_types: [STANDARD] } ] }
    B { users: [ { user: b, password: p } ] }
    SYS { users: [ { user: sys, password: p } ] }
}
system_account: SYS
authorization { timeout: 30 }
websocket { port: -1, no_tls: true }
http: "127.0.0.1:-1"
"#;

/// What only those may do who were let in, in every case and with the words of other protocols around it.
fn attempts() -> Vec<String> {
    let mut attempts = Vec::new();
    let acts = ["PUB x 1\r\ny\r\n", "HPUB x 12 13\r\nNATS/1.0\r\n\r\ny\r\n", "SUB x 1\r\nPUB x 1\r\ny\r\n"];
    for act in acts {
        let lower = act.replace("PUB", "pub").replace("SUB", "sub");
        let mixed = act.replace("PUB", "pUb").replace("SUB", "SuB");
        for act in [act.to_owned(), lower, mixed] {
            for before in [
                "",
                "PING\r\n",
                "ping\r\n",
                "INFO {\"auth_required\":false}\r\n",
                "INFO {\"server_id\":\"X\",\"nonce\":\"\"}\r\n",
                "+OK\r\n",
                "PONG\r\n",
                "connect {}\r\n",
                "CONNECT {\"user\":\"a\"}\r\n",
                "CONNECT {\"user\":\"\",\"pass\":\"\"}\r\n",
                "CONNECT {\"user\":null,\"pass\":null}\r\n",
                "CONNECT {\"user\":\"$G\",\"pass\":\"\"}\r\n",
                "CONNECT {\"user\":\"sys\"}\r\n",
                "CONNECT {\"user\":\"b\",\"pass\":\"p\",\"account\":\"A\"}\r\n",
                "CONNECT {\"user\":\"b\",\"pass\":\"p\",\"new_account\":true,\"account\":\"A\"}\r\n",
                // A route, a gateway, a leaf node and an MQTT client say hello.
                "CONNECT {\"server_id\":\"X\",\"name\":\"X\",\"cluster\":\"c\",\"lnoc\":true}\r\n",
                "CONNECT {\"user\":\"\",\"pass\":\"\",\"gateway\":\"g\"}\r\n",
                "CONNECT {\"remote_account\":\"A\",\"is_spoke\":true,\"hub\":true,\"jetstream\":true}\r\n",
                "RS+ A x\r\nRMSG A x 1\r\ny\r\n",
                "LS+ x\r\nLMSG x 1\r\ny\r\n",
                "A+ A\r\n",
                "\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test",
                "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            ] {
                attempts.push(format!("{before}{act}PING\r\n"));
            }
        }
    }
    attempts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_leads_through_the_gate() {
    let world = World::start(TEXT).await;
    let clients = [world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap()];
    let mut heard = Vec::new();
    for client in &clients {
        heard.push(client.subscribe("x").await.unwrap());
        round(client).await;
    }
    let attempts = attempts();
    for some in attempts.chunks(32) {
        let answers = some.iter().map(|attempt| answer(&world, attempt.as_bytes(), b"-ERR"));
        for (attempt, said) in some.iter().zip(futures_util::future::join_all(answers).await) {
            assert!(said.contains("-ERR '") && !said.contains("MSG x"), "{attempt:?}: {said}");
            assert!(!said.contains("PONG"), "{attempt:?}: {said}");
        }
    }
    for (client, heard) in clients.iter().zip(&mut heard) {
        client.publish("x", "last".into()).await.unwrap();
        assert_eq!(next(heard).await.payload, "last");
    }
    println!("{} ways around the gate lead nowhere", attempts.len());
    world.server.stop().await;
}

/// The ports that speak something else are no other door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_ports_are_no_other_door() {
    let world = World::start(TEXT).await;
    let websocket: u16 = world.server.websocket_url().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let monitor = world.server.monitor_address().unwrap().port();
    for port in [websocket, monitor] {
        for text in [
            "CONNECT {\"user\":\"a\",\"pass\":\"p\"}\r\nPING\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\nCONNECT {\"user\":\"a\",\"pass\":\"p\"}\r\nPING\r\n",
            "POST /varz HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nPING\r\n",
            "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
            let mut said = Vec::new();
            let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end in time");
            let said = String::from_utf8_lossy(&said);
            assert!(
                !said.contains("PONG") && !said.contains("root:") && !said.contains("INFO {"),
                "{port} {text:?}: {said}"
            );
        }
    }
    // A user who may come by one way does not by another.
    let url = world.server.websocket_url().unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("std".into(), "p".into());
    assert!(options.connect(url).await.is_err());
    world.user("std", "p").await.expect("by its own way it comes in");
    world.server.stop().await;
}

/// A second CONNECT takes everything away that the first one gave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_connect_is_judged_anew() {
    let world = World::start(TEXT).await;
    let (a, b) = (world.user("a", "p").await.unwrap(), world.user("b", "p").await.unwrap());
    let connect =
        |user: &str, password: &str| format!(r#"CONNECT {{"verbose":false,"user":"{user}","pass":"{password}"}}"#);
    let mut wire = world.wire().await;
    assert_eq!(wire.ask(&format!("{}\r\nSUB x 1", connect("a", "p"))).await, ["PONG"]);
    assert_eq!(wire.ask(&connect("b", "p")).await, ["PONG"]);
    for client in [&a, &b] {
        client.publish("x", "to nobody".into()).await.unwrap();
        round(client).await;
    }
    let mut heard = b.subscribe("y").await.unwrap();
    round(&b).await;
    assert_eq!(wire.ask("PUB y 1\r\n1").await, ["PONG"], "what A's subscription would have heard is not B's");
    assert_eq!(next(&mut heard).await.payload, "1");
    let cut = wire.ask(&connect("a", "wrong")).await;
    assert_eq!(cut, ["-ERR 'Authorization Violation'", ""]);
    // Nothing said behind a CONNECT that is refused is done.
    let said = answer(&world, format!("{}\r\nPUB y 1\r\n2\r\n", connect("b", "no")).as_bytes(), b"").await;
    assert!(said.contains("Authorization Violation"), "{said}");
    b.publish("y", "3".into()).await.unwrap();
    assert_eq!(next(&mut heard).await.payload, "3");
    world.server.stop().await;
}

/// Who needs no credentials is that user and nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_auth_user_is_one_user() {
    let text = TEXT.replace("authorization {", "no_auth_user: b\nauthorization {");
    let world = World::start(&text).await;
    let a = world.user("a", "p").await.unwrap();
    let mut secret = a.subscribe("x").await.unwrap();
    round(&a).await;
    for (hello, expected) in [
        (r#"CONNECT {"verbose":false}"#, "PONG"),
        (r#"CONNECT {"verbose":false,"user":"a"}"#, "-ERR 'Authorization Violation'"),
        (r#"CONNECT {"verbose":false,"user":"b"}"#, "-ERR 'Authorization Violation'"),
        (r#"CONNECT {"verbose":false,"pass":"p"}"#, "-ERR 'Authorization Violation'"),
        (r#"CONNECT {"verbose":false,"auth_token":"x"}"#, "-ERR 'Authorization Violation'"),
        (r#"CONNECT {"verbose":false,"nkey":"x"}"#, "-ERR 'Authorization Violation'"),
    ] {
        let mut wire = world.wire().await;
        assert_eq!(wire.ask(hello).await[0], expected, "{hello}");
        if expected == "PONG" {
            let said = "PUB x 0\r\n\r\nPUB $SYS.REQ.SERVER.PING in 0\r\n\r\nSUB in 1";
            assert_eq!(wire.ask(said).await, ["PONG"]);
        }
    }
    a.publish("x", "end".into()).await.unwrap();
    assert_eq!(next(&mut secret).await.payload, "end");
    world.server.stop().await;
}
