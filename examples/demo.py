"""The main job, shown: an unauthenticated chat server, the sidecar before it, a client let in and
four refused. `make demo` runs it; with --once it ends by itself.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

ROOT = Path(__file__).resolve().parent.parent
POLICY = "sample-config.yaml"
PORTS = {"SIDECAR_PORT": 8080, "ADMIN_PORT": 9090, "CHAT_PORT": 9000}
ORIGIN = Origin("http://localhost:3000")


def free_port(wanted: int) -> int:
    """The wanted port where nobody listens, else one that the system chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise SystemExit("no free port on 127.0.0.1")


@contextlib.contextmanager
def running(*command: str, environ: Mapping[str, str]) -> Iterator[None]:
    """A process that ends with the block."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, *command], cwd=ROOT, env=environ, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=40)


def wait_until_ready(environ: Mapping[str, str]) -> None:
    """Wait for the sidecar's readiness probe."""
    url = f"http://127.0.0.1:{environ['ADMIN_PORT']}/readyz"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(url, timeout=2) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"the sidecar is not ready: see `ws-sidecar serve --config {POLICY}`")


def mint(environ: Mapping[str, str], ttl: int) -> str:
    """A token such as the application would give to its user alice."""
    now = int(time.time())
    claims = {
        "sub": "alice",
        "email": "alice@example.com",
        "roles": ["member", "editor"],
        "rooms": ["blue"],
        "iat": now - 3600,
        "exp": now + ttl,
    }
    return jwt.encode(claims, environ["JWT_SECRET"], algorithm="HS256")


async def show_admitted(url: str, token: str) -> None:
    """A client with a token: what the server was told of it, and a message there and back."""
    headers = {"Authorization": f"Bearer {token}", "X-User-Id": "root"}
    async with connect(url, additional_headers=headers, origin=ORIGIN) as client:
        print("\n  alice, with a token (and a forged X-User-Id: root):  let in")
        welcome = json.loads(await client.recv())
        print("    the server saw:")
        for name, value in welcome["headers"].items():
            print(f"      {name}: {value}")
        await client.send("hello from alice")
        print(f"    the room hears: {await client.recv()!s}")


async def show_refused(what: str, url: str, token: str | None, origin: Origin = ORIGIN) -> None:
    """A client that is not let in, and the answer it gets."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with connect(url, additional_headers=headers, origin=origin):
            raise SystemExit(f"{what}: was let in, which must not be")
    except InvalidStatus as refusal:
        problem = json.loads(refusal.response.body)
        print(f"  {what}:  {problem['status']} {problem['reason']}")


async def show_too_big(url: str, token: str) -> None:
    """A message over the limit: the connection ends before the server sees a byte of it."""
    headers = {"Authorization": f"Bearer {token}"}
    async with connect(url, additional_headers=headers, origin=ORIGIN) as client:
        await client.recv()
        await client.send("x" * 100_000)
        try:
            await client.recv()
        except ConnectionClosed as closed:
            told = closed.rcvd
            print(f"  a message of 100 kB:  closed with {told and f'{told.code} {told.reason}'}")


def show_by_hand(url: str, environ: Mapping[str, str]) -> None:
    """Lines to copy."""
    token = mint(environ, 3600)
    print(f"""
Try it by hand (the token opens the room "blue" for an hour):

  TOKEN={token}

  .venv/bin/python -m websockets "{url}?token=$TOKEN"
  npx wscat -c {url} -H "Authorization: Bearer $TOKEN"
  websocat -H "Authorization: Bearer $TOKEN" {url}

  .venv/bin/python -m websockets {url}        # without a token: refused

Mint one of your own with the same secret:

  JWT_SECRET={environ["JWT_SECRET"]} \\
    .venv/bin/ws-sidecar token --config {POLICY} --user bob --claim rooms:='["blue"]' --ttl 1h

Metrics: http://127.0.0.1:{environ["ADMIN_PORT"]}/metrics""")


async def show(environ: Mapping[str, str]) -> None:
    """Everything in turn."""
    url = f"ws://127.0.0.1:{environ['SIDECAR_PORT']}/ws/blue"
    token = mint(environ, 3600)
    print(f"chat server   ws://127.0.0.1:{environ['CHAT_PORT']}   (trusts everyone)")
    print(f"sidecar       ws://127.0.0.1:{environ['SIDECAR_PORT']}   ({POLICY})")
    await show_admitted(url, token)
    print("\nRefused:\n")
    await show_refused("no token", url, None)
    await show_refused("an expired token", url, mint(environ, -600))
    await show_refused("another web page", url, token, origin=Origin("https://evil.example"))
    await show_too_big(url, token)


def main() -> None:
    """Start both servers, show, and stay until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the show")
    args = parser.parse_args()
    environ = dict(os.environ, JWT_SECRET=secrets.token_hex(32))
    environ |= {name: str(free_port(port)) for name, port in PORTS.items()}
    with (
        running("examples/chat/server.py", "--port", environ["CHAT_PORT"], environ=environ),
        running("-m", "sidecar", "serve", "--config", POLICY, environ=environ),
    ):
        wait_until_ready(environ)
        asyncio.run(show(environ))
        if not args.once:
            show_by_hand(f"ws://127.0.0.1:{environ['SIDECAR_PORT']}/ws/blue", environ)
            print("\nCtrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


if __name__ == "__main__":
    main()
