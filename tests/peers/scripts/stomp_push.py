"""Publishes over STOMP on one WebSocket and counts what every consumer is pushed on its own.

Arguments: URL, consumers, messages. A message is published only after every consumer has had the one before: what is
counted was pushed when it was published, and not gathered up.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect


def frame(command, body="", **fields):
    lines = [command] + [f"{name.replace('_', '-')}:{value}" for name, value in fields.items()]
    return "\n".join(lines) + "\n\n" + body + "\0"


async def opened(url):
    socket = await connect(url, subprotocols=["v12.stomp"], open_timeout=15)
    await socket.send(frame("CONNECT", accept_version="1.2", host="/", login="guest", passcode="guest"))
    answer = await socket.recv()
    assert answer.startswith("CONNECTED"), answer
    return socket


async def main(url, consumers, messages):
    sockets = await asyncio.gather(*(opened(url) for _ in range(consumers)))
    for socket in sockets:
        await socket.send(frame("SUBSCRIBE", id=1, destination="/topic/news", receipt="subscribed"))
        answer = await socket.recv()
        assert answer.startswith("RECEIPT"), answer
    publisher = await opened(url)
    pushed = 0
    for n in range(messages):
        await publisher.send(frame("SEND", body=f"message {n}", destination="/topic/news"))
        for text in await asyncio.wait_for(asyncio.gather(*(socket.recv() for socket in sockets)), 10):
            head, _, body = text.partition("\n\n")
            assert head.startswith("MESSAGE"), text
            # RabbitMQ ends its frames with a line end behind the zero byte.
            pushed += body.rstrip("\n") == f"message {n}\0"
    codes = set()
    for socket in [publisher, *sockets]:
        await socket.close()
        codes.add(socket.close_code)
    return {"pushed": pushed, "close_codes": sorted(codes)}


print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
