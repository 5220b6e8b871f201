import asyncio, json, os, sys, nats

async def main(name):
    nc = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), name=name)
    answer = await nc.request(f"$TASK.API.AGENT.REGISTER.{name}")
    card = json.loads(answer.data)
    tasks = await nc.jetstream().pull_subscribe_bind(card["consumer"], card["stream"])
    while True:
        try:
            [task] = await tasks.fetch(1, timeout=60)
            await nc.request(task.headers["Task-Complete"], task.data.upper())
        except nats.errors.TimeoutError:
            pass

asyncio.run(main(sys.argv[1]))
