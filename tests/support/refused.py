"""Handshakes that are refused, and what every refusal has in common."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.audits import audit_to, events
from tests.support.clients import head, raw
from tests.support.sidecars import Running, policy_of
from tests.support.tokens import token
from tests.support.upstreams import fields

PROBLEM = {"type", "title", "status", "reason", "request_id"}


def bearer(**claims: Any) -> str:
    return "Authorization: Bearer " + token(**claims)


def with_audit(folder: Path, url: str, **sections: Any) -> str:
    return policy_of(url, logging=audit_to(folder / "audit.jsonl"), **sections)


async def refused(
    running: Running, *lines: str, path: str = "/ws", **options: Any
) -> dict[str, Any]:
    """Be refused: the problem, with `fields`, the header fields of the answer."""
    async with raw(running.port) as client:
        await client.send(head(path, *lines, **options))
        problem = await client.refusal()
        problem["fields"] = fields(problem["head"].encode("latin-1"))
        return problem


def assert_well_formed(problem: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What every refusal has in common; the one line about it in the log."""
    assert set(problem) == PROBLEM | {"head", "fields"}
    assert problem["head"].startswith("HTTP/1.1 ")
    found = problem["fields"]
    assert found["content-type"] == "application/problem+json"
    assert found["cache-control"] == "no-store"
    assert found["connection"] == "close"
    assert found["server"] == "ws-sidecar"
    logged = [e for e in events(folder / "audit.jsonl") if e["request_id"] == problem["request_id"]]
    assert len(logged) == 1
    assert logged[0]["decision"] == "refused"
    assert problem["reason"] in (logged[0]["reason"], logged[0].get("rule"))
    return logged[0]


def answering(text: str) -> Callable[[bytes], bytes]:
    return lambda _: text.replace("\n", "\r\n").encode()


def closing(with_: str = "close", **refuse: Any) -> dict[str, Any]:
    return {"refuse": {"with": with_, **refuse}}
