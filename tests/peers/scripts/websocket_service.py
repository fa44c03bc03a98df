"""A WebSocket service on two ports: HTTP/1.1 by `websockets`, and RFC 8441 over h2c by `h2`.

Arguments: none. The first line of its output has both ports. It sends back what it gets; "close CODE" makes it close with
that code, and "closed" makes it tell with which codes its clients have closed so far.

To a browser it gives a page that opens 20 WebSockets, says when all of them have heard their echo, closes them, and says
when all of them are closed in good order. What the page says is printed, a line of JSON each time.
"""

import asyncio
import json
import urllib.parse

import h2.config
import h2.connection
import h2.events
from h2.settings import SettingCodes, Settings
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

SETTINGS = {SettingCodes.ENABLE_CONNECT_PROTOCOL: 1, SettingCodes.MAX_CONCURRENT_STREAMS: 250}

PAGE = """<!doctype html><title>twenty websockets</title><script>
const sockets = [];
let echoed = 0, closed = 0;
const protocol = performance.getEntriesByType('navigation')[0].nextHopProtocol;
const say = () => fetch('/said?' + new URLSearchParams({echoed, closed, protocol}));
for (let n = 0; n < 20; n++) {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket/' + n);
  socket.onopen = () => socket.send('hello ' + n);
  socket.onmessage = async (message) => {
    echoed += message.data === 'hello ' + n;
    if (echoed < 20) return;
    await say();
    sockets.forEach((each) => each.close(4000));
  };
  socket.onclose = (end) => {
    closed += end.wasClean && end.code === 4000;
    if (closed === 20) say();
  };
  sockets.push(socket);
}
</script>"""

# How many clients have closed with each code.
closed = {}


def count(code):
    closed[code] = closed.get(code, 0) + 1


def page(path):
    """The page, whatever the path; tells what it says of itself."""
    if path.startswith("/said?"):
        print(json.dumps(dict(urllib.parse.parse_qsl(path.partition("?")[2]))), flush=True)
    return PAGE


def page_over_http1(socket, request):
    if "Upgrade" in request.headers:
        return None
    answer = socket.respond(200, page(request.path))
    del answer.headers["Content-Type"]
    answer.headers["Content-Type"] = "text/html"
    return answer


async def over_http1(socket):
    try:
        while True:
            message = await socket.recv()
            if isinstance(message, str) and message.startswith("close "):
                await socket.close(int(message.split()[1]), "as asked")
                return
            await socket.send(json.dumps(closed) if message == "closed" else message)
    except ConnectionClosed as end:
        count(end.rcvd.code if end.rcvd else 1006)


class OverHttp2(asyncio.Protocol):
    """One connection of HTTP/2; each extended CONNECT on it is a WebSocket."""

    def connection_made(self, transport):
        self.transport = transport
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.http2.local_settings = Settings(client=False, initial_values=SETTINGS)
        self.http2.initiate_connection()
        self.sockets = {}
        # What waits for the peer's window, and whether the stream ends behind it.
        self.waiting = {}
        self.flush()

    def data_received(self, data):
        for event in self.http2.receive_data(data):
            self.on(event)
        for stream in list(self.waiting):
            self.send(stream)
        self.flush()

    def flush(self):
        self.transport.write(self.http2.data_to_send())

    def on(self, event):
        if isinstance(event, h2.events.RequestReceived):
            head = {bytes(name).decode(): bytes(value).decode() for name, value in event.headers}
            if head[":method"] == "CONNECT" and head.get(":protocol") == "websocket":
                self.http2.send_headers(event.stream_id, [(":status", "200")])
                self.sockets[event.stream_id] = Protocol(SERVER, state=State.OPEN, max_size=None)
            else:
                self.http2.send_headers(event.stream_id, [(":status", "200"), ("content-type", "text/html")])
                self.http2.send_data(event.stream_id, page(head[":path"]).encode(), end_stream=True)
        elif isinstance(event, h2.events.DataReceived):
            self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.sockets:
                self.take(event.stream_id, event.data)
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in self.sockets:
                self.take(event.stream_id, None)
        elif isinstance(event, h2.events.StreamReset):
            self.waiting.pop(event.stream_id, None)
            if self.sockets.pop(event.stream_id, None) is not None:
                count(1006)

    def take(self, stream, data):
        socket = self.sockets[stream]
        socket.receive_eof() if data is None else socket.receive_data(data)
        for frame in socket.events_received():
            if isinstance(frame, Frame):
                self.answer(socket, frame)
        ends = False
        for piece in socket.data_to_send():
            # `websockets` says "end of stream" by an empty piece.
            if piece:
                self.waiting.setdefault(stream, [bytearray(), False])[0].extend(piece)
            else:
                ends = True
        if ends:
            self.waiting.setdefault(stream, [bytearray(), False])[1] = True
            code = socket.close_rcvd.code if socket.close_rcvd else 1006
            if socket.close_rcvd_then_sent or code == 1006:
                count(code)
            del self.sockets[stream]
        self.send(stream)

    def answer(self, socket, frame):
        if frame.opcode is Opcode.TEXT:
            text = frame.data.decode()
            if text.startswith("close "):
                socket.send_close(int(text.split()[1]), "as asked")
            else:
                socket.send_text(json.dumps(closed).encode() if text == "closed" else frame.data)
        elif frame.opcode is Opcode.BINARY:
            socket.send_binary(frame.data)

    def send(self, stream):
        if stream not in self.waiting:
            return
        data, ends = self.waiting[stream]
        while data:
            room = min(self.http2.local_flow_control_window(stream), self.http2.max_outbound_frame_size)
            if room <= 0:
                return
            self.http2.send_data(stream, bytes(data[:room]))
            del data[:room]
        del self.waiting[stream]
        if ends:
            self.http2.end_stream(stream)


async def main():
    options = {"max_size": None, "ping_interval": None, "process_request": page_over_http1}
    http1 = await serve(over_http1, "127.0.0.1", 0, **options)
    http2 = await asyncio.get_running_loop().create_server(OverHttp2, "127.0.0.1", 0)
    ports = {"http1": http1.sockets[0].getsockname()[1], "http2": http2.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    await http2.serve_forever()


asyncio.run(main())
