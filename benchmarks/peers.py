"""The programs that are compared: how each is started with its configuration, and stopped."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from benchmarks.credentials import BEARER, Credentials, forge
from benchmarks.load import guarded
from benchmarks.measure import group

__all__ = [
    "COMPILED",
    "FOLDER",
    "ORIGIN",
    "PEERS",
    "SIDECAR",
    "Peer",
    "PeerError",
    "Running",
    "Site",
    "cores",
    "free_port",
    "pinned",
]

ORIGIN: Final = "https://app.example.com"
FOLDER: Final = Path(__file__).with_name("peers")
SIDECAR: Final = ("@PYTHON@", "-m", "sidecar", "serve", "--config", "@CONFIG@")
COMPILED: Final = Path(__file__).parent.parent / "build" / "compiled"
_READY_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 5.0
_ports: Final = iter(range(18_000, 32_000))  # below the range of outgoing connections


class PeerError(Exception):
    """A peer does not start, or does not do the job that its figures stand for."""


@dataclass(frozen=True)
class Peer:
    """A program to compare.

    `variants` are what it can check on a handshake: "plain" (no token) and algorithms. In `argv`
    and in its configuration file, `@NAME@` stands for a value of the site or of `values`; `text` is
    that file's text where it is not one of `peers/`. `shared_port` says that variants differ by
    path, not by port; `port` is where clients come in, where something else than the peer listens
    there. `extra` peers run only by name. `package` is put before everything else that Python
    imports from.

    Clients send `carrier` before the token and the lines `headers`, and `preface` before the
    request. With `refused` they bring forged tokens and get this status: 101 stands for a refusal
    by a close frame. With `silent` the peer's output goes nowhere; `blind` peers check nothing.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    variants: tuple[str, ...] = ("plain",)
    config: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    shared_port: bool = False
    extra: bool = False
    package: Path | None = None
    text: str | None = None
    port: int | None = None
    carrier: str = BEARER
    headers: tuple[str, ...] = ()
    preface: str = ""
    refused: int | None = None
    silent: bool = False
    blind: bool = False

    @property
    def strictest(self) -> str:
        """The variant that carries messages: with a token where there is one."""
        return "HS256" if "HS256" in self.variants else self.variants[0]

    @property
    def missing(self) -> str:
        """Why there is no `program`, and what would help."""
        if self.package is not None and not self.package.exists():
            return "not compiled (`make bench` does so, where there is a C compiler)"
        return "not installed"

    def program(self) -> str | None:
        """The path of its program; None where it is not installed."""
        name = self.argv[0]
        if self.package is not None and not self.package.exists():
            return None
        if name.startswith("@"):
            return name
        if found := shutil.which(name):
            return found
        spec = importlib.util.find_spec(name)  # Envoy comes as a Python package too
        for place in (spec and spec.submodule_search_locations) or ():
            inside = Path(place) / "_bin" / name
            if inside.exists():
                return str(inside)
        return None


_WITH_TOKENS: Final = ("plain", "HS256", "RS256", "ES256")
_NGINX: Final = ("nginx", "-p", "@FOLDER@", "-c", "@CONFIG@")
_HAPROXY: Final = ("haproxy", "-db", "-f", "@CONFIG@")

PEERS: Final = (
    Peer(
        "relay",
        "bare C relay",
        ("@BUILD@/relay", "--port", "@PORT_PLAIN@", "--upstream", "@PORT_UPSTREAM@"),
        blind=True,
    ),
    Peer("nginx", "nginx", _NGINX, config="nginx.conf", values={"BUFFER": "4k"}),
    Peer("haproxy", "HAProxy", _HAPROXY, _WITH_TOKENS, "haproxy.cfg", {"BUFFER": "16384"}),
    Peer(
        "envoy",
        "Envoy",
        (
            *("envoy", "-c", "@CONFIG@", "--concurrency", "1"),
            *("--disable-hot-restart", "--log-level", "error"),
        ),
        _WITH_TOKENS,
        "envoy.yaml",
    ),
    Peer(
        "aiohttp",
        "aiohttp, message by message",
        (
            *("@PYTHON@", "@PEERS@/aiohttp_proxy.py"),
            *("--port", "@PORT_PLAIN@", "--upstream", "@PORT_UPSTREAM@"),
        ),
    ),
    Peer(
        "uvloop",
        "uvloop relay, no checks",
        (
            *("@PYTHON@", "@PEERS@/uvloop_relay.py"),
            *("--port", "@PORT_PLAIN@", "--upstream", "@PORT_UPSTREAM@"),
        ),
        blind=True,
    ),
    Peer(
        "sidecar",
        "ws-auth-sidecar",
        SIDECAR,
        _WITH_TOKENS,
        "sidecar.yaml",
        shared_port=True,
        package=COMPILED,
    ),
    Peer(
        "sidecar-python",
        "ws-auth-sidecar, not compiled",
        SIDECAR,
        _WITH_TOKENS,
        "sidecar.yaml",
        shared_port=True,
    ),
    Peer(
        "relay-64k",
        "bare C relay, buffer of 64 KiB",
        (
            *("@BUILD@/relay", "--port", "@PORT_PLAIN@", "--upstream", "@PORT_UPSTREAM@"),
            *("--buffer", "65536"),
        ),
        extra=True,
        blind=True,
    ),
    Peer(
        "nginx-64k",
        "nginx, buffers of 64 KiB",
        _NGINX,
        config="nginx.conf",
        values={"BUFFER": "64k"},
        extra=True,
    ),
    Peer(
        "haproxy-64k",
        "HAProxy, buffers of 64 KiB",
        _HAPROXY,
        _WITH_TOKENS,
        "haproxy.cfg",
        {"BUFFER": "65536"},
        extra=True,
    ),
)


