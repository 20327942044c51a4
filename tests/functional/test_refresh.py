"""A new token on the live connection: taken out of the stream, judged, answered."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.audits import audit_to, events
from tests.support.clients import Raw, head
from tests.support.frames import CLOSE, CONTINUATION, PING, TEXT, frame
from tests.support.pairs import connected
from tests.support.sidecars import ENVIRON, PROVIDER, Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import Recording, recording

REFRESH: Mapping[str, Any] = {
    "when": {"/type": "refresh"},
    "token": "/data/token",
    "reply": {"type": "refreshed", "exp": "{claims.exp}", "user": "{user}"},
    "failure": {"type": "no", "why": "{reason}"},
}
BEFORE = frame(TEXT, b"before")
BEHIND = frame(TEXT, b"behind")


def message(new: str | None, **more: Any) -> bytes:
    """What a client writes to bring a token."""
    return json.dumps({"type": "refresh", "data": {"token": new}, **more}).encode()


def in_clear(text: bytes) -> bytes:
    """A text message whose mask hides nothing, so that it could be found at the upstream."""
    masked = frame(TEXT, text)
    return masked[: -len(text) - 4] + bytes(4) + text


class Talk:
    """A client on a bare socket before an upstream that writes down what comes."""

    def __init__(self, running: Running, client: Raw, upstream: Recording, audit: Path) -> None:
        self.running = running
        self.client = client
        self.upstream = upstream
        self.audit = audit

    async def send(self, *frames: bytes) -> None:
        await self.client.send(b"".join(frames))

    async def read_frame(self) -> tuple[int, bytes]:
        """The next frame's first byte and payload."""
        first, length = await self.client.exactly(2)
        if length == 126:
            length = int.from_bytes(await self.client.exactly(2), "big")
        return first, await self.client.exactly(length)

    async def answer(self) -> Any:
        """What the sidecar answers."""
        first, payload = await self.read_frame()
        assert first == 0x80 | TEXT
        return json.loads(payload)

    async def until_forwarded(self, expected: bytes) -> None:
        """Wait until the upstream has as much; it must be just that."""
        await self.upstream.until(lambda it: len(it.forwarded) >= len(expected))
        assert self.upstream.forwarded == expected


@contextlib.asynccontextmanager
async def talk(
    folder: Path,
    first: str | None = None,
    *,
    route: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = ENVIRON,
    **more: Any,
) -> AsyncIterator[Talk]:
    """A connection of alice on a route that takes new tokens."""
    audit = folder / "audit.jsonl"
    rules = {"session": {"refresh": dict(REFRESH)}, **(route or {})}
    async with recording() as upstream:
        policy = policy_of(upstream.url, route=rules, logging=audit_to(audit), **more)
        async with sidecar(policy, folder, environ) as running:
            client = await connected(running.port)
            lines = [] if first == "" else ["Authorization: Bearer " + (first or token())]
            await client.send(head("/ws", *lines))
            assert (await client.response()).startswith(b"HTTP/1.1 101 ")
            try:
                yield Talk(running, client, upstream, audit)
            finally:
                client.writer.transport.abort()
                await asyncio.sleep(0)


async def test_a_new_token_moves_the_end_and_is_never_forwarded(tmp_path: Path) -> None:
    async with talk(tmp_path, token(ttl=60)) as it:
        (link,) = it.running.sidecar.connections
        old = link.expires_at
        new = token(ttl=7200, jti="new")
        await it.send(BEFORE, frame(TEXT, message(new)), BEHIND)
        answer = await it.answer()
        await it.until_forwarded(BEFORE + BEHIND)
        assert old is not None
        assert link.expires_at is not None
        assert link.expires_at > old + 7000
        assert answer == {"type": "refreshed", "exp": int(link.expires_at), "user": "alice"}
        (event,) = events(it.audit, "token_refreshed")
        assert event["token_id"] == "new"
        assert event["connection_id"] == link.identifier


