"""A micro service of nats-py that works on tasks of the queue `words` and knows nothing of tasks but its metadata. Ends with
its standard input."""

import asyncio
import os
import sys

import nats
import nats.micro
from nats.micro.service import EndpointConfig


async def upper(request):
    word = request.data.decode()
    if word == "bad":
        await request.respond_error("422", "no word")
    else:
        await request.respond(word.upper().encode(), headers={"X-By": request.headers["Task-Id"]})


async def main():
    client = await nats.connect(os.environ["NATS_URL"])
    metadata = {"task.queue": "words", "task.slots": "2", "task.caps": "lang=python"}
    service = await nats.micro.add_service(client, name="upper-py", version="1.0.0")
    await service.add_endpoint(EndpointConfig(name="upper", subject="upper.py", handler=upper, metadata=metadata))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await service.stop()


asyncio.run(main())
