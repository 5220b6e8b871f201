"""CodeForge on nats-py: dispatch to backends, results, retries by the client, sessions in KV, artefacts in objects.

Runs unchanged on nats-py 2.9 and on the newest, and against any NATS server; see scenario.rs for `@kill` and `@start`.
"""

import asyncio
import json
import os
import sys
import time
import urllib.request

import nats
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError

URL = os.environ["NATS_URL"]


def step(text):
    print(f"- {text}", flush=True)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def equal(found, wanted, what):
    check(found == wanted, f"{what}: found {found!r}, wanted {wanted!r}")


async def server(wish):
    """Asks the harness to kill, stop or start the server."""
    print(f"@{wish}", flush=True)
    answer = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    equal(answer.strip(), "done", f"the harness on @{wish}")


async def ignore(_error):
    """A refused connection while the server is down is what a reconnecting client expects."""


async def connect(**options):
    return await nats.connect(
        URL,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.05,
        connect_timeout=5,
        error_cb=ignore,
        **options,
    )


async def settle(nc):
    """Returns when the server has all that was sent. nats-py's PING may overtake a SUB; a second one does not."""
    await nc.flush()
    await nc.flush()


async def dispatch(nc, js):
    step("streams and one durable consumer for each backend")
    await js.add_stream(
        StreamConfig(name="TASKS", subjects=["tasks.agent.*"], storage=StorageType.FILE, max_age=3600)
    )
    for backend in ("aider", "openhands"):
        await js.add_consumer(
            "TASKS",
            ConsumerConfig(
                durable_name=backend,
                filter_subject=f"tasks.agent.{backend}",
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=30,
                max_deliver=5,
            ),
        )

    step("dispatch by backend, answer on results.<task id>, headers unchanged")
    results = {}
    all_results = asyncio.Event()

    async def on_result(msg):
        results[msg.subject.removeprefix("results.")] = (json.loads(msg.data), msg.headers)
        if len(results) == 20:
            all_results.set()

    await nc.subscribe("results.*", cb=on_result)
    await settle(nc)
    for number in range(20):
        backend = ("aider", "openhands")[number % 2]
        ack = await js.publish(
            f"tasks.agent.{backend}",
            json.dumps({"id": f"t{number}", "prompt": "fix it"}).encode(),
            headers={"X-Request-ID": f"req-{number}", "Retry-Count": "0"},
        )
        equal((ack.stream, ack.seq), ("TASKS", number + 1), "PubAck")

    async def worker(backend):
        subscription = await js.pull_subscribe_bind(backend, stream="TASKS")
        done = 0
        while done < 10:
            for msg in await subscription.fetch(5, timeout=5):
                equal(msg.subject, f"tasks.agent.{backend}", "a worker's task")
                task = json.loads(msg.data)
                await msg.in_progress()
                await nc.publish(
                    f"results.{task['id']}",
                    json.dumps({"status": "ok"}).encode(),
                    headers={"X-Request-ID": msg.headers["X-Request-ID"]},
                )
                await msg.ack()
                done += 1

    await asyncio.gather(worker("aider"), worker("openhands"))
    await asyncio.wait_for(all_results.wait(), 10)
    for number in range(20):
        body, headers = results[f"t{number}"]
        equal(body, {"status": "ok"}, "result")
        equal(headers["X-Request-ID"], f"req-{number}", "X-Request-ID")

    step("an empty fetch ends by its timeout")
    subscription = await js.pull_subscribe_bind("aider", stream="TASKS")
    try:
        await subscription.fetch(1, timeout=0.3)
        check(False, "a message where none is left")
    except NatsTimeout:
        pass


async def retries(nc, js):
    step("nak with a delay comes back after it, counted; the third failure goes to <subject>.dlq")
    dead = asyncio.get_running_loop().create_future()

    async def on_dead(msg):
        dead.set_result(msg)

    await nc.subscribe("tasks.agent.aider.dlq", cb=on_dead)
    await settle(nc)
    await js.publish("tasks.agent.aider", b"poison", headers={"X-Request-ID": "req-p", "Retry-Count": "0"})
    subscription = await js.pull_subscribe_bind("aider", stream="TASKS")
    for attempt in (1, 2, 3):
        began = time.monotonic()
        [msg] = await subscription.fetch(1, timeout=5)
        waited = time.monotonic() - began
        equal(msg.metadata.num_delivered, attempt, "delivery count")
        equal(msg.headers["Retry-Count"], "0", "the stored header never changes")
        check(attempt == 1 or waited > 0.2, f"redelivered {waited:.3f} s after a nak with 0.3 s")
        if attempt < 3:
            await msg.nak(delay=0.3)
        else:
            await nc.publish(
                f"{msg.subject}.dlq", msg.data, headers={"X-Request-ID": "req-p", "Retry-Count": str(attempt)}
            )
            await msg.term()
    msg = await asyncio.wait_for(dead, 5)
    equal((msg.data, msg.headers["Retry-Count"]), (b"poison", "3"), "dead letter")
    info = await js.consumer_info("TASKS", "aider")
    equal((info.num_ack_pending, info.num_pending), (0, 0), "nothing left after term")