async def test_a_token_in_fragments_is_taken_too(tmp_path: Path) -> None:
    async with talk(tmp_path) as it:
        text = message(token())
        ping = frame(PING, b"between")
        await it.send(frame(TEXT, text[:9], fin=False))
        await it.send(ping)
        for at in range(9, len(text), 7):
            last = at + 7 >= len(text)
            await it.send(frame(CONTINUATION, text[at : at + 7], fin=last))
        await it.send(BEHIND)
        assert (await it.answer())["type"] == "refreshed"
        await it.until_forwarded(ping + BEHIND)


async def test_what_only_looks_like_it_goes_on_unchanged(tmp_path: Path) -> None:
    async with talk(tmp_path) as it:
        texts = [
            b'{"type": "refreshing", "data": {"token": "x"}}',
            b'{"kind": "refresh"}',
            b'["refresh"]',
            b'{"data": "' + b"x" * 20_000 + b'", "type": "refresh"}',
        ]
        frames = b"".join(frame(TEXT, text) for text in texts)
        for at in range(0, len(frames), 11):
            it.client.writer.write(frames[at : at + 11])
        await it.send(BEHIND)
        await it.until_forwarded(frames + BEHIND)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (token("mallory"), "token_invalid"),
        (token(secret="x" * 64), "token_invalid"),
        (token(ttl=-3600), "token_expired"),
        ("a.b.c", "token_invalid"),
        (None, "token_invalid"),
    ],
)
async def test_a_bad_token_is_answered_and_ends_nothing(
    tmp_path: Path, bad: str | None, why: str
) -> None:
    async with talk(tmp_path, token(ttl=900)) as it:
        (link,) = it.running.sidecar.connections
        before = link.expires_at
        await it.send(frame(TEXT, message(bad)), BEHIND)
        assert await it.answer() == {"type": "no", "why": why}
        await it.until_forwarded(BEHIND)
        assert link.closing is None
        assert link.expires_at == before
        (event,) = events(it.audit, "token_refresh_refused")
        assert event["reason"] == why
        assert event["user"] == "alice"


async def test_three_bad_tokens_in_a_row_end_the_connection(tmp_path: Path) -> None:
    async with talk(tmp_path) as it:
        for sent in (token("mallory"), token("mallory"), token(), token("eve"), token("eve")):
            await it.send(frame(TEXT, message(sent)))
            await it.answer()
        (link,) = it.running.sidecar.connections
        assert link.closing is None
        await it.send(frame(TEXT, message(token("eve"))))
        assert (await it.answer())["type"] == "no"
        first, payload = await it.read_frame()
        assert first == 0x80 | CLOSE
        assert payload == (4401).to_bytes(2, "big") + b"token_invalid"
        await it.upstream.until(lambda upstream: upstream.forwarded[:1] == bytes((0x80 | CLOSE,)))


async def test_a_token_that_the_route_would_not_let_in_is_not_taken(tmp_path: Path) -> None:
    rules = {"authorize": [{"claim": "role", "equals": "member", "reason": "not_a_member"}]}
    async with talk(tmp_path, token(role="member"), route=rules) as it:
        await it.send(frame(TEXT, message(token(role="guest"))))
        assert await it.answer() == {"type": "no", "why": "not_a_member"}
        await it.send(frame(TEXT, message(token(role="member"))))
        assert (await it.answer())["type"] == "refreshed"


async def test_a_token_of_another_provider_is_not_taken(tmp_path: Path) -> None:
    secret = "another secret, which is long enough for the algorithm that is used here"
    other = {"algorithms": ["HS256"], "secrets": [{"env": "OTHER"}], "issuer": "other"}
    providers = {"app": PROVIDER, "other": other}
    environ = {**ENVIRON, "OTHER": secret}
    async with talk(tmp_path, environ=environ, jwt={"providers": providers}) as it:
        await it.send(frame(TEXT, message(token(secret=secret, iss="other"))))
        assert await it.answer() == {"type": "no", "why": "token_invalid"}


async def test_an_anonymous_connection_has_nothing_to_refresh(tmp_path: Path) -> None:
    async with talk(tmp_path, "", route={"authenticate": {"anonymous": True}}) as it:
        await it.send(frame(TEXT, message(token())), BEHIND)
        assert await it.answer() == {"type": "no", "why": "token_invalid"}
        await it.until_forwarded(BEHIND)


