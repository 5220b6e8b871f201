"""A dispatcher: submits a task, follows it and prints its result. Any NATS client will do; this is nats-py.

    pip install nats-py && python dispatcher.py job-7 'say hello' lang=python
"""
import asyncio, json, os, sys
import nats
from nats.errors import Error

ID, TEXT, REQUIRES = (sys.argv[1:] + [""])[:3]

async def call(nc, subject, body, headers):
    """Asks until there is an answer: the broker may be away for a while, and asking again does no harm."""
    while True:
        try:
            answer = await nc.request(subject, body, timeout=10, headers=headers)
            return answer.data, (answer.headers or {}).get("Nats-Service-Error-Code")
        except (Error, asyncio.TimeoutError):
            await asyncio.sleep(0.5)

async def progress(message):
    print("...", message.data.decode(), flush=True)

async def event(message):
    now = json.loads(message.data)
    print("-", now["phase"], now.get("agent", ""), flush=True)

async def main():
    nc = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), name="dispatcher",
                            max_reconnect_attempts=-1, reconnect_time_wait=0.5)
    await nc.subscribe(f"$TASK.P.{ID}", cb=progress)
    await nc.subscribe(f"$TASK.E.TASK.{ID}", cb=event)
    # The id makes it one task, however often it is submitted.
    headers = {"Task-Id": ID} | ({"Task-Requires": REQUIRES} if REQUIRES else {})
    answer, error = await call(nc, "$TASK.API.SUBMIT", TEXT.encode(), headers)
    if error:
        sys.exit(f"refused: {json.loads(answer)['error']['description']}")
    while True:
        answer, error = await call(nc, f"$TASK.API.AWAIT.{ID}", b"", {"Task-Wait": "5s"})
        if error not in ("408", "503"):  # not finished yet; not available now
            break
    await nc.close()
    if error:  # it ended without a result: this is its record
        record = json.loads(answer)
        sys.exit(f"{record.get('state', error)}: {record.get('reason') or record['error']['description']}")
    print(answer.decode())

asyncio.run(main())
