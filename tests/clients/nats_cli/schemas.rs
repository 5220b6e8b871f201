//! Answers held against the schemas that NATS publishes for them.

use super::Cli;

#[test]
fn answers_are_valid_by_their_schemas() {
    let Some(cli) = Cli::new("schema request") else { return };
    let requests = [
        ("INFO", "", "account_info_response"),
        ("STREAM.CREATE.S", r#"{"name":"S","subjects":["s.>"],"storage":"file"}"#, "stream_create_response"),
        ("STREAM.UPDATE.S", r#"{"name":"S","subjects":["s.>","t"],"storage":"file"}"#, "stream_update_response"),
        ("STREAM.INFO.S", "", "stream_info_response"),
        ("STREAM.INFO.NOBODY", "", "stream_info_response"),
        ("STREAM.NAMES", "", "stream_names_response"),
        ("STREAM.LIST", "", "stream_list_response"),
        ("STREAM.MSG.GET.S", r#"{"seq":1}"#, "stream_msg_get_response"),
        (
            "CONSUMER.CREATE.S.c",
            r#"{"stream_name":"S","config":{"durable_name":"c","name":"c","ack_policy":"explicit"}}"#,
            "consumer_create_response",
        ),
        ("CONSUMER.INFO.S.c", "", "consumer_info_response"),
        ("CONSUMER.NAMES.S", "", "consumer_names_response"),
        ("CONSUMER.LIST.S", "", "consumer_list_response"),
        ("CONSUMER.PAUSE.S.c", r#"{"pause_until":"2040-01-01T00:00:00Z"}"#, "consumer_pause_response"),
        ("CONSUMER.DELETE.S.c", "", "consumer_delete_response"),
        ("STREAM.MSG.DELETE.S", r#"{"seq":1}"#, "stream_msg_delete_response"),
        ("STREAM.PURGE.S", "", "stream_purge_response"),
        ("STREAM.DELETE.S", "", "stream_delete_response"),
    ];
    for (subject, body, kind) in requests {
        let valid = format!("Response is a valid io.nats.jetstream.api.v1.{kind} message");
        cli.check(&format!("schema req $JS.API.{subject} '{body}'"), &[&valid]);
        if subject == "STREAM.UPDATE.S" {
            cli.run("pub s.a 'a message' -J");
        }
    }
    let _service = cli.start("micro serve demo");
    cli.until("schema req $SRV.PING.demo '' --schema io.nats.micro.v1.ping_response", "is a valid");
    for verb in ["INFO", "STATS"] {
        let schema = format!("io.nats.micro.v1.{}_response", verb.to_lowercase());
        cli.check(&format!("schema req $SRV.{verb}.demo '' --schema {schema}"), &["is a valid"]);
    }
    if !cli.server.is_real() {
        for verb in ["PING", "INFO", "STATS"] {
            let schema = format!("io.nats.micro.v1.{}_response", verb.to_lowercase());
            cli.check(&format!("schema req $SRV.{verb}.tasks '' --schema {schema}"), &["is a valid"]);
        }
    }
}
