//! Councils by `nats req`, `nats kv` and `nats micro` alone.

use super::Cli;

#[test]
fn councils_are_formed_and_seen_in_their_bucket() {
    let Some(cli) = Cli::new("councils") else { return };
    if cli.server.is_real() {
        return; // It has no coordinator.
    }
    cli.check(
        "micro info tasks",
        &["$TASK.API.COUNCIL.FORM.*", "$TASK.API.COUNCIL.DISSOLVE.*", "$TASK.API.COUNCIL.LIST"],
    );
    let form = r#"{"roles":{"tpm":1},"offer_to":"chorus.councils.forming","seat_ttl_s":0}"#;
    cli.check(&format!("req $TASK.API.COUNCIL.FORM.c1 '{form}' --raw"), &[r#""status":"forming""#]);
    let mut watch = cli.start("kv watch TASK_COUNCILS");
    watch.line_with(r#""status":"forming""#);
    cli.run("kv create TASK_COUNCILS c1.tpm.1 ann");
    watch.line_with("c1.tpm.1: ann");
    watch.line_with(r#""status":"formed""#);
    cli.refused("kv create TASK_COUNCILS c1.tpm.1 bob", "wrong last sequence");
    cli.check("kv ls TASK_COUNCILS", &["c1", "c1.tpm.1"]);
    let stored = cli.json("kv get TASK_COUNCILS c1 --raw");
    assert_eq!(stored["members"]["tpm.1"], "ann", "{stored}");
    cli.check("req $TASK.API.COUNCIL.DISSOLVE.c1 '' --raw", &[r#""status":"dissolved""#]);
    cli.until("kv get TASK_COUNCILS c1.tpm.1", "not found");
}
