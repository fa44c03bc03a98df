"""A gRPC service that forgives no ping too many, and says on its output which calls were cancelled.

The text of a request says what is wanted: an echo, "fail", "wait" (until the caller gives up), "silence N" (N seconds).
"""

import concurrent.futures
import json
import threading

import grpc
from grpc_stubs import messages, stubs

# gRPC's own bound on pings from a client that gets no data: two within five minutes are forgiven, the next one ends the
# connection with `too_many_pings`. Here it is one.
STRICT = [
    ("grpc.http2.max_ping_strikes", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 300_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_concurrent_streams", 100),
]


class Echo(stubs.EchoServicer):
    def Unary(self, request, context):
        if request.text == "fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: ä %")
        if request.text == "wait":
            wait(context)
        if request.text.startswith("silence "):
            threading.Event().wait(float(request.text.split()[1]))
        # Binary metadata goes back as it came, in the head and in the trailers.
        came = [(name, value) for name, value in context.invocation_metadata() if name == "bytes-bin"]
        context.send_initial_metadata(came)
        context.set_trailing_metadata(came)
        return messages.Note(text=request.text, count=int(context.time_remaining() or 0))

    def Down(self, request, context):
        for n in range(request.count):
            yield messages.Note(text=request.text, count=n)
        if request.text == "fail":
            context.abort(grpc.StatusCode.DATA_LOSS, "after the messages")
        if request.text == "cancel":
            context.abort(grpc.StatusCode.CANCELLED, "by the service")
        if request.text == "wait":
            wait(context)

    def Up(self, requests, context):
        notes = list(requests)
        return messages.Note(text=" ".join(note.text for note in notes)[:20], count=len(notes))

    def Both(self, requests, context):
        for note in requests:
            yield note


def wait(context):
    """Until the call is over, which only the caller or its deadline can bring about."""
    over = threading.Event()
    # False: it is over already.
    if context.add_callback(over.set):
        over.wait()
    say(cancelled=True)


def say(**what):
    print(json.dumps(what), flush=True)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=STRICT)
stubs.add_EchoServicer_to_server(Echo(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
say(port=port)
server.wait_for_termination()
