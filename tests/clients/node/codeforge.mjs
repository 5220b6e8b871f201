// CodeForge on nats.js: dispatch to backends, results, retries by the client, sessions in KV, artefacts in objects.
// Runs on nats.js 2 and 3, whose differences are in client.mjs; see scenario.rs for `@kill` and `@start`.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import {
  AckPolicy, connect, createBucket, createStore, errorCode, headers, jetstream, jetstreamManager, noResponders,
  StorageType,
} from "./client.mjs";

const harness = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const text = (message) => new TextDecoder().decode(message.data ?? message.value);
const bytes = (string) => new TextEncoder().encode(string);
const step = (what) => console.log(`- ${what}`);

// Asks the harness to kill, stop or start the server.
async function server(wish) {
  console.log(`@${wish}`);
  assert.equal((await harness.next()).value, "done");
}

// The first `count` of an async iterator, which must come in time.
async function take(iterator, count, what) {
  const taken = [];
  const taking = (async () => {
    for await (const item of iterator) {
      taken.push(item);
      if (taken.length === count) break;
    }
    return taken;
  })();
  return await inTime(taking, `${count} ${what} (have ${taken.length})`);
}

function inTime(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), 20_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const options = { servers: process.env.NATS_URL, maxReconnectAttempts: -1, reconnectTimeWait: 50, reconnectJitter: 0 };
const nc = await connect({ ...options, name: "codeforge" });
const js = jetstream(nc);
const jsm = await jetstreamManager(nc);

step("healthz by GET and by HEAD");
for (const method of ["GET", "HEAD"]) {
  assert.equal((await fetch(`${process.env.MONITORING_URL}/healthz`, { method })).status, 200);
}

step("a stream and one durable consumer for each backend");
await jsm.streams.add({ name: "TASKS", subjects: ["tasks.agent.*"], storage: StorageType.File, max_age: 3600e9 });
for (const backend of ["aider", "openhands"]) {
  await jsm.consumers.add("TASKS", {
    durable_name: backend, filter_subject: `tasks.agent.${backend}`, ack_policy: AckPolicy.Explicit,
    ack_wait: 30e9, max_deliver: 5,
  });
}

step("dispatch by backend, answer on results.<task id>, headers unchanged");
const results = nc.subscribe("results.*");
for (let number = 0; number < 20; number++) {
  const h = headers();
  h.set("X-Request-ID", `req-${number}`);
  h.set("Retry-Count", "0");
  const ack = await js.publish(`tasks.agent.${["aider", "openhands"][number % 2]}`, bytes(`t${number}`), { headers: h });
  assert.deepEqual([ack.stream, ack.seq, ack.duplicate], ["TASKS", number + 1, false]);
}
async function work(backend) {
  const consumer = await js.consumers.get("TASKS", backend);
  const messages = await consumer.fetch({ max_messages: 10, expires: 10_000 });
  for await (const message of messages) {
    assert.equal(message.subject, `tasks.agent.${backend}`);
    message.working();
    const h = headers();
    h.set("X-Request-ID", message.headers.get("X-Request-ID"));
    nc.publish(`results.${text(message)}`, message.subject, { headers: h });
    message.ack();
  }
}
await inTime(Promise.all([work("aider"), work("openhands")]), "the workers");
const found = (await take(results, 20, "results"))
  .map((m) => `${m.subject} ${m.headers.get("X-Request-ID")} ${text(m)}`);
const wanted = Array.from({ length: 20 }, (_, n) => `results.t${n} req-${n} tasks.agent.${["aider", "openhands"][n % 2]}`);
assert.deepEqual(found.sort(), wanted.sort());

step("nak with a delay comes back after it, counted; the third failure goes to <subject>.dlq");
const dead = nc.subscribe("tasks.agent.*.dlq");
const poison = headers();
poison.set("Retry-Count", "0");
await js.publish("tasks.agent.aider", bytes("poison"), { headers: poison });
const aider = await js.consumers.get("TASKS", "aider");
for (let attempt = 1; attempt <= 3; attempt++) {
  const began = performance.now();
  const message = await aider.next({ expires: 5000 });
  const waited = performance.now() - began;
  assert.equal(message.info.deliveryCount ?? message.info.redeliveryCount, attempt);
  assert.equal(message.headers.get("Retry-Count"), "0");
  assert.ok(attempt === 1 || waited > 200, `redelivered ${waited} ms after a nak with 300 ms`);
  if (attempt < 3) {
    message.nak(300);
  } else {
    const h = headers();
    h.set("Retry-Count", `${attempt}`);
    nc.publish(`${message.subject}.dlq`, message.data, { headers: h });
    message.term("three failures");
  }
}
const [letter] = await take(dead, 1, "dead letters");
assert.deepEqual([text(letter), letter.headers.get("Retry-Count")], ["poison", "3"]);
await nc.flush();
const info = await aider.info();
assert.deepEqual([info.num_ack_pending, info.num_pending], [0, 0]);

step("consume: a running worker takes what comes, in order");
const openhands = await js.consumers.get("TASKS", "openhands");
const running = await openhands.consume({ max_messages: 50 });
for (let number = 0; number < 200; number++) nc.publish("tasks.agent.openhands", `run ${number}`);
let number = 0;
await inTime((async () => {
  for await (const message of running) {
    assert.equal(text(message), `run ${number++}`);
    message.ack();
    if (number === 200) running.stop();
  }
})(), "200 consumed messages");

