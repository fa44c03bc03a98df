"""Processes on cores, and what the kernel says about them.

Everything that is started here runs in a session of its own, writes its output into the run's folder, and is killed with
its whole session at the end of the `with Running(...)` that it belongs to. Knows nothing about proxies or loads. Linux.
"""

import contextlib
import glob
import os
import platform
import resource
import signal
import socket
import subprocess
import time

STARTS_WITHIN = 20  # seconds: Envoy's start on a busy core takes two
ENDINGS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class DidNotStart(Exception):
    """A program that ended early or does not accept; the text holds what it said."""


class Cores:
    """The proxy's core and what is left: the service and the generator share that if there are only two."""

    def __init__(self):
        usable = sorted(os.sched_getaffinity(0))
        rest = usable[1:] or usable
        self.proxy, self.service, self.load = usable[0], rest[0], rest[-1]
        os.sched_setaffinity(0, {self.load})
        self.alone = self.proxy != self.service


class Ports:
    """Ports of 127.0.0.1 that nobody else is given: held by sockets that share them and never listen."""

    def __init__(self):
        self.holders = []

    def take(self):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        self.holders.append(holder)
        return holder.getsockname()[1]

    def give_back(self):
        for holder in self.holders:
            holder.close()


class Process:
    """A program and all that it forks, on one core."""

    def __init__(self, name, command, core, folder, **streams):
        self.name = name
        self.said = os.path.join(folder, file_name(name) + ".out")

        def prepare():
            os.sched_setaffinity(0, {core})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)

        with open(self.said, "ab") as out:
            self.popen = subprocess.Popen(
                command, preexec_fn=prepare, start_new_session=True,
                **{"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, **streams})

    def wait_until_it_accepts(self, port):
        """Raises DidNotStart with the program's own words."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise DidNotStart(f"{self.name} ended with {self.popen.returncode} instead of serving:\n{self.words()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise DidNotStart(f"{self.name} does not accept on port {port} after {STARTS_WITHIN} s:\n{self.words()}")

    def words(self):
        """The end of what it has written."""
        with open(self.said, errors="replace") as file:
            return file.read()[-2000:].strip() or "(it said nothing)"

    def members(self):
        """Folders in /proc of the session's processes."""
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path) as stat:
                    if int(stat.read().rpartition(")")[2].split()[3]) == self.popen.pid:
                        yield os.path.dirname(path)
            except OSError:
                continue  # ended between the two looks

    def cpu_ns(self):
        """CPU time of all threads of all its processes: schedstat's nanoseconds, else ticks."""
        total = 0
        for member in self.members():
            for task in glob.glob(f"{member}/task/*"):
                try:
                    with open(f"{task}/schedstat") as schedstat:
                        total += int(schedstat.read().split()[0])
                except FileNotFoundError:
                    try:
                        with open(f"{task}/stat") as stat:
                            fields = stat.read().rpartition(")")[2].split()
                        total += (int(fields[11]) + int(fields[12])) * TICK_NS
                    except OSError:
                        continue
        return total

    def memory(self):
        """Bytes of (RSS, PSS), summed over its processes. RSS counts a page that two of them share twice."""
        sums = {"Rss:": 0, "Pss:": 0}
        for member in self.members():
            try:
                with open(f"{member}/smaps_rollup") as rollup:
                    for line in rollup:
                        fields = line.split()
                        if fields[0] in sums:
                            sums[fields[0]] += int(fields[1]) * 1024
            except OSError:
                continue
        return sums["Rss:"], sums["Pss:"]

    def end(self):
        """Kills at once: nothing here has anything to save, and a drain would wait for our idle clients."""
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()


class Running:
    """The processes of a `with` block; all are gone when it is left, for whatever reason."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with undisturbed():
            for process in reversed(self.processes):
                process.end()

    def start(self, name, command, core, **streams):
        with undisturbed():
            process = Process(name, command, core, self.folder, **streams)
            self.processes.append(process)
        return process


@contextlib.contextmanager
def undisturbed():
    """A second Ctrl-C, or one between a start and its note, must not leave a process behind: it comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def file_name(label):
    return label.replace(" ", "-").replace(",", "")


def end_like_ctrl_c():
    """SIGTERM and SIGHUP leave the `with` blocks too."""
    def leave(number, _):
        raise SystemExit(128 + number)

    for number in ENDINGS - {signal.SIGINT}:
        signal.signal(number, leave)


def established_to(port):
    """Connections that somebody on this machine has to a port of 127.0.0.1, seen from the side that dialled."""
    wanted = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as rows:
        return sum(1 for fields in map(str.split, rows) if fields[2] == wanted and fields[3] == "01")


def open_files():
    """The limit of open files, raised as far as we may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in (262_144, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return limit
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def description():
    """What a reader of the figures should know of the machine."""
    model = "unknown"
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    with open("/proc/meminfo") as lines:
        memory = int(next(lines).split()[1]) // 1024
    virtual = "hypervisor" in open("/proc/cpuinfo").read()
    return {"cpu": model, "cores": os.cpu_count(), "memory_mib": memory, "virtual": virtual,
            "kernel": platform.release(), "system": platform.freedesktop_os_release().get("PRETTY_NAME", "")}
