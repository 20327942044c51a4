"""Clients that bring their token in the first message, and what they are told."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.audits import audit_to, events
from tests.support.clients import Raw, head, raw
from tests.support.frames import TEXT, close, frame
from tests.support.sidecars import Running, policy_of
from tests.support.tokens import token

MESSAGE: Mapping[str, Any] = {
    "when": {"/type": "auth"},
    "token": "/data/token",
    "timeout": "20s",
    "reply": {"type": "auth_success", "user": "{user}"},
    "failure": {"type": "error", "message": "{reason}"},
}
WELCOME = frame(TEXT, b'{"type":"auth_success","user":"alice"}', masked=False)


def auth(text: str | None = None, **claims: Any) -> bytes:
    """A message with this token, or with a good one."""
    brought = token(**claims) if text is None else text
    return json.dumps({"type": "auth", "data": {"token": brought}}).encode()


def asking(
    folder: Path, url: str, message: Mapping[str, Any] | None = None, **sections: Any
) -> str:
    """A policy whose route looks at the header and then waits for a message."""
    route = dict(sections.pop("route", {}))
    waits = {"message": {**MESSAGE, **(message or {})}}
    route["authenticate"] = {"sources": ["header", waits]}
    sections.setdefault("logging", audit_to(folder / "audit.jsonl"))
    return policy_of(url, route=route, **sections)


@contextlib.asynccontextmanager
async def accepted(running: Running, *lines: str, behind: bytes = b"") -> AsyncIterator[Raw]:
    """A client that was told 101, and no more; `behind` is what it sends with its head."""
    async with raw(running.port) as client:
        await client.send(head("/ws", *lines) + behind)
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        yield client


def refusal(code: int, reason: str) -> bytes:
    """What a client that is refused gets, to the last byte."""
    failure = json.dumps({"type": "error", "message": reason}, separators=(",", ":")).encode()
    return frame(TEXT, failure, masked=False) + close(code, reason, masked=False)


def decisions(folder: Path) -> list[dict[str, Any]]:
    """What the audit log has of handshakes."""
    return events(folder / "audit.jsonl")
