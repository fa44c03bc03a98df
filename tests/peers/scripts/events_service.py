"""A page with 20 event streams, and the streams, over HTTP/1.1 on one port and h2c on another.

The page says every quarter of a second how many of its streams have opened, heard events and failed. It says so to a third
port, because a browser has no connection left for the page's own origin. What it says is printed, a line of JSON each
time; the first line has the ports.
"""

import asyncio
import json
import urllib.parse

import h2.config
import h2.connection
import h2.events

PAGE = """<!doctype html><title>twenty event streams</title><script>
let opened = 0, failed = 0, heard = new Set();
for (let n = 0; n < 20; n++) {
  const source = new EventSource('/events/' + n);
  source.onopen = () => opened++;
  source.onerror = () => failed++;
  source.onmessage = () => heard.add(n);
}
const protocol = performance.getEntriesByType('navigation')[0].nextHopProtocol;
setInterval(() => {
  const said = new URLSearchParams({opened, heard: heard.size, failed, protocol});
  fetch('http://127.0.0.1:REPORT/said?' + said, {mode: 'no-cors'});
}, 250);
</script>"""
EVENT = b"data: now\n\n"
INTERVAL_SECONDS = 0.1


def answer(path):
    """Type and body; no body for an event stream."""
    if path.startswith("/events/"):
        return "text/event-stream", None
    return "text/html", page


async def over_http1(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        kind, body = answer(path)
        if path.startswith("/said?"):
            print(json.dumps(dict(urllib.parse.parse_qsl(path.partition("?")[2]))), flush=True)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncache-control: no-store\r\nconnection: close\r\n".encode())
        writer.write(b"\r\n" + EVENT if body is None else b"content-length: %d\r\n\r\n%b" % (len(body), body))
        while body is None:
            await writer.drain()
            await asyncio.sleep(INTERVAL_SECONDS)
            writer.write(EVENT)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class OverHttp2(asyncio.Protocol):
    """One connection of HTTP/2. Events are few and short: windows are not looked at."""

    def connection_made(self, transport):
        self.transport = transport
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.http2.initiate_connection()
        self.streams = set()
        self.ticking = asyncio.ensure_future(self.tick())
        self.flush()

    def connection_lost(self, _):
        self.ticking.cancel()

    def data_received(self, data):
        for event in self.http2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                head = {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
                kind, body = answer(head[":path"])
                self.http2.send_headers(event.stream_id, [(":status", "200"), ("content-type", kind)])
                self.http2.send_data(event.stream_id, body or EVENT, end_stream=body is not None)
                if body is None:
                    self.streams.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.streams.discard(event.stream_id)
        self.flush()

    async def tick(self):
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            for stream in self.streams:
                self.http2.send_data(stream, EVENT)
            self.flush()

    def flush(self):
        self.transport.write(self.http2.data_to_send())


async def main():
    global page
    loop = asyncio.get_running_loop()
    http1 = await asyncio.start_server(over_http1, "127.0.0.1", 0)
    report = await asyncio.start_server(over_http1, "127.0.0.1", 0)
    http2 = await loop.create_server(OverHttp2, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (http1, http2, report)]
    page = PAGE.replace("REPORT", str(ports[2])).encode()
    print(json.dumps({"http1": ports[0], "http2": ports[1]}), flush=True)
    await http2.serve_forever()


asyncio.run(main())
