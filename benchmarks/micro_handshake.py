"""Counts the Python calls of one handshake's decisions: no machine's load changes that.

`python -m benchmarks.micro_handshake` prints the counts; tests/test_handshake_budget.py holds them
to BUDGETS. Sockets and the event loop are not in them.
"""

import asyncio
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType
from typing import Any, Final, TypeVar

from sidecar.auth.authenticator import Authenticator
from sidecar.auth.keys import KeyStore
from sidecar.config.source import Document, compile_documents
from sidecar.model import Identity, Permit
from sidecar.policy import decide
from sidecar.policy.compiled import Policy
from sidecar.policy.keys import SigningKey
from sidecar.policy.mint import mint
from sidecar.policy.peers import resolve_peer
from sidecar.wire.handshake import accept_key, check_response, parse_request, switching_protocols

__all__ = ["BUDGETS", "calls"]

T = TypeVar("T")

BUDGETS: Final[Mapping[str, int]] = {"first": 146, "again": 121}
"""Calls for a token that is seen for the first time, and for one that is seen again; with CPython
3.11, later ones have fewer.
"""

_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
_POLICY: Final = """
version: 1
server: {listen: ["127.0.0.1:1"]}
upstreams: {chat: {url: "ws://127.0.0.1:2"}}
jwt: {providers: {app: {algorithms: [HS256], secrets: [{env: SECRET}]}}}
routes:
  - name: chat
    match: {path: "/ws/{room}"}
    upstream: chat
    origins: {allow: ["https://app.example.com"]}
    authenticate: {sources: [header]}
    identity: {headers: {X-User-Id: user, X-User-Email: claims.email}}
    limits: {message_size: 1MiB, messages: 100/second}
"""


def _headers(token: str) -> list[tuple[bytes, bytes]]:
    fields = {
        "Host": "chat.example.com",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": _KEY,
        "Origin": "https://app.example.com",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Authorization": f"Bearer {token}",
    }
    return [(name.encode(), value.encode()) for name, value in fields.items()]


def _finish(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("it waits")


def _decide(policy: Policy, authenticator: Authenticator, keys: KeyStore, token: str) -> None:
    """All that is decided from a request's head to the 101."""
    now = time.time()
    handshake = parse_request("GET", "/ws/blue", "1.1", _headers(token))
    peer = resolve_peer("192.0.2.1", False, handshake.headers, ())
    admitted = decide.preflight(policy, handshake, peer)
    if not isinstance(admitted, decide.Preflight):
        raise AssertionError(admitted)
    identity = _finish(authenticator.authenticate(token, None, now))
    if not isinstance(identity, Identity):
        raise AssertionError(identity)
    permit = decide.authorize(
        policy, admitted, identity, request_id="0" * 16, now=now, signing_key=keys.signing_key
    )
    if not isinstance(permit, Permit):
        raise AssertionError(permit)
    decide.standing(policy, admitted)
    accept = accept_key(permit.key)
    answer = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")]
    answer += [(b"Sec-WebSocket-Accept", accept.encode())]
    switching_protocols(accept, check_response(101, answer, accept=accept, offered=()))


def _count(work: Callable[[], None]) -> int:
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event == "call" and frame.f_globals.get("__name__", "").startswith("sidecar."):
            count += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


async def _calls() -> Mapping[str, int]:
    environ = {"SECRET": secrets.token_hex(32)}
    policy = compile_documents([Document("policy.yaml", _POLICY.encode())], environ).policy
    keys = KeyStore(policy.tokens, environ=environ, on_fetch=lambda _provider, _outcome: None)
    await keys.start()
    try:
        authenticator = Authenticator(policy.tokens, keys)
        tokens = [_token(user, keys.signing_key("app")) for user in ("warm", "alice")]
        _decide(policy, authenticator, keys, tokens[0])  # what is made once is made now
        return {
            name: _count(lambda: _decide(policy, authenticator, keys, tokens[1]))
            for name in ("first", "again")
        }
    finally:
        await keys.close()


def _token(user: str, key: SigningKey) -> str:
    now = int(time.time())
    claims = {"sub": user, "email": f"{user}@example.com", "iat": now, "exp": now + 3600}
    return mint(claims, key)


def calls() -> Mapping[str, int]:
    """Calls of the sidecar's own Python functions, by the names of BUDGETS."""
    return asyncio.run(_calls())


def main() -> None:
    """Print the counts beside their budgets."""
    for name, count in calls().items():
        sys.stdout.write(f"{name:8}{count:6} / {BUDGETS[name]}\n")


if __name__ == "__main__":
    main()
