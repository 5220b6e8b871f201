// A dispatcher: submits a task, follows it and prints its result. Any NATS client will do; this is nats.js 3.
//
//   npm install && npx tsc && node dispatcher.js job-7 'say hello' lang=typescript
import { connect, headers } from "@nats-io/transport-node";
import { setTimeout as sleep } from "node:timers/promises";

const [id, text, requires] = process.argv.slice(2);
const nc = await connect({
  servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222",
  name: "dispatcher", maxReconnectAttempts: -1, reconnectTimeWait: 500,
});

/** Asks until there is an answer: the broker may be away for a while, and asking again does no harm. */
async function call(subject: string, body: string, given: Record<string, string>) {
  const block = headers();
  for (const [name, value] of Object.entries(given)) block.set(name, value);
  for (;;) {
    try {
      const answer = await nc.request(subject, body, { timeout: 10_000, headers: block });
      return { answer, code: answer.headers?.get("Nats-Service-Error-Code") ?? "" };
    } catch {
      await sleep(500);
    }
  }
}

nc.subscribe(`$TASK.P.${id}`, { callback: (_, chunk) => console.log("...", chunk.string()) });
nc.subscribe(`$TASK.E.TASK.${id}`, {
  callback: (_, event) => {
    const { phase, agent = "" } = event.json<{ phase: string; agent?: string }>();
    console.log("-", phase, agent);
  },
});

// The id makes it one task, however often it is submitted.
const submitted = await call("$TASK.API.SUBMIT", text, { "Task-Id": id, ...(requires && { "Task-Requires": requires }) });
let ended = submitted;
if (!submitted.code) {
  do {
    ended = await call(`$TASK.API.AWAIT.${id}`, "", { "Task-Wait": "5s" });
  } while (["408", "503"].includes(ended.code)); // not finished yet; not available now
}
if (ended.code) {
  // Refused, or ended without a result: then this is its record.
  const record = ended.answer.json<{ state?: string; reason?: string; error: { description: string } }>();
  console.error(`${record.state ?? "refused"}: ${record.reason || record.error.description}`);
  process.exitCode = 1;
} else {
  console.log(ended.answer.string());
}
await nc.close();
