//! Key-value buckets and object stores, which are streams with conventions.

use async_nats::jetstream::kv::{self, Operation};
use async_nats::jetstream::object_store;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;

use crate::support::{Bench, soon};

async fn bucket(bench: &Bench) -> kv::Store {
    let config = kv::Config { bucket: "config".into(), history: 5, ..Default::default() };
    soon(bench.js.create_key_value(config)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_have_revisions_and_history() {
    let bench = Bench::start().await;
    let store = bucket(&bench).await;
    assert_eq!(soon(store.create("color", "red".into())).await.unwrap(), 1);
    assert!(soon(store.create("color", "blue".into())).await.is_err());
    assert_eq!(soon(store.update("color", "green".into(), 1)).await.unwrap(), 2);
    assert!(soon(store.update("color", "blue".into(), 1)).await.is_err());
    assert_eq!(soon(store.get("color")).await.unwrap().unwrap(), "green");
    let entry = soon(store.entry("color")).await.unwrap().unwrap();
    assert_eq!((entry.revision, entry.operation), (2, Operation::Put));
    soon(store.put("size", "big".into())).await.unwrap();
    let mut keys: Vec<String> = soon(soon(store.keys()).await.unwrap().try_collect()).await.unwrap();
    keys.sort();
    assert_eq!(keys, ["color", "size"]);
    let history: Vec<kv::Entry> = soon(soon(store.history("color")).await.unwrap().try_collect()).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [1, 2]);
    soon(store.delete("size")).await.unwrap();
    assert_eq!(soon(store.get("size")).await.unwrap(), None);
    soon(store.purge("color")).await.unwrap();
    let history: Vec<kv::Entry> = soon(soon(store.history("color")).await.unwrap().try_collect()).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.operation).collect::<Vec<_>>(), [Operation::Purge]);
    assert_eq!(soon(store.create("color", "again".into())).await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_changes_as_they_happen() {
    let bench = Bench::start().await;
    let store = bucket(&bench).await;
    soon(store.put("a.1", "old".into())).await.unwrap();
    let mut watch = soon(store.watch_with_history("a.*")).await.unwrap();
    let first = soon(watch.next()).await.unwrap().unwrap();
    assert_eq!((first.key.as_str(), &first.value[..]), ("a.1", &b"old"[..]));
    soon(store.put("b.1", "unseen".into())).await.unwrap();
    for number in 2..100 {
        soon(store.put(format!("a.{number}"), number.to_string().into())).await.unwrap();
        let seen = soon(watch.next()).await.unwrap().unwrap();
        assert_eq!(seen.key, format!("a.{number}"));
    }
    soon(store.delete("a.5")).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().unwrap().operation, Operation::Delete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_survive_a_restart() {
    let mut bench = Bench::start().await;
    let store = bucket(&bench).await;
    for number in 0..200 {
        soon(store.put(format!("k{}", number % 20), number.to_string().into())).await.unwrap();
    }
    bench.restart().await;
    let store = soon(bench.js.get_key_value("config")).await.unwrap();
    for key in 0..20 {
        assert_eq!(soon(store.get(format!("k{key}"))).await.unwrap().unwrap(), (180 + key).to_string());
    }
    assert_eq!(soon(store.put("k0", "next".into())).await.unwrap(), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_back_whole() {
    let bench = Bench::start().await;
    let config = object_store::Config { bucket: "files".into(), ..Default::default() };
    let store = soon(bench.js.create_object_store(config)).await.unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
    soon(store.put("big.bin", &mut &content[..])).await.unwrap();
    let mut object = soon(store.get("big.bin")).await.unwrap();
    let mut read = Vec::new();
    soon(object.read_to_end(&mut read)).await.unwrap();
    assert!(read == content, "the object is what was put");
    let mut list = soon(store.list()).await.unwrap();
    assert_eq!(soon(list.next()).await.unwrap().unwrap().name, "big.bin");
    soon(store.delete("big.bin")).await.unwrap();
    assert!(soon(store.get("big.bin")).await.is_err());
}
