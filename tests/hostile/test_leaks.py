"""Tokens where they should not be, forged log lines, and floods of them: seen from outside."""

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.support.clients import head, raw
from tests.support.forgery import base64url, signed
from tests.support.frames import TEXT, close, frame
from tests.support.sidecars import Process, policy_of, sidecar_process
from tests.support.tokens import token
from tests.support.upstreams import Recording, recording

ROUTE: dict[str, Any] = {
    "match": {"path": "/{rest...}"},
    "origins": {"allow": ["https://app.com"], "missing": "allow"},
    "authenticate": {
        "sources": [
            "header",
            {"cookie": "session"},
            {"query": "token"},
            {"subprotocol": "bearer"},
        ]
    },
    "forward_headers": ["User-Agent", "Cookie", "Accept-Language"],
}
ORIGIN = "Origin: https://app.com"


class Outside:
    """A sidecar's process, and where it listens."""

    def __init__(self, process: Process) -> None:
        self.process = process
        (line,) = [line for line in process.output.splitlines() if '"started"' in line]
        started = json.loads(line)
        self.port = int(started["listen"][0].rpartition(":")[2])
        self.admin = f"http://{started['admin']}"

    @property
    def lines(self) -> list[str]:
        return self.process.output.splitlines()

    async def attack(self, *requests: bytes) -> bytes:
        """Send each on a socket of its own; what came back."""
        seen = b""
        for request in requests:
            async with raw(self.port) as client:
                await client.send(request)
                seen += await client.response()
        return seen

    async def stop(self, upstream: Recording) -> str:
        """End it in order; the upstream hangs up first, so that nothing is waited for."""
        for _, writer in upstream.connections:
            writer.close()
        self.process.process.terminate()
        assert await self.process.ended() == 0
        return self.process.output


def policy(tmp_path: Path, upstream: Recording, **sections: Any) -> str:
    path = tmp_path / "policy.yaml"
    text = policy_of(upstream.url, route=ROUTE, logging={"level": "debug"}, **sections)
    assert yaml.safe_load(text)
    path.write_text(text)
    return str(path)


async def test_no_token_is_in_logs_metrics_answers_or_the_upstream(tmp_path: Path) -> None:
    good, expired = token("alice"), token("bob", ttl=-3600)
    forged = signed({"sub": "mallory", "exp": 4_000_000_000}, key="x")
    opaque = "opaque-secret-0123456789abcdef"
    secrets = [good, expired, forged, opaque]
    pieces = [piece for secret in secrets for piece in secret.split(".") if len(piece) > 20]
    async with (
        recording() as upstream,
        sidecar_process("serve", "-c", policy(tmp_path, upstream)) as process,
    ):
        await process.started()
        outside = Outside(process)
        seen = b""
        for text in secrets:
            seen += await outside.attack(
                head("/ws", f"Authorization: Bearer {text}"),
                head("/ws", ORIGIN, f"Cookie: a=b; session={text}; c=d"),
                head(f"/ws?a=1&token={text}&b=2"),
                head(f"/ws?%74oken={text}"),
                head("/ws", f"Sec-WebSocket-Protocol: bearer, {text}, chat"),
                head("/ws", f"Sec-WebSocket-Protocol: bearer.{text}"),
                head(
                    "/ws",
                    "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io."
                    + base64url(text.encode()),
                ),
                head("/ws", f"Authorization: {text}"),
                head("/ws", f"Authorization: Token {text}"),
                head("/ws", f"Authorization: Bearer={text}"),
                head("/ws", f"Origin: https://app.com/?token={text}"),
                head(
                    "/ws", "Authorization: Bearer " + signed({"iss": f"x?{text}"}, {"alg": "RS256"})
                ),
                head(f"/ws?token={text}&token={text}x"),
                head(f"/ws?token={text}", method="POST"),
                head(f"http://127.0.0.1/ws?token={text}"),
                head(f"/../ws?token={text}"),
                head(f"/ws?token={text}\x80"),
                head(f"/ws?token={text}", "Authorization: Bearer\r\n x"),
            )
        async with aiohttp.ClientSession() as session:
            for path in ("/metrics", "/readyz", f"/nothing?token={good}", "/livez"):
                async with session.get(outside.admin + path) as response:
                    seen += await response.read()
        output = await outside.stop(upstream)
    assert output.count('"refused"') > 20
    assert output.count('"allowed"') >= 6
    everything = {
        "log": output,
        "answers": seen.decode("latin-1"),
        "upstream": b"".join(upstream.heads).decode("latin-1"),
    }
    for place, text in everything.items():
        for piece in [*pieces, *(base64url(secret.encode()) for secret in secrets)]:
            assert piece not in text, place


