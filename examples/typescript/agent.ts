// An agent: registers, works on what it is given and says how it went. Any NATS client will do; this is nats.js 3.
//
//   npm install && npx tsc && node agent.js tess        (node 22.18 and newer run agent.ts as it is)
import { jetstream, type JsMsg } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { setTimeout as sleep } from "node:timers/promises";

const [name = "tess"] = process.argv.slice(2);
const slots = 4;
type Card = { stream: string; consumer: string; control: string; presence: string; resume: string; lease_s: number };

const nc = await connect({
  servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222",
  name, maxReconnectAttempts: -1, reconnectTimeWait: 500,
});

/** Asks until there is an answer: the broker may be away for a while, and asking again does no harm. */
async function call(subject: string, body: string | Uint8Array = "") {
  for (;;) {
    try {
      const answer = await nc.request(subject, body, { timeout: 5000 });
      return { answer, refused: answer.headers?.get("Nats-Service-Error") };
    } catch {
      await sleep(500);
    }
  }
}

async function register(before?: Card): Promise<Card> {
  const request = { labels: ["lang=typescript"], slots, resume: before?.resume ?? "" };
  const { answer, refused } = await call(`$TASK.API.AGENT.REGISTER.${name}`, JSON.stringify(request));
  if (refused) throw new Error(`cannot register: ${refused}`);
  const card = answer.json<Card>();
  // To listen there is to be there: when it ends, our tasks go to others.
  if (card.presence !== before?.presence) nc.subscribe(card.presence, { callback: () => {} });
  return card;
}

/** The work itself. */
async function shout(text: string, progress: string, signal: AbortSignal) {
  for (const word of text.split(/\s+/).filter(Boolean)) {
    if (word === "impossible") throw new Error("that is impossible");
    nc.publish(progress, word.toUpperCase());
    await sleep(100, undefined, { signal });
  }
  return text.toUpperCase();
}

async function work(task: JsMsg, signal: AbortSignal) {
  const header = (name: string) => task.headers!.get(name);
  const lease = Number(header("Task-Lease") || card.lease_s);
  const keeper = setInterval(() => task.working(), (lease / 3) * 1000); // silent work would lose its lease
  let [verdict, body] = ["Task-Complete", ""];
  try {
    body = await shout(task.string(), header("Task-Progress"), signal);
  } catch (error) {
    const reason = signal.aborted ? "stopped as told" : (error as Error).message;
    [verdict, body] = ["Task-Fail", JSON.stringify({ error: reason, retry: false })];
  }
  clearInterval(keeper);
  const { refused } = await call(header(verdict), body);
  task.ack();
  console.log(header("Task-Id"), refused || verdict);
}

let card = await register();
const running = new Map<string, { stop: AbortController; ended: Promise<void> }>();
const consumer = await jetstream(nc).consumers.get(card.stream, card.consumer);
const tasks = await consumer.consume({ max_messages: slots });
nc.subscribe(card.control, {
  callback: (_, message) => {
    const told = message.json<{ op: string; task: string }>();
    if (told.op === "drain") tasks.close();
    if (told.op === "cancel") running.get(told.task)?.stop.abort();
  },
});
process.on("SIGTERM", () => call(`$TASK.API.AGENT.DRAIN.${name}`));
(async () => {
  // The token keeps our leases when we come back.
  for await (const status of nc.status()) if (status.type === "reconnect") card = await register(card);
})();

for await (const task of tasks) {
  const [id, stop] = [task.headers!.get("Task-Id"), new AbortController()];
  const ended = work(task, stop.signal).finally(() => running.delete(id));
  running.set(id, { stop, ended });
}
await Promise.all([...running.values()].map((task) => task.ended));
await nc.drain();