async def core(nc):
    step("fan-out to every subscriber, once to a queue group")
    seen = {"a": 0, "b": 0, "c": 0, "group": 0}
    arrived = asyncio.Event()

    def counting(name):
        async def callback(_msg):
            seen[name] += 1
            if sum(seen.values()) == 40:
                arrived.set()

        return callback

    other = await connect()
    for name in "abc":
        await other.subscribe("events.>", cb=counting(name))
    for _ in range(3):
        await other.subscribe("events.*", queue="g", cb=counting("group"))
    await settle(other)
    for number in range(10):
        await nc.publish(f"events.{number}", b"x")
    await settle(nc)
    await asyncio.wait_for(arrived.wait(), 5)
    await settle(other)
    equal(seen, {"a": 10, "b": 10, "c": 10, "group": 10}, "deliveries")

    step("request and reply, and no responders")

    async def echo(msg):
        await msg.respond(msg.data.upper())

    await other.subscribe("backend.status", cb=echo)
    await settle(other)
    reply = await nc.request("backend.status", b"up?", timeout=2)
    equal(reply.data, b"UP?", "reply")
    try:
        await nc.request("backend.nobody", b"", timeout=2)
        check(False, "a reply from nobody")
    except NoRespondersError:
        pass
    await other.drain()


async def push(nc, js):
    step("push consumers: ephemeral, queue group, manual acks")
    inbox = []
    all_pushed = asyncio.Event()

    async def on_push(msg):
        await msg.ack()
        inbox.append(msg.data)
        if len(inbox) == 12:
            all_pushed.set()

    await js.add_stream(StreamConfig(name="PUSHED", subjects=["pushed.*"]))
    await js.subscribe("pushed.a", cb=on_push, manual_ack=True)
    for _ in range(2):
        await js.subscribe("pushed.b", queue="workers", durable="workers", cb=on_push, manual_ack=True)
    for number in range(6):
        await js.publish("pushed.a", f"a{number}".encode())
        await js.publish("pushed.b", f"b{number}".encode())
    await asyncio.wait_for(all_pushed.wait(), 5)
    equal(sorted(inbox), sorted(f"{s}{n}".encode() for s in "ab" for n in range(6)), "pushed messages")

    step("an ordered consumer replays the log in order")
    ordered = await js.subscribe("pushed.*", ordered_consumer=True)
    replayed = [(await ordered.next_msg(timeout=5)).metadata.sequence.stream for _ in range(12)]
    equal(replayed, list(range(1, 13)), "replay")
    await ordered.unsubscribe()


async def key_value(js):
    step("KV: put, create, update, history, watch, delete, purge, keys")
    kv = await js.create_key_value(bucket="sessions", history=5, ttl=None)
    equal(await kv.put("s.1", b"one"), 1, "first revision")
    equal(await kv.update("s.1", b"two", last=1), 2, "updated revision")
    try:
        await kv.update("s.1", b"late", last=1)
        check(False, "a lost race was stored")
    except KeyWrongLastSequenceError:
        pass
    await kv.create("s.2", b"new")
    try:
        await kv.create("s.2", b"again")
        check(False, "created twice")
    except KeyWrongLastSequenceError:
        pass
    equal((await kv.get("s.1")).value, b"two", "value")
    equal([e.value for e in await kv.history("s.1")], [b"one", b"two"], "history")
    equal(sorted(await kv.keys()), ["s.1", "s.2"], "keys")
    watcher = await kv.watch("s.*")
    initial = []
    while (entry := await watcher.updates(timeout=5)) is not None:
        initial.append(entry.key)
    equal(sorted(initial), ["s.1", "s.2"], "watched first")
    await kv.delete("s.2")
    entry = await watcher.updates(timeout=5)
    equal((entry.key, entry.operation), ("s.2", "DEL"), "watched delete")
    await watcher.stop()
    try:
        await kv.get("s.2")
        check(False, "a deleted key was found")
    except KeyNotFoundError:
        pass
    await kv.purge("s.1")
    await kv.put("s.1", b"three")
    status = await kv.status()
    equal((status.bucket, status.history), ("sessions", 5), "bucket")