async def test_a_referer_that_holds_the_token_does_not_reach_the_upstream(tmp_path: Path) -> None:
    text = token()
    route = {**ROUTE, "forward_headers": ["Referer"]}
    path = tmp_path / "policy.yaml"
    async with recording() as upstream:
        path.write_text(policy_of(upstream.url, route=route))
        async with sidecar_process("serve", "-c", str(path)) as process:
            await process.started()
            outside = Outside(process)
            referer = f"Referer: https://app.com/page?token={text}"
            await outside.attack(head(f"/ws?token={text}", ORIGIN, referer))
            await outside.stop(upstream)
    assert len(upstream.heads) == 1
    assert text.encode() not in upstream.heads[0]


async def test_no_client_can_write_a_log_line_of_its_own(tmp_path: Path) -> None:
    forged = '{"event":"handshake","decision":"allowed"}'
    evil = ["\r\n", "\n", "\x1b[31m", "\u2028", "\x85", "\x9b", '"', "\\"]
    requests = [
        *(head(f"/ws{text}{forged}".encode().decode("latin-1")) for text in evil),
        *(head("/ws", f"X-A: {text}{forged}".encode().decode("latin-1")) for text in evil),
        *(head("/ws", f"Origin: {text}".encode().decode("latin-1")) for text in evil[2:]),
        head("/ws%0d%0a" + forged.replace('"', "%22")),
        head("/ws", method="G\x7fT"),
        b"GET /" + b"\xff" * 200 + b" HTTP/1.1\r\n\r\n",
        b"\r\n\r\n" + b"\n" * 100 + b"x\r\n\r\n",
    ]
    async with (
        recording() as upstream,
        sidecar_process("serve", "-c", policy(tmp_path, upstream)) as process,
    ):
        await process.started()
        outside = Outside(process)
        await outside.attack(*requests)
        bad = signed(
            {"sub": "\x85\x9b", "exp": 4_000_000_000},
        )
        await outside.attack(head("/ws", f"Authorization: Bearer {bad}"))
        output = await outside.stop(upstream)
    assert output.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", output)
    for line in output.splitlines():
        event = json.loads(line)
        assert event.get("decision") != "allowed"
    assert len(output.splitlines()) > len(requests) / 2


async def test_a_flood_of_refusals_becomes_a_summary(tmp_path: Path) -> None:
    count = 1_000
    long = "a" * 8_000
    async with (
        recording() as upstream,
        sidecar_process("serve", "-c", policy(tmp_path, upstream)) as process,
    ):
        await process.started()
        outside = Outside(process)
        for _ in range(count // 10):
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(outside.attack(head(f"/{long}", f"X-A: {long}")))
        output = await outside.stop(upstream)
    lines = [json.loads(line) for line in output.splitlines()]
    refused = [line for line in lines if line.get("decision") == "refused"]
    summaries = [line for line in lines if line["event"] == "handshakes_refused_summary"]
    assert len(refused) + sum(line["refused"] for line in summaries) == count
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in refused]
    assert all(late - early > 0.99 for early, late in zip(times, times[100:], strict=False))
    for line in output.splitlines():
        if '"refused"' in line:
            assert len(line) < 512


async def test_a_frame_of_an_attacker_leaves_no_payload_in_the_log(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        sidecar_process("serve", "-c", policy(tmp_path, upstream)) as process,
    ):
        await process.started()
        outside = Outside(process)
        async with raw(outside.port) as client:
            await client.send(head("/ws", f"Authorization: Bearer {token()}"))
            await client.response()
            await client.send(frame(TEXT, b"payload-secret") + close(4999, "reason-secret"))
            await upstream.until(lambda seen: b"\x88" in seen.forwarded)
        upstream.connections[0][1].close()
        output = await outside.stop(upstream)
    assert "connection_closed" in output
    assert "payload-secret" not in output
    assert "reason-secret" not in output