step("fan-out to every subscriber, once to a queue group");
const other = await connect({ ...options, name: "codeforge-workers" });
const plain = [1, 2, 3].map(() => other.subscribe("events.>"));
let grouped = 0;
for (let member = 0; member < 3; member++) {
  other.subscribe("events.*", { queue: "g", callback: () => grouped++ });
}
await other.flush();
for (let event = 0; event < 10; event++) nc.publish(`events.${event}`, "x");
await nc.flush();
for (const subscription of plain) assert.equal((await take(subscription, 10, "events")).length, 10);
await other.flush();
assert.equal(grouped, 10);

step("request and reply, and no responders");
other.subscribe("backend.status", { callback: (_, message) => message.respond(text(message).toUpperCase()) });
await other.flush();
assert.equal(text(await nc.request("backend.status", "up?", { timeout: 2000 })), "UP?");
await assert.rejects(nc.request("backend.nobody", "", { timeout: 2000 }), noResponders);
await other.drain();

step("KV: put, create, update, history, watch, delete, purge, keys");
const kv = await createBucket(nc, "sessions", { history: 5 });
assert.equal(await kv.put("s.1", bytes("one")), 1);
assert.equal(await kv.update("s.1", bytes("two"), 1), 2);
await assert.rejects(kv.update("s.1", bytes("late"), 1), (error) => errorCode(error) === 10071);
await kv.create("s.2", bytes("new"));
await assert.rejects(kv.create("s.2", bytes("again")), (error) => errorCode(error) === 10071);
assert.equal((await kv.get("s.1")).string(), "two");
assert.equal((await kv.get("s.1", { revision: 1 })).string(), "one");
assert.deepEqual((await take(await kv.history({ key: "s.1" }), 2, "revisions")).map((e) => e.string()), ["one", "two"]);
assert.deepEqual((await take(await kv.keys(), 2, "keys")).sort(), ["s.1", "s.2"]);
const watch = await kv.watch({ key: "s.*" });
const watched = take(watch, 3, "changes");
await kv.delete("s.2");
assert.deepEqual((await watched).map((e) => `${e.key} ${e.operation}`), ["s.1 PUT", "s.2 PUT", "s.2 DEL"]);
assert.equal((await kv.get("s.2")).operation, "DEL");
await kv.purge("s.1");
await kv.put("s.1", bytes("three"));
assert.equal((await kv.status()).history, 5);

step("object store: put, get, info, list, delete");
const store = await createStore(nc, "artefacts");
const body = new Uint8Array(700_000).map((_, at) => at % 251);
assert.equal((await store.putBlob({ name: "patch.diff" }, body)).size, body.length);
assert.deepEqual(await store.getBlob("patch.diff"), body);
assert.deepEqual((await store.list()).map((entry) => entry.name), ["patch.diff"]);
await store.delete("patch.diff");
assert.equal(await store.getBlob("patch.diff"), null);

step("dedup, expected sequences, gets, purge, delete");
await jsm.streams.add({ name: "RULES", subjects: ["rules.>"], allow_direct: true });
assert.equal((await js.publish("rules.a", bytes("1"), { msgID: "m1" })).seq, 1);
assert.equal((await js.publish("rules.a", bytes("1"), { msgID: "m1" })).duplicate, true);
await assert.rejects(js.publish("rules.a", bytes("2"), { expect: { lastSequence: 7 } }), (e) => errorCode(e) === 10071);
await js.publish("rules.b", bytes("3"), { expect: { lastSequence: 1 } });
assert.equal(text(await jsm.streams.getMessage("RULES", { seq: 1 })), "1");
assert.equal(text(await jsm.direct.getMessage("RULES", { last_by_subj: "rules.b" })), "3");
assert.equal(await jsm.streams.deleteMessage("RULES", 1), true);
assert.equal((await jsm.streams.purge("RULES")).purged, 1);
assert.equal(await jsm.streams.delete("RULES"), true);
await assert.rejects(jsm.streams.info("RULES"), (error) => errorCode(error) === 10059);

step("kill -9: nothing acked is lost, nothing ackAck'ed comes back, subscriptions resume");
let last = 0;
for (let kept = 0; kept < 100; kept++) last = (await js.publish("tasks.agent.openhands", bytes(`kept ${kept}`))).seq;
let acked = 0;
for await (const message of await openhands.fetch({ max_messages: 40, expires: 5000 })) {
  assert.equal(await message.ackAck(), true);
  acked++;
}
assert.equal(acked, 40);
const revision = await kv.put("s.kept", bytes("kept"));
const live = nc.subscribe("live");
const back = (async () => {
  for await (const status of nc.status()) {
    if (status.type === "reconnect") return;
  }
})();
await server("kill");
await server("start");
await inTime(back, "the reconnect");
const entry = await kv.get("s.kept");
assert.deepEqual([entry.string(), entry.revision], ["kept", revision]);
assert.equal((await jsm.streams.info("TASKS")).state.last_seq, last);
const rest = [];
for await (const message of await openhands.fetch({ max_messages: 60, expires: 5000 })) {
  rest.push(text(message));
  message.ack();
}
assert.deepEqual(rest, Array.from({ length: 60 }, (_, n) => `kept ${n + 40}`));
assert.equal((await js.publish("tasks.agent.openhands", bytes("next"))).seq, last + 1);
nc.publish("live", "again");
assert.equal(text((await take(live, 1, "messages"))[0]), "again");

await nc.close();
step("all as it should be");
process.exit(0);