async def objects(js):
    step("object store: put, get, info, list, delete")
    store = await js.create_object_store(bucket="artefacts")
    body = os.urandom(700_000)
    info = await store.put("patch.diff", body)
    equal(info.size, len(body), "size")
    equal((await store.get("patch.diff")).data, body, "bytes")
    equal([entry.name for entry in await store.list()], ["patch.diff"], "list")
    await store.delete("patch.diff")
    try:
        await store.get("patch.diff")
        check(False, "a deleted object was found")
    except NotFoundError:
        pass


async def rules(js):
    step("dedup, expected sequences, direct and ordinary gets, purge, delete")
    await js.add_stream(
        StreamConfig(name="RULES", subjects=["rules.>"], retention=RetentionPolicy.LIMITS, allow_direct=True)
    )
    first = await js.publish("rules.a", b"1", headers={"Nats-Msg-Id": "m1"})
    again = await js.publish("rules.a", b"1", headers={"Nats-Msg-Id": "m1"})
    equal((first.seq, again.seq, bool(again.duplicate)), (1, 1, True), "a duplicate is answered, not stored")
    try:
        await js.publish("rules.a", b"2", headers={"Nats-Expected-Last-Sequence": "7"})
        check(False, "a wrong expectation was stored")
    except BadRequestError as e:
        equal(e.err_code, 10071, "error code")
    await js.publish("rules.b", b"3", headers={"Nats-Expected-Last-Sequence": "1"})
    equal((await js.get_msg("RULES", seq=1)).data, b"1", "by sequence")
    equal((await js.get_last_msg("RULES", "rules.b")).data, b"3", "last of a subject")
    await js.delete_msg("RULES", 1)
    try:
        await js.get_msg("RULES", seq=1)
        check(False, "a deleted message was found")
    except NotFoundError as e:
        equal(e.err_code, 10037, "error code")
    await js.purge_stream("RULES")
    equal((await js.stream_info("RULES")).state.messages, 0, "messages after purge")
    check(await js.delete_stream("RULES"), "stream deleted")
    try:
        await js.stream_info("RULES")
        check(False, "a deleted stream was found")
    except NotFoundError as e:
        equal(e.err_code, 10059, "error code")


async def survives(nc, js):
    step("kill -9: nothing acked is lost, nothing AckSync'ed comes back, the client reconnects")
    back = asyncio.Event()
    kept = []
    for number in range(100):
        kept.append((await js.publish("tasks.agent.openhands", f"kept {number}".encode())).seq)
    subscription = await js.pull_subscribe_bind("openhands", stream="TASKS")
    for msg in await subscription.fetch(40, timeout=5):
        await msg.ack_sync(timeout=5)
    kv = await js.key_value("sessions")
    revision = await kv.put("s.kept", b"kept")
    watcher = asyncio.create_task(wait_reconnected(nc, back))
    await server("kill")
    await server("start")
    await asyncio.wait_for(back.wait(), 20)
    await watcher
    info = await js.stream_info("TASKS")
    equal(info.state.last_seq, kept[-1], "last sequence")
    entry = await kv.get("s.kept")
    equal((entry.value, entry.revision), (b"kept", revision), "KV entry")
    found = []
    subscription = await js.pull_subscribe_bind("openhands", stream="TASKS")
    while len(found) < 60:
        for msg in await subscription.fetch(60 - len(found), timeout=5):
            found.append(msg.data.decode())
            await msg.ack()
    equal(found, [f"kept {number}" for number in range(40, 100)], "what was left, in order")
    equal((await js.publish("tasks.agent.openhands", b"next")).seq, kept[-1] + 1, "no sequence is reused")


async def wait_reconnected(nc, back):
    reconnects = nc.stats["reconnects"]
    while nc.stats["reconnects"] == reconnects or not nc.is_connected:
        await asyncio.sleep(0.02)
    back.set()


def health():
    step("healthz by GET and by HEAD")
    for method in ("GET", "HEAD"):
        request = urllib.request.Request(os.environ["MONITORING_URL"] + "/healthz", method=method)
        with urllib.request.urlopen(request, timeout=5) as response:
            equal(response.status, 200, f"{method} /healthz")


async def main():
    print(f"nats-py {getattr(nats, '__version__', '')} on {sys.version.split()[0]}")
    nc = await connect(name="codeforge")
    js = nc.jetstream()
    health()
    await dispatch(nc, js)
    await retries(nc, js)
    await core(nc)
    await push(nc, js)
    await key_value(js)
    await objects(js)
    await rules(js)
    await survives(nc, js)
    await nc.close()
    step("all as it should be")


asyncio.run(main())
