#!/usr/bin/env python3
"""The generators: wrk (closed loop), h2load (paced, or HTTP/2), and clients that are connected and silent.

A load answers with a `Load`: what was carried, how long it took, and every error that the generator has seen. Knows URLs and
ports, not proxies.
"""

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wrk.lua")
ANSWER_WITHIN = 10  # seconds, then it is an error
PACERS = 16  # processes of the paced load


@dataclasses.dataclass
class Load:
    """Latencies in microseconds. `errors` by kind, without the kinds that did not happen."""

    requests: int
    seconds: float
    p50: float
    p99: float
    p999: float
    errors: dict


class LoadFailed(Exception):
    """The generator itself did not do its work."""


def wrk(running, core, wrk_program, url, work, seconds, halfway):
    """One thread, `work.clients` connections, each sending as soon as it has its answer. `halfway` is called in the middle."""
    arguments = [work.method, str(work.size)] + ["close"] * work.close + ["headers"] * work.headers
    command = [wrk_program, "-t1", f"-c{work.clients}", f"-d{seconds}s", "--timeout", f"{ANSWER_WITHIN}s", "-s", SCRIPT,
               url, "--", *arguments]
    said = json.loads(generate(running, core, "wrk", command, seconds, halfway).strip().splitlines()[-1])
    failed = {kind: said[kind] for kind in ("connect", "read", "write", "status", "timeout") if said[kind]}
    good = said["requests"] - said["status"]
    return Load(good, said["us"] / 1e6, said["p50"], said["p99"], said["p999"], failed)


def paced(running, core, h2load_program, url, work, seconds, rate, halfway):
    """`rate` requests/s by the clock: a client that was kept waiting catches up, but its latency counts from the sending.

    A process sends for all of its clients at once, so the clients are spread over several that start one after the other.
    """
    logs = [os.path.join(running.folder, f"h2load-{number}.log") for number in range(PACERS)]
    each = work.clients // PACERS
    generators = []
    for log in logs:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        command = [h2load_program, "--h1", "-t1", f"-c{each}", f"-D{seconds}", "--rps", str(rate / work.clients),
                   "--log-file", log, url]
        generators.append(running.start("h2load", command, core))
        time.sleep(work.clients / rate / PACERS)
    time.sleep(seconds / 2)
    halfway()
    for generator in generators:
        try:
            generator.popen.wait(timeout=seconds + 3 * ANSWER_WITHIN)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"h2load did not end:\n{generator.words()}") from None
        finally:
            generator.end()
            running.processes.remove(generator)
    done = logged(logs, seconds)
    if done.requests < 0.95 * rate * seconds:
        done.errors["not carried in time"] = int(rate * seconds) - done.requests
    return done


def streams(running, core, h2load_program, url, work, seconds, halfway):
    """HTTP/2 by prior knowledge: `work.clients` connections with `work.streams` requests at any time on each."""
    log = os.path.join(running.folder, "h2load.log")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(log)
    command = [h2load_program, "-t1", f"-c{work.clients}", f"-m{work.streams}", f"-D{seconds}", "--log-file", log, url]
    generate(running, core, "h2load", command, seconds, halfway)
    return logged([log], seconds)


def logged(logs, seconds):
    """What h2load has written of each request: when, its status, and how long it took."""
    times, failed = [], {}
    for log in logs:
        with open(log) as lines:
            for _, status, took in map(str.split, lines):
                if status.startswith("2"):
                    times.append(int(took))
                else:
                    failed[f"status {status}"] = failed.get(f"status {status}", 0) + 1
    times.sort()
    p50, p99, p999 = (times[int(len(times) * part)] if times else 0 for part in (0.5, 0.99, 0.999))
    return Load(len(times), seconds, p50, p99, p999, failed)


def generate(running, core, name, command, seconds, halfway):
    """Runs a generator, looks at the proxy in the middle, and returns what was printed."""
    process = running.start(name, command, core, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(seconds / 2)
    halfway()
    try:
        out, err = process.popen.communicate(timeout=seconds + 3 * ANSWER_WITHIN)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"{name} did not end: {' '.join(command)}") from None
    finally:
        process.end()
        running.processes.remove(process)
    if process.popen.returncode:
        raise LoadFailed(f"{' '.join(command)}\n{(out + err).decode()}")
    return out.decode()


class Silent:
    """Connected clients that have had one answer each and now say nothing. A process of their own holds them."""

    def __init__(self, running, core, name, port, count):
        self.process = running.start(f"clients of {name}", [sys.executable, __file__, str(port), str(count)], core,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.count = count

    def ask(self):
        """How many are connected: the first answer comes when all have had theirs."""
        try:
            self.process.popen.stdin.write(b"\n")
            self.process.popen.stdin.flush()
            return int(self.process.popen.stdout.readline())
        except (OSError, ValueError):
            raise LoadFailed(f"{self.process.name}:\n{self.process.words()}") from None


def hold(port, count):
    """The helper process: connects, asks once on each connection, then answers each line on stdin with how many live."""
    import resource
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for start in range(0, count, 50):
        batch = [socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN) for _ in range(min(50, count - start))]
        for client in batch:
            client.sendall(b"GET /65 HTTP/1.1\r\nHost: versus\r\n\r\n")
        for client in batch:
            answer = b""
            while not answer.endswith(b"x" * 65):
                more = client.recv(4096)
                if not more:
                    sys.exit(f"closed after {len(held)} connections: {answer[:200]!r}")
                answer += more
            client.setblocking(False)
        held += batch
    for _ in sys.stdin:
        print(sum(map(alive, held)), flush=True)


def alive(client):
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    hold(int(sys.argv[1]), int(sys.argv[2]))
