"""Publishes on one connection and counts what every subscriber receives. All of them speak WebSocket.

Arguments: URL, subscribers, messages.
"""

import asyncio
import json
import sys

import nats


async def main(url, subscribers, messages):
    received = [[] for _ in range(subscribers)]
    has_all = [asyncio.Event() for _ in range(subscribers)]

    async def subscribe(n):
        client = await nats.connect(url, allow_reconnect=False, connect_timeout=15)

        async def take(message):
            received[n].append(int(message.data))
            if len(received[n]) == messages:
                has_all[n].set()

        await client.subscribe("news", cb=take)
        # The server answers this flush after it has taken the subscription.
        await client.flush()
        return client

    clients = await asyncio.gather(*(subscribe(n) for n in range(subscribers)))
    publisher = await nats.connect(url, allow_reconnect=False)
    for n in range(messages):
        await publisher.publish("news", b"%d" % n)
    await asyncio.wait_for(asyncio.gather(*(each.wait() for each in has_all)), 15)
    # Now nothing more can be on its way to a subscriber than what comes before the answer to its flush.
    await asyncio.gather(*(client.flush() for client in clients))
    for client in [publisher, *clients]:
        await client.close()
    return {
        "received": sum(map(len, received)),
        "complete_in_order": sum(each == list(range(messages)) for each in received),
    }


print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
