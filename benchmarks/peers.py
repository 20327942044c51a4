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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from benchmarks.credentials import ALGORITHMS, Credentials
from benchmarks.measure import group

__all__ = [
    "ORIGIN",
    "PEERS",
    "Peer",
    "PeerError",
    "Running",
    "Site",
    "cores",
    "free_port",
    "pinned",
]

ORIGIN: Final = "https://app.example.com"
_FOLDER: Final = Path(__file__).with_name("peers")
_SIDECAR: Final = ("@PYTHON@", "-m", "sidecar", "serve", "--config", "@CONFIG@")
_COMPILED: Final = Path(__file__).parent.parent / "build" / "compiled"
_READY_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 5.0
_ports: Final = iter(range(18_000, 32_000))  # below the range of outgoing connections


class PeerError(Exception):
    """A peer does not start, or does not do the job that its figures stand for."""


@dataclass(frozen=True)
class Peer:
    """A program to compare.

    `variants` are what it can check on a handshake: "plain" (no token) and algorithms. In `argv`
    and in its configuration file, `@NAME@` stands for a value of the site or of `values`.
    `shared_port` says that variants differ by path, not by port. `extra` peers run only by name.
    `package` is put before everything else that Python imports from.
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

    @property
    def strictest(self) -> str:
        """The variant that carries messages: with a token where there is one."""
        return "HS256" if "HS256" in self.variants else "plain"

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


_WITH_TOKENS: Final = ("plain", *ALGORITHMS)
_NGINX: Final = ("nginx", "-p", "@FOLDER@", "-c", "@CONFIG@")
_HAPROXY: Final = ("haproxy", "-db", "-f", "@CONFIG@")

PEERS: Final = (
    Peer(
        "relay",
        "bare C relay",
        ("@BUILD@/relay", "--port", "@PORT_PLAIN@", "--upstream", "@PORT_UPSTREAM@"),
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
        "sidecar",
        "ws-auth-sidecar",
        _SIDECAR,
        _WITH_TOKENS,
        "sidecar.yaml",
        shared_port=True,
        package=_COMPILED,
    ),
    Peer(
        "sidecar-python",
        "ws-auth-sidecar, not compiled",
        _SIDECAR,
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
        shared = free_port()
        self._ports = {
            variant: shared if peer.shared_port else free_port() for variant in peer.variants
        }
        self._folder = site.folder / f"{peer.name}-{shared}"
        self._folder.mkdir()
        self._log = self._folder / "output.log"
        argv = self._argv()
        environ = os.environ | {"BENCH_SECRET": site.credentials.secret}
        if peer.package is not None:
            environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(peer.package)}
        began = time.perf_counter()
        with self._log.open("wb") as log, pinned(site.proxy_cores):
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
        flags = ["--port", str(self._ports[variant]), "--path", f"/{variant}"]
        credentials = self._site.credentials
        token = None if different else credentials.tokens.get(variant)
        for name, value in self._headers(variant, token):
            flags += ["--header", f"{name}: {value}"]
        if different:
            flags += ["--header-file", str(credentials.different(variant, different))]
            flags += ["--header-start", str(self.presented[variant])]
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
            "PEERS": str(_FOLDER),
            "PYTHON": sys.executable,
            "SECRET": self._site.credentials.secret,
            "PORT_UPSTREAM": str(self._site.upstream),
            "PORT_ADMIN": str(free_port()),
            **{f"PORT_{name.upper()}": str(port) for name, port in self._ports.items()},
            **self.peer.values,
        }
        if self.peer.config is not None:
            config = self._folder / self.peer.config
            config.write_text(_fill((_FOLDER / self.peer.config).read_text(), values))
            values["CONFIG"] = str(config)
        program = self.peer.program()
        if program is None:
            raise PeerError("not installed")
        argv = [_fill(part, values) for part in (program, *self.peer.argv[1:])]
        if guard := shutil.which("setpriv"):
            argv = [guard, "--pdeathsig", "TERM", *argv]  # it does not outlive this program
        return argv

    def _headers(self, variant: str, token: str | None) -> Iterator[tuple[str, str]]:
        yield "Origin", ORIGIN
        if variant != "plain" and token is not None:
            yield "Authorization", f"Bearer {token}"

    def _status(self, variant: str, headers: Mapping[str, str]) -> int:
        """The status of the answer to a handshake; 0 where there is none."""
        lines = [
            f"GET /{variant} HTTP/1.1",
            f"Host: 127.0.0.1:{self._ports[variant]}",
            *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            *(f"{name}: {value}" for name, value in headers.items()),
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
            if self._status(waiting[0], dict(self._headers(waiting[0], token))) == 101:
                waiting.pop(0)
            else:
                time.sleep(0.002)

    def _check_refusals(self) -> None:
        """A figure for a check that is not done would be worth nothing."""
        if self.peer.name.startswith("relay"):
            return  # it checks nothing, and says so
        tokens = self._site.credentials.tokens
        for variant in self.peer.variants:
            good = dict(self._headers(variant, tokens.get(variant)))
            bad: list[dict[str, str]] = [good | {"Origin": "https://evil.example"}]
            if variant != "plain":
                forged = tokens[variant][:-8] + "AAAAAAAA"
                bad += [good | {"Authorization": f"Bearer {forged}"}, {"Origin": ORIGIN}]
            for headers in bad:
                if self._status(variant, headers) not in (401, 403):
                    raise PeerError(f"{variant}: does not refuse what it must")


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
