// What a page does with the official clients for browsers. Its job is in `job`, its findings go to where it came from.

import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { headers, wsconnect } from "@nats-io/nats-core";
import * as older from "nats.ws";

const bytes = (length) => Uint8Array.from({ length }, (_, at) => (at >> 8) ^ at);
const tell = (findings) => fetch("/report", { method: "POST", body: JSON.stringify(findings) });

function check(holds, what) {
  if (!holds) throw new Error(`not so: ${what}`);
}

const same = (left, right) => left.length === right.length && left.every((byte, at) => byte === right[at]);

// The first `count` of an async iterator.
async function take(iterator, count) {
  const taken = [];
  for await (const item of iterator) {
    taken.push(item);
    if (taken.length === count) return taken;
  }
  throw new Error(`ended after ${taken.length} of ${count}`);
}

// Connects, and says what the browser and the server agreed on.
async function open(connect, findings) {
  const wsFactory = async (url) => {
    const socket = new WebSocket(url);
    socket.addEventListener("open", () => (findings.extensions = socket.extensions));
    return { socket, encrypted: url.startsWith("wss:") };
  };
  const { url, user, pass } = job;
  return await connect({ servers: url, user, pass, name: "page", reconnect: false, timeout: 20_000, wsFactory });
}

const does = {
  // A message to itself, by both generations of the client.
  async connects(findings) {
    for (const connect of [wsconnect, older.connect]) {
      const nc = await open(connect, findings);
      const subscription = nc.subscribe("to.me");
      nc.publish("to.me", "hello");
      check((await take(subscription, 1))[0].string() === "hello", "what was published is what comes");
      await nc.close();
    }
  },

  // A page that is not let in learns of nothing else.
  async isRefused(findings) {
    try {
      await open(wsconnect, findings);
    } catch (error) {
      findings.refusal = `${error}`;
      return;
    }
    check(false, "it is refused");
  },

  async everything(findings) {
    const nc = await open(wsconnect, findings);
    for (const length of [0, 1, 125, 126, 65_535, 65_536, 700_000]) {
      const subscription = nc.subscribe("page.sizes");
      nc.publish("page.sizes", bytes(length));
      check(same((await take(subscription, 1))[0].data, bytes(length)), `${length} bytes come as they went`);
    }

    // The other end is no browser.
    const sent = headers();
    sent.append("Council-ID", "7");
    sent.append("Council-ID", "8");
    const answer = await nc.request("echo", bytes(100_000), { headers: sent, timeout: 20_000 });
    check(same(answer.data, bytes(100_000)), "the answer has the request's bytes");
    check(`${answer.headers.values("Council-ID")}` === "7,8", "and its headers");
    let nobody;
    await nc.request("nobody.there", "", { timeout: 20_000 }).catch((error) => (nobody = error));
    check(nobody?.isNoResponders?.() || `${nobody}`.includes("no responders"), "no responders are told");
    let denied;
    const refused = nc.subscribe("denied", { callback: (error) => (denied ??= error) });
    await nc.flush();
    await refused.closed;
    check(`${denied}`.includes("Permissions Violation"), "what is not allowed is told");

    const jsm = await jetstreamManager(nc, { timeout: 20_000 });
    const js = jetstream(nc, { timeout: 20_000 });
    await jsm.streams.add({ name: "PAGE", subjects: ["stored.>"] });
    await Promise.all(Array.from({ length: 100 }, (_, at) => js.publish(`stored.${at}`, `${at}`)));
    check((await js.publish("stored.last", "", { msgID: "one" })).seq === 101, "the stream counts on");
    check((await js.publish("stored.last", "", { msgID: "one" })).duplicate, "duplicates are told");
    await jsm.consumers.add("PAGE", { durable_name: "reader", ack_policy: "explicit" });
    const consumer = await js.consumers.get("PAGE", "reader");
    const messages = await consumer.consume({ max_messages: 25 });
    let sequence = 0;
    for await (const message of messages) {
      sequence += 1;
      check(message.seq === sequence, "in the stream's order");
      check(await message.ackAck(), "acks are confirmed");
      if (sequence === 101) break;
    }
    const info = await consumer.info();
    check(info.num_pending === 0 && info.num_ack_pending === 0, "nothing is left");

    const bucket = await new Kvm(nc).create("settings");
    const watch = await bucket.watch();
    await bucket.put("theme", "dark");
    await bucket.delete("theme");
    const [put, gone] = await take(watch, 2);
    check(put.string() === "dark" && put.operation === "PUT" && gone.operation === "DEL", "a watch sees each change");

    await nc.drain();
  },
};

const findings = {};
try {
  await does[job.does](findings);
} catch (error) {
  findings.error = `${error.stack}`;
}
await tell(findings);