def cores() -> tuple[set[int], set[int]]:
    """The core of the proxy and the cores of the load; the same where there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return {allowed[-1]}, set(allowed[:-1]) or {allowed[-1]}


@contextlib.contextmanager
def pinned(where: set[int]) -> Iterator[None]:
    """Processes that are started in the block run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, where)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port that nobody listens on, never given twice."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise PeerError("no free port")


@dataclass(frozen=True)
class Site:
    """What all peers of a run share: `build` has the C programs, `folder` the keys and files."""

    build: Path
    folder: Path
    credentials: Credentials
    proxy_cores: set[int]
    upstream: int = 0


class Running:
    """A started peer; a context manager that ends it.

    `ready_seconds` is how long it took. `presented` is how many of the different tokens each
    variant has seen: the next load goes on behind them.
    """

    def __init__(self, peer: Peer, site: Site) -> None:
        self.peer = peer
        self.presented = Counter[str]()
        self._site = site
        shared = peer.port or free_port()
        self._ports = {
            variant: shared if peer.shared_port else free_port() for variant in peer.variants
        }
        self._folder = site.folder / f"{peer.name}-{shared}"
        self._folder.mkdir()
        self._log = self._folder / "output.log"
        self._log.touch()
        argv = self._argv()
        environ = os.environ | {"BENCH_SECRET": site.credentials.secret}
        if peer.package is not None:
            environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(peer.package)}
        began = time.perf_counter()
        output = Path(os.devnull) if peer.silent else self._log
        with output.open("wb") as log, pinned(site.proxy_cores):
            self._process = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
            self.ready_seconds = time.perf_counter() - began
            self._check_refusals()
        except BaseException:
            self.stop()
            raise
        self.pids = group(self._process.pid)

    def __enter__(self) -> "Running":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def target(self, variant: str, different: int = 0) -> list[str]:
        """Flags that make the load generator connect with what this variant asks for.

        With one token for all connections, or in turn with so many different ones.
        """
        peer, credentials = self.peer, self._site.credentials
        flags = ["--port", str(self._ports[variant]), "--path", f"/{variant}"]
        token = None if different else credentials.tokens.get(variant)
        for header in self._headers(variant, token):
            flags += ["--header", header]
        if different:
            forged = peer.refused is not None
            file = credentials.different(variant, different, peer.carrier, forged)
            flags += ["--header-file", str(file), "--header-start", str(self.presented[variant])]
        if peer.preface:
            flags += ["--preface", peer.preface]
        if peer.refused is not None:
            flags += ["--refused", str(peer.refused)]
        return flags

    def stop(self) -> None:
        """End its process group, by force where it does not end itself."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT)
                return

    def _argv(self) -> list[str]:
        values = {
            "BUILD": str(self._site.build),
            "FOLDER": str(self._site.folder),
            "PEERS": str(FOLDER),
            "PYTHON": sys.executable,
            "SECRET": self._site.credentials.secret,
            "PORT_UPSTREAM": str(self._site.upstream),
            "PORT_ADMIN": str(free_port()),
            "PORT": str(self._ports[self.peer.variants[0]]),
            **{f"PORT_{name.upper()}": str(port) for name, port in self._ports.items()},
            **self.peer.values,
        }
        if self.peer.config is not None:
            config = self._folder / self.peer.config
            text = self.peer.text or (FOLDER / self.peer.config).read_text()
            config.write_text(_fill(text, values))
            values["CONFIG"] = str(config)
        program = self.peer.program()
        if program is None:
            raise PeerError(self.peer.missing)
        argv = [_fill(part, values) for part in (program, *self.peer.argv[1:])]
        return guarded(argv)

    def _headers(self, variant: str, token: str | None, origin: str = ORIGIN) -> Iterator[str]:
        yield f"Origin: {origin}"
        yield from self.peer.headers
        if variant != "plain" and token is not None:
            yield f"{self.peer.carrier}{token}"

    def _status(self, variant: str, headers: Iterable[str]) -> int:
        """The status of the answer to a handshake; 0 where there is none."""
        lines = [
            *([self.peer.preface] if self.peer.preface else []),
            f"GET /{variant} HTTP/1.1",
            f"Host: 127.0.0.1:{self._ports[variant]}",
            *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *headers,
        ]
        address = ("127.0.0.1", self._ports[variant])
        try:
            with socket.create_connection(address, timeout=5) as client:
                client.sendall("\r\n".join([*lines, "", ""]).encode())
                answer = client.recv(64)
        except OSError:
            return 0
        return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0

    def _wait_until_ready(self) -> None:
        deadline = time.perf_counter() + _READY_TIMEOUT
        waiting = list(self.peer.variants)
        while waiting:
            if self._process.poll() is not None or time.perf_counter() > deadline:
                raise PeerError(f"does not start: {self._log.read_text(errors='replace')[-800:]}")
            token = self._site.credentials.tokens.get(waiting[0])
            if self._status(waiting[0], self._headers(waiting[0], token)) == 101:
                waiting.pop(0)
            else:
                time.sleep(0.002)

    def _check_refusals(self) -> None:
        """A figure for a check that is not done would be worth nothing."""
        if self.peer.blind:
            return  # it checks nothing, and says so
        refusals = (101,) if self.peer.refused == 101 else (401, 403)
        tokens = self._site.credentials.tokens
        for variant in self.peer.variants:
            token = tokens.get(variant)
            bad = [self._headers(variant, token, origin="https://evil.example")]
            if token is not None:
                bad += [self._headers(variant, forge(token)), self._headers(variant, None)]
            for headers in bad:
                if self._status(variant, headers) not in refusals:
                    raise PeerError(f"{variant}: does not refuse what it must")


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
