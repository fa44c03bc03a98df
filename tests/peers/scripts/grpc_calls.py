"""One call of each kind, and each way for a call to end. Prints which went as they should.

Arguments: HOST:PORT, and the PEM file of a CA if that is to be reached over TLS.
"""

import json
import sys
import threading

import grpc
from grpc_stubs import messages, stubs

BYTES = bytes(range(256))
LARGE = "x" * 1_000_000
PATIENCE = 15


def note(text="", count=0):
    return messages.Note(text=text, count=count)


def unary(echo):
    return echo.Unary(note("hello"), timeout=PATIENCE).text == "hello"


def large(echo):
    return echo.Unary(note(LARGE), timeout=PATIENCE).text == LARGE


def binary_metadata(echo):
    answer, call = echo.Unary.with_call(note(), metadata=[("bytes-bin", BYTES)], timeout=PATIENCE)
    return all(("bytes-bin", BYTES) in fields for fields in (call.initial_metadata(), call.trailing_metadata()))


def down(echo):
    return [each.count for each in echo.Down(note(count=1000), timeout=PATIENCE)] == list(range(1000))


def up(echo):
    return echo.Up((note("a", n) for n in range(1000)), timeout=PATIENCE).count == 1000


def both(echo):
    """Message by message: the next one is sent after the answer to the last."""
    answered = threading.Semaphore(1)

    def ask():
        for n in range(100):
            answered.acquire()
            yield note(count=n)

    counts = []
    for each in echo.Both(ask(), timeout=PATIENCE):
        counts.append(each.count)
        answered.release()
    return counts == list(range(100))


def trailers_only_error(echo):
    return ended(lambda: echo.Unary(note("fail"), timeout=PATIENCE)) == ("FAILED_PRECONDITION", "as asked: ä %")


def error_after_messages(echo):
    counts = []

    def call():
        for each in echo.Down(note("fail", 3), timeout=PATIENCE):
            counts.append(each.count)

    return ended(call) == ("DATA_LOSS", "after the messages") and counts == [0, 1, 2]


def unimplemented(echo):
    call = echo.channel.unary_unary("/trunkline.peers.Echo/None")
    return ended(lambda: call(b"", timeout=PATIENCE))[0] == "UNIMPLEMENTED"


def deadline_is_passed_on(echo):
    return PATIENCE - 5 <= echo.Unary(note(), timeout=PATIENCE).count <= PATIENCE


def deadline_passes(echo):
    return ended(lambda: echo.Unary(note("wait"), timeout=0.5))[0] == "DEADLINE_EXCEEDED"


def cancelled_by_service(echo):
    return ended(lambda: list(echo.Down(note("cancel", 1), timeout=PATIENCE))) == ("CANCELLED", "by the service")


def cancelled_by_client(echo):
    call = echo.Down(note("wait", 1), timeout=PATIENCE)
    next(call)
    call.cancel()
    return ended(lambda: next(call))[0] == "CANCELLED"


def silence(echo):
    """Longer than the proxy's ping interval: its pings must not be too many for the service."""
    return echo.Unary(note("silence 2"), timeout=PATIENCE).text == "silence 2"


def ended(call):
    """The status and the message of a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


CALLS = [unary, large, binary_metadata, down, up, both, trailers_only_error, error_after_messages, unimplemented,
         deadline_is_passed_on, deadline_passes, cancelled_by_service, cancelled_by_client, silence]

if len(sys.argv) > 2:
    with open(sys.argv[2], "rb") as authority:
        credentials = grpc.ssl_channel_credentials(authority.read())
    channel = grpc.secure_channel(sys.argv[1], credentials)
else:
    channel = grpc.insecure_channel(sys.argv[1])
with channel:
    echo = stubs.EchoStub(channel)
    echo.channel = channel
    failed = []
    for call in CALLS:
        try:
            if not call(echo):
                failed.append(call.__name__)
        except grpc.RpcError as error:
            failed.append(f"{call.__name__}: {error.code().name}: {error.details()}")
print(json.dumps({"calls": len(CALLS), "failed": failed}))
