//! `nats kv` and `nats object`: buckets with every option, older revisions, watching and sealing.

use super::Cli;

#[test]
fn buckets_are_described_edited_reverted_and_compacted() {
    let Some(cli) = Cli::new("buckets in detail") else { return };
    let add = "kv add CONFIG --history 5 --description toads --max-bucket-size 1MB --ttl 1h --marker-ttl 1m";
    cli.check(add, &["toads", "History Kept: 5", "Maximum Bucket Size: 1.0 MiB"]);
    cli.check("kv create CONFIG name one", &["one"]);
    cli.run("kv create CONFIG soon gone --ttl 1m");
    cli.run("kv put CONFIG name two");
    cli.refused("kv update CONFIG name three 1", "wrong last sequence: 3");
    cli.run("kv revert CONFIG name 1 --force");
    assert_eq!(cli.run("kv get CONFIG name --raw").trim(), "one");
    cli.check("kv get CONFIG name --revision 3", &["two"]);
    cli.check("kv ls CONFIG -v --display-value", &["name", "soon", "gone"]);
    cli.check("kv edit CONFIG --history 8", &["History Kept: 8"]);

    cli.run("kv del CONFIG name -f");
    cli.check("kv history CONFIG name", &["one", "two", "DELETE"]);
    cli.run("kv purge CONFIG soon -f");
    cli.check("kv history CONFIG soon", &["PURGE"]);
    cli.run("kv compact CONFIG -f");
    cli.check("kv ls CONFIG", &["No keys found"]);
}

#[test]
fn object_buckets_are_described_watched_and_sealed() {
    let Some(cli) = Cli::new("object buckets in detail") else { return };
    std::fs::write(cli.home.path().join("a.txt"), "croak").expect("a file to put");
    cli.check("object add FILES --description toads --max-bucket-size 10MB", &["toads", "10 MiB"]);
    cli.check("object put FILES a.txt --name first -H Kind:text --no-progress -f", &["first", "5 B"]);
    let mut watcher = cli.start("object watch FILES");
    watcher.line_with("PUT FILES > first");
    cli.run("object put FILES a.txt --name second --no-progress -f");
    watcher.line_with("PUT FILES > second");
    cli.run("object del FILES second -f");
    watcher.line_with("DEL FILES > second");
    cli.check("object edit FILES --description frogs", &["frogs"]);
    cli.check("object info FILES", &["frogs", "Sealed: false"]);
    cli.check("object seal FILES -f", &["FILES has been sealed", "Sealed: true"]);
    cli.refused("object put FILES a.txt --name third --no-progress -f", "sealed");
}

#[test]
fn buckets_are_mirrored_gathered_and_published_again() {
    let Some(cli) = Cli::new("mirrors and sources of buckets") else { return };
    cli.run("kv add SRC");
    cli.run("kv put SRC name toad");
    cli.check("kv add COPY --mirror SRC", &["Mirror Information", "Origin Bucket: SRC"]);
    cli.until("kv info COPY", "Values Stored: 1");
    let add = "kv add ALL --source SRC --republish-source '$KV.ALL.>' --republish-destination 'again.>'";
    cli.check(add, &["Source Bucket: SRC", "Republishing: $KV.ALL.> to again.>"]);
    cli.until("kv get ALL name --raw", "toad");
    let mut again = cli.start("sub 'again.>' --raw --count 1");
    while !again.finished() {
        cli.run("kv put ALL name frog");
    }
    assert_eq!(again.rest().trim(), "frog");
}
