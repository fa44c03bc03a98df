"""Clients of websocket_service.py: echoes, pings, and close codes in both directions.

Arguments: URL, clients. All clients are connected before the first one says anything, and until the last one has.
"""

import asyncio
import collections
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LARGE = bytes(range(256)) * 1024


async def talk(socket, n):
    """Whether everything came back as it was sent: short and long, text and binary, and a ping."""
    sent = [f"client {n}", LARGE if n % 10 == 0 else b"\0\xff", ""]
    for message in sent:
        await socket.send(message)
    answers = [await socket.recv() for _ in sent]
    pong = await socket.ping(b"ping %d" % n)
    await asyncio.wait_for(pong, 10)
    return answers == sent


async def closed_by_service(socket, code):
    await socket.send(f"close {code}")
    try:
        await socket.recv()
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) == (code, "as asked")
    return False


async def main(url, clients):
    sockets = await asyncio.gather(*(connect(url, max_size=None, open_timeout=15) for _ in range(clients)))
    echoed = await asyncio.gather(*(talk(socket, n) for n, socket in enumerate(sockets)))
    # The first half is closed by the service, the second closes by itself.
    half = clients // 2
    codes = await asyncio.gather(*(closed_by_service(sockets[n], 4000 + n) for n in range(half)))
    await asyncio.gather(*(sockets[n].close(3000 + n % 2, "enough") for n in range(half, clients)))
    expected = collections.Counter(str(3000 + n % 2) for n in range(half, clients))
    async with connect(url) as socket:
        seen = {}
        # The service counts a close just after it has answered it.
        for _ in range(100):
            await socket.send("closed")
            seen = json.loads(await socket.recv())
            if seen == expected:
                break
            await asyncio.sleep(0.05)
    return {"echoed": sum(echoed), "closed_by_service": sum(codes), "closed_by_client": sum(seen.values()),
            "client_codes_arrived": seen == expected}


print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2])))))