async def test_a_route_without_answers_answers_nothing(tmp_path: Path) -> None:
    silent = {**REFRESH, "reply": None, "failure": None}
    async with talk(tmp_path, route={"session": {"refresh": silent}}) as it:
        await it.send(frame(TEXT, message(token())), frame(TEXT, message("no")), BEHIND)
        await it.until_forwarded(BEHIND)
        await it.upstream.send(b"\x81\x02ok")
        assert await it.read_frame() == (0x81, b"ok")


async def test_an_answer_waits_for_the_end_of_the_message_under_way(tmp_path: Path) -> None:
    async with talk(tmp_path) as it:
        await it.upstream.send(b"\x01\x02ab\x80\x04c")
        assert await it.client.exactly(7) == b"\x01\x02ab\x80\x04c"
        await it.send(frame(TEXT, message(token())), BEHIND)
        await it.until_forwarded(BEHIND)
        await it.upstream.send(b"def\x81\x02ok")
        assert await it.client.exactly(3) == b"def"
        assert (await it.answer())["type"] == "refreshed"
        assert await it.read_frame() == (0x81, b"ok")


async def test_a_client_that_reads_no_answers_is_not_read_any_more(tmp_path: Path) -> None:
    large = {**REFRESH, "reply": {"pad": "x" * 15_000}}
    async with talk(tmp_path, route={"session": {"refresh": large}}) as it:
        (link,) = it.running.sidecar.connections
        await it.upstream.send(b"\x01\x01a")
        assert await it.client.exactly(3) == b"\x01\x01a"
        await it.send(*[frame(TEXT, message(token()))] * 6)
        async with asyncio.timeout(10):
            while link.client not in link.held or link.bad_tokens:
                await asyncio.sleep(0.01)
        await it.send(BEHIND)
        await asyncio.sleep(0.1)
        assert it.upstream.forwarded == b""
        await it.upstream.send(b"\x80\x01b")
        assert await it.client.exactly(3) == b"\x80\x01b"
        for _ in range(6):
            assert len((await it.read_frame())[1]) > 15_000
        await it.until_forwarded(BEHIND)


async def test_a_client_that_brings_tokens_all_the_time_is_sent_away(tmp_path: Path) -> None:
    async with talk(tmp_path) as it:
        await it.send(frame(TEXT, message(token())) * 11)
        for _ in range(10):
            assert (await it.answer())["type"] == "refreshed"
        first, payload = await it.read_frame()
        assert (first, payload) == (0x80 | CLOSE, (4429).to_bytes(2, "big") + b"message_rate")


async def test_what_is_held_back_goes_nowhere_when_the_connection_ends(tmp_path: Path) -> None:
    async with talk(tmp_path) as it:
        text = message(token())
        await it.send(BEFORE, frame(TEXT, text[:60], fin=False))
        await it.until_forwarded(BEFORE)
        end = frame(CLOSE, (1000).to_bytes(2, "big"))
        await it.send(end)
        await it.until_forwarded(BEFORE + end)


async def test_a_refresh_tokens_text_appears_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good, bad = token(ttl=7200, jti="good"), token("mallory", jti="bad")
    async with talk(tmp_path) as it:
        twice = b'{"type":"refresh","type":"refresh","data":{"token":"%s"}}' % bad.encode()
        for text in (message(good), message(bad), twice):
            await it.send(in_clear(text))
            await it.answer()
        await it.send(BEHIND)
        await it.until_forwarded(BEHIND)
        exposition, _ = it.running.sidecar.metrics.render("")
    captured = capfd.readouterr()
    seen = "".join([it.audit.read_text(), captured.out, captured.err, exposition.decode()])
    for secret in (good, bad):
        for part in secret.split(".")[1:]:
            assert part not in seen
            assert part.encode() not in it.upstream.forwarded
    assert 'ws_sidecar_token_refreshes_total{outcome="ok",route="main"} 1.0' in exposition.decode()
