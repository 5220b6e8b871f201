"""An agent on nats-py that says in_progress(), nak(), nak(delay) and term() on its consumer's messages, as on any other's."""

import asyncio
import json
import os
import time

import nats

LEASE = 2.0


def equal(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: found {found!r}, wanted {wanted!r}")


async def ask(nc, endpoint, body="", headers=None):
    answer = await nc.request(f"$TASK.API.{endpoint}", body.encode(), timeout=20, headers=headers)
    return json.loads(answer.data)


async def ended(nc, task):
    """The task's record, once it has ended; a result would be answered as it is."""
    await nc.request(f"$TASK.API.AWAIT.{task}", b"", timeout=65, headers={"Task-Wait": "60s"})
    return await ask(nc, f"GET.{task}")


async def main():
    nc = await nats.connect(os.environ["NATS_URL"], name="ada")
    settings = {"lease_s": LEASE, "backoff": [0.05], "max_attempts": 3}
    await ask(nc, "QUEUE.PUT.words", json.dumps(settings))
    card = await ask(nc, "AGENT.REGISTER.ada", json.dumps({"queues": ["words"]}))
    tasks = await nc.jetstream().pull_subscribe_bind(card["consumer"], card["stream"])

    async def submit(task):
        await ask(nc, "SUBMIT", "work", {"Task-Id": task, "Task-Queue": "words"})

    async def fetch(task, attempt):
        [message] = await tasks.fetch(1, timeout=60)
        equal((message.headers["Task-Id"], message.headers["Task-Attempt"]), (task, attempt), "a delivery")
        return message

    await submit("busy")
    message = await fetch("busy", "1")
    begun = time.monotonic()
    while time.monotonic() - begun < 2 * LEASE:
        await message.in_progress()
        await asyncio.sleep(LEASE / 8)
    await nc.request(message.headers["Task-Complete"], b"done", timeout=20)
    record = await ended(nc, "busy")
    equal((record["state"], record["attempt"]), ("completed", 1), "work that says it goes on")
    print("- in_progress keeps the lease", flush=True)

    await submit("later")
    message = await fetch("later", "1")
    begun = time.monotonic()
    await message.nak(delay=1.5)
    message = await fetch("later", "2")
    waited = time.monotonic() - begun
    if waited < 1.5:
        raise AssertionError(f"it came back after {waited} s")
    print("- nak(delay) is the pause taken", flush=True)
    await message.nak()
    message = await fetch("later", "3")
    await message.nak()
    record = await ended(nc, "later")
    equal((record["state"], record["reason"], record["attempt"]), ("failed", "attempts used", 3), "naks")
    print("- nak is a failure with a retry", flush=True)

    await submit("never")
    message = await fetch("never", "1")
    await message.term()
    record = await ended(nc, "never")
    equal((record["state"], record["reason"], record["attempt"]), ("failed", "terminated", 1), "term")
    print("- term is one without", flush=True)
    await nc.close()


asyncio.run(main())
