"""An agent: registers, works on what it is given and says how it went. Any NATS client will do; this is nats-py.

    pip install nats-py && python agent.py ada
"""
import asyncio, json, os, signal, sys
import nats
from nats.errors import Error

NAME, SLOTS = (sys.argv + ["ada"])[1], 4
card, running, draining = {}, {}, asyncio.Event()

async def call(nc, subject, body=b""):
    """Asks until there is an answer: the broker may be away for a while, and asking again does no harm."""
    while True:
        try:
            answer = await nc.request(subject, body, timeout=5)
            return answer.data, (answer.headers or {}).get("Nats-Service-Error")
        except (Error, asyncio.TimeoutError):
            await asyncio.sleep(0.5)

async def ignore(_):
    pass

async def register(nc):
    request = {"labels": ["lang=python"], "slots": SLOTS, "resume": card.get("resume", "")}
    answer, error = await call(nc, f"$TASK.API.AGENT.REGISTER.{NAME}", json.dumps(request).encode())
    if error:
        os._exit(print(f"cannot register: {error}", file=sys.stderr) or 1)
    before = card.get("presence")
    card.update(json.loads(answer))
    if card["presence"] != before:  # to listen there is to be there: when it ends, our tasks go to others
        await nc.subscribe(card["presence"], cb=ignore)

async def control(message):
    told = json.loads(message.data)
    if told["op"] == "drain":
        draining.set()
    elif told["op"] == "cancel" and told["task"] in running:
        running[told["task"]].cancel()

async def shout(nc, text, progress):
    """The work itself."""
    for word in text.split():
        if word == "impossible":
            raise ValueError("that is impossible")
        await nc.publish(progress, word.upper().encode())
        await asyncio.sleep(0.1)
    return text.upper().encode()

async def keep(task):
    lease = float(task.headers.get("Task-Lease", card["lease_s"]))
    while True:  # silent work would lose its lease
        await asyncio.sleep(lease / 3)
        await task.in_progress()

async def work(nc, task):
    keeper = asyncio.create_task(keep(task))
    try:
        answer = "Task-Complete", await shout(nc, task.data.decode(), task.headers["Task-Progress"])
    except asyncio.CancelledError:
        answer = "Task-Fail", b'{"error":"stopped as told","retry":false}'
    except Exception as error:
        answer = "Task-Fail", json.dumps({"error": str(error), "retry": False}).encode()
    keeper.cancel()
    _, refused = await call(nc, task.headers[answer[0]], answer[1])
    await task.ack()
    running.pop(task.headers["Task-Id"])
    print(task.headers["Task-Id"], refused or answer[0], flush=True)

async def main():
    async def again():
        asyncio.create_task(register(nc))
    nc = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), name=NAME,
                            max_reconnect_attempts=-1, reconnect_time_wait=0.5, reconnected_cb=again, error_cb=ignore)
    await register(nc)
    await nc.subscribe(card["control"], cb=control)
    drain = lambda: asyncio.create_task(call(nc, f"$TASK.API.AGENT.DRAIN.{NAME}"))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain)
    tasks = await nc.jetstream().pull_subscribe_bind(card["consumer"], card["stream"])
    while not draining.is_set() or running:
        try:
            for task in await tasks.fetch(1, timeout=1):
                running[task.headers["Task-Id"]] = asyncio.create_task(work(nc, task))
        except (Error, asyncio.TimeoutError):
            pass
    await nc.close()

asyncio.run(main())
