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
