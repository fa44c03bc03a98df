"""The rows: what is done to the proxies, who takes part, and the gates that the figures are held against."""

import dataclasses
from fnmatch import fnmatch

from peers import OURS, PEERS


@dataclasses.dataclass(frozen=True)
class Work:
    """One row. `size` is of the answer's body, for POST of the request's (its answer has 65 bytes)."""

    name: str
    clients: int = 64
    method: str = "GET"
    size: int = 65
    close: bool = False  # a new connection for each request
    headers: bool = False  # ten fields, two of them unique
    paced: bool = False  # at half of what Trunkline carries
    silent: int = 0  # clients that are connected beside the active ones
    log: bool = False
    tls: bool = False
    streams: int = 0  # clients of HTTP/2, each with so many requests at once
    quick: bool = False

    def path(self):
        return "/post" if self.method == "POST" else f"/{self.size}"

    def __str__(self):
        words = [f"{self.method} {bytes_of(self.size)}, {self.clients} client{'s' * (self.clients != 1)}"]
        words += [f"HTTP/2 with {self.streams} stream{'s' * (self.streams != 1)} each"] * bool(self.streams)
        words += [f"{self.silent} silent ones beside them"] * bool(self.silent)
        words += ["a new connection for each request"] * self.close + ["10 headers, 2 of them unique"] * self.headers
        words += ["paced at half load"] * self.paced + ["every request in a log file"] * self.log
        return ", ".join(words + ["TLS"] * self.tls)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A peer as it takes part in one row; `label` tells two forms of the same peer apart."""

    label: str
    peer: object
    log: bool = False
    tls: bool = False
    paced: bool = False
    silent: int = 0
    h2: bool = False


WORK = [
    Work("get-65-c1", clients=1),
    Work("get-65-c8", clients=8, quick=True),
    Work("get-65-c64", quick=True),
    Work("get-65-c512", clients=512, quick=True),
    Work("get-65-c2000", clients=2000),
    Work("get-1k-c64", size=1024),
    Work("get-16k-c64", size=16 * 1024),
    Work("get-64k-c64", size=64 * 1024, quick=True),
    Work("get-1m-c64", size=1024 * 1024),
    Work("post-512-c64", method="POST", size=512),
    Work("post-4k-c64", method="POST", size=4 * 1024, quick=True),
    Work("post-64k-c64", method="POST", size=64 * 1024),
    Work("headers-c64", headers=True),
    Work("churn-c64", close=True),
    Work("half-load-c64", paced=True, quick=True),
    Work("silent-10000-c64", silent=10_000),
    Work("log-c64", log=True),
    Work("tls-c64", tls=True),
    Work("h2-65-c8-s8", clients=8, streams=8),
    Work("h2-65-c8-s32", clients=8, streams=32),
    Work("h2-65-c64-s1", streams=1),
    Work("h2-64k-c8-s8", clients=8, streams=8, size=64 * 1024),
]

SIZES = sorted({65} | {work.size for work in WORK if work.method == "GET"})


def chosen(only, quick):
    """Rows by names or patterns, in their order here; unknown words are returned beside them."""
    if not only:
        return [work for work in WORK if work.quick or not quick], []
    patterns = only.split(",")
    unknown = [pattern for pattern in patterns if not any(fnmatch(work.name, pattern) for work in WORK)]
    return [work for work in WORK if any(fnmatch(work.name, pattern) for pattern in patterns)], unknown


def contestants(work, names):
    """Who takes part: every peer, and beside Trunkline itself without what the row is about."""
    field = [Contestant(peer.name, peer, work.log, work.tls, work.paced, work.silent, bool(work.streams))
             for peer in PEERS if peer.name in names]
    if work.log and OURS in names:
        field.insert(1, Contestant(f"{OURS}, no log", PEERS[0]))
    if work.silent and OURS in names:
        field.insert(1, Contestant(f"{OURS}, {work.clients} only", PEERS[0]))
    return field


@dataclasses.dataclass(frozen=True)
class Gate:
    """Our figure over theirs, or our figure itself if there is no `theirs`. `best` is the lowest of all peers, `best-h2c` of
    those that multiplex."""

    row: str
    figure: str
    theirs: str
    bound: float
    goal: float


GATES = [
    Gate("get-65-c64", "cpu", "haproxy-h2", 0.95, 0.75),
    Gate("get-65-c64", "cpu", "nghttpx", 1.0, 0.80),
    Gate("get-65-c64", "cpu", "envoy", 0.42, 0.33),
    Gate("get-65-c64", "cpu", "haproxy-tcp", 1.3, 1.0),
    Gate("get-65-c8", "cpu", "haproxy-h2", 1.1, 1.0),
    Gate("get-65-c8", "cpu", "nghttpx", 1.1, 1.0),
    Gate("get-65-c512", "cpu", "haproxy-h2", 1.1, 1.0),
    Gate("get-65-c512", "cpu", "nghttpx", 1.1, 1.0),
    Gate("get-64k-c64", "cpu", "haproxy-h2", 0.9, 0.75),
    Gate("get-64k-c64", "cpu", "haproxy-tcp", 1.3, 1.1),
    Gate("post-4k-c64", "cpu", "haproxy-h2", 1.0, 0.8),
    Gate("get-65-c64", "p99", "best", 1.1, 1.0),
    Gate("get-65-c64", "p99", "best-h2c", 1.1, 1.0),
    Gate("half-load-c64", "p99", "best", 1.1, 1.0),
    Gate("half-load-c64", "p99", "best-h2c", 1.1, 1.0),
    Gate("silent-10000-c64", "silent_kib", None, 4.0, 1.5),
    Gate("silent-10000-c64", "cpu", f"{OURS}, 64 only", 1.10, 1.05),
    Gate("log-c64", "cpu", f"{OURS}, no log", 1.25, 1.15),
]


def bytes_of(size):
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size // factor} {unit}"
    return f"{size} B"
