#!/usr/bin/env python3
"""CPU per request of trunkline beside HAProxy and nghttpx, in one run.

HTTP/1.1 clients (wrk) through one proxy at a time to one h2c service (nginx), all on loopback. Each proxy has one
worker and one core; wrk and nginx share another core. The proxies take turns in every round, in another order each,
because a shared machine drifts: compare the ratios, not the times. CPU is what the kernel has counted for all threads of
the proxy (/proc/PID/task/*/schedstat), divided by the requests that wrk has counted.

    cargo build --release && python3 benches/compare.py --clients 64 --bytes 65

Needs nginx and wrk; haproxy and nghttpx are left out with a word if they are not installed. Python's standard library only.
"""

import argparse
import glob
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SBIN = os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin"])
BOUND_SECONDS = 10

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error; {user}
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; client_max_body_size 0;
    open_file_cache max=16; http2_max_concurrent_streams 128;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port} http2; location / {{ root {folder}/files; }} }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    http-reuse always
    option http-no-delay
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend clients
    bind 127.0.0.1:{listen}
    default_backend service
backend service
    server service 127.0.0.1:{port} proto h2
"""


def which(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + os.pathsep + SBIN)


class Process:
    """A program in a session of its own on one core; all of the session ends with it."""

    def __init__(self, name, command, core, port):
        def prepare():
            os.sched_setaffinity(0, {core})

        self.name, self.port = name, port
        self.popen = subprocess.Popen(
            command, preexec_fn=prepare, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait_until_it_accepts(self):
        deadline = time.monotonic() + BOUND_SECONDS
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                sys.exit(f"{self.name} ended early:\n{self.popen.stderr.read()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        sys.exit(f"{self.name} does not accept on port {self.port}")

    def cpu_ns(self):
        """CPU time of every thread of every process of the session."""
        total = 0
        for path in glob.glob("/proc/[0-9]*/stat"):
            try:
                with open(path) as stat:
                    fields = stat.read().rpartition(")")[2].split()
                if int(fields[3]) != self.popen.pid:
                    continue
                for task in glob.glob(path.replace("stat", "task/*/schedstat")):
                    with open(task) as schedstat:
                        total += int(schedstat.read().split()[0])
            except OSError:
                continue  # ended between the two looks
        return total

    def end(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, number)
                self.popen.wait(3)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass


class Ports:
    """Ports that nobody else is given: held by sockets that share them and never listen."""

    def __init__(self):
        self.holders = []

    def take(self):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        self.holders.append(holder)
        return holder.getsockname()[1]


def commands(options, folder, service_port, ports):
    """Name, command and port of each proxy that is here."""
    listen = ports.take()
    upstream = f"h2c://127.0.0.1:{service_port}"
    yield "trunkline", [options.binary, "proxy", "--listen", f"127.0.0.1:{listen}", "--to", upstream, "--workers", "1"], listen

    listen = ports.take()
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w") as file:
        file.write(HAPROXY.format(listen=listen, port=service_port))
    yield "haproxy", [which("haproxy"), "-db", "-q", "-f", path], listen

    listen = ports.take()
    yield "nghttpx", [
        which("nghttpx"), "--conf=/dev/null", f"--frontend=127.0.0.1,{listen};no-tls",
        f"--backend=127.0.0.1,{service_port};;proto=h2", "--workers=1", "--accesslog-file=/dev/null",
        "--errorlog-file=/dev/null"], listen


def wrk(url, clients, seconds, core):
    """Requests, seconds; ends the run if any request failed."""
    command = [which("wrk"), "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "5s", url]
    done = subprocess.run(command, preexec_fn=lambda: os.sched_setaffinity(0, {core}), capture_output=True, text=True)
    counted = re.search(r"(\d+) requests in ([\d.]+)(m?s|m)", done.stdout)
    if done.returncode or not counted or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"{url}: a failed load has no figures:\n{done.stdout}{done.stderr}")
    return int(counted[1]), float(counted[2]) * {"ms": 0.001, "s": 1, "m": 60}[counted[3]]


def measure(proxy, options, seconds, core):
    """CPU microseconds per request, requests per second."""
    before = proxy.cpu_ns()
    requests, took = wrk(f"http://127.0.0.1:{proxy.port}/file", options.clients, seconds, core)
    return (proxy.cpu_ns() - before) / requests / 1000, requests / took


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--binary", default="target/release/trunkline", help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=64, help="wrk's connections; default: %(default)s")
    parser.add_argument("--bytes", type=int, default=65, help="of an answer's body; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=4, help="of each load; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    for program in (which("nginx"), which("wrk"), options.binary):
        if not program or not os.access(program, os.X_OK):
            sys.exit(f"nginx, wrk and {options.binary} are needed (Debian: nginx-light, wrk; cargo build --release)")
    cores = sorted(os.sched_getaffinity(0))
    proxy_core, other_core = cores[0], cores[-1]
    if proxy_core == other_core:
        print("one core only: the proxies share it with wrk and nginx")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    running = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chmod(folder, 0o755)
            os.mkdir(os.path.join(folder, "files"))
            with open(os.path.join(folder, "files", "file"), "wb") as file:
                file.write(b"x" * options.bytes)
            ports = Ports()
            port = ports.take()
            path = os.path.join(folder, "nginx.conf")
            with open(path, "w") as file:
                user = "user root;" if os.geteuid() == 0 else ""
                file.write(NGINX.format(folder=folder, port=port, user=user))
            running.append(Process("nginx", [which("nginx"), "-p", folder, "-e", "stderr", "-c", path], other_core, port))
            running[0].wait_until_it_accepts()
            for name, command, listen in commands(options, folder, port, ports):
                if command[0] is None:
                    print(f"skipped: {name} is not installed")
                    continue
                running.append(Process(name, command, proxy_core, listen))
                running[-1].wait_until_it_accepts()
            report(rounds(running[1:], options, other_core), options)
        finally:
            for process in reversed(running):
                process.end()


def rounds(proxies, options, core):
    """By proxy, a list of (CPU, rate), one for each round."""
    figures = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        measure(proxy, options, 1, core)  # warm
    for number in range(options.rounds):
        turn = number % len(proxies)
        for proxy in proxies[turn:] + proxies[:turn]:
            figures[proxy.name].append(measure(proxy, options, options.seconds, core))
    return figures


def report(figures, options):
    ours = [cpu for cpu, _ in figures["trunkline"]]
    print(f"GET, {options.bytes} bytes, {options.clients} clients, {options.rounds} rounds of {options.seconds} s; medians")
    print(f"{'':<10}  {'CPU/request':>12}  {'min-max':>13}  {'requests/s':>10}  {'ours/theirs':>11}")
    for name, rows in figures.items():
        cpu = [row[0] for row in rows]
        # Round by round: what both have met at nearly the same time.
        ratio = statistics.median(our / their for our, their in zip(ours, cpu))
        spread = f"{min(cpu):.1f}-{max(cpu):.1f}"
        rate = statistics.median(row[1] for row in rows)
        print(f"{name:<10}  {statistics.median(cpu):>9.2f} us  {spread:>13}  {rate:>10.0f}  {ratio:>11.2f}")


if __name__ == "__main__":
    main()
