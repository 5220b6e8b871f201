//! `nats bench`: every way it has of giving and taking, with few messages.

use super::Cli;

#[test]
fn every_benchmark_runs() {
    let Some(cli) = Cli::new("bench") else { return };
    let bench = |what: &str| cli.check(&format!("bench {what} --msgs 100 --no-progress"), &["msgs/sec"]);
    for how in ["pub sync bench.js --create", "pub async bench.js", "pub batch bench.js"] {
        bench(&format!("js {how}"));
    }
    for how in ["ordered", "consume", "fetch", "get sync", "get batch"] {
        bench(&format!("js {how}"));
    }
    bench("kv put");
    bench("kv get");
    bench("pub bench.core");
}

#[test]
fn subscribers_and_services_are_measured() {
    let Some(cli) = Cli::new("bench sub and service") else { return };
    let mut subscriber = cli.start("bench sub bench.core --msgs 100 --no-progress");
    while !subscriber.finished() {
        cli.run("bench pub bench.core --msgs 100 --no-progress");
    }
    assert!(subscriber.rest().contains("msgs/sec"));
    let _service = cli.start("bench service serve bench.svc --no-progress");
    cli.until("req bench.svc ready --raw", "");
    cli.until("bench service request bench.svc --msgs 100 --no-progress", "msgs/sec");
}
