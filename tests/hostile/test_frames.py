"""Frames that break RFC 6455, from either side, and compressed ones."""

from pathlib import Path

import pytest

from sidecar.errors import ConfigError
from tests.support import frames
from tests.support.attacks import bearer, served
from tests.support.clients import head, raw
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, close, frame
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import fields, recording, switching

pytestmark = pytest.mark.usefixtures("implementation")

GOOD = frame(TEXT, b"good")
MARK = b"\x11\x22\x33\x44"

FROM_CLIENT: dict[str, bytes] = {
    "text that is not masked": frame(TEXT, b"x", masked=False),
    "binary that is not masked": frame(BINARY, b"x", masked=False),
    "a ping that is not masked": frame(PING, b"x", masked=False),
    "a close that is not masked": close(1000, masked=False),
    "a length of 2**63": b"\x82\xff\x80" + bytes(7) + MARK,
    "a length of 2**64-1": b"\x82\xff" + b"\xff" * 8 + MARK,
    "16 bits of length for 1 byte": b"\x82\xfe\x00\x01" + MARK + b"x",
    "64 bits of length for 1 byte": b"\x82\xff" + bytes(7) + b"\x01" + MARK + b"x",
    "64 bits of length for 65535 bytes": b"\x82\xff" + bytes(6) + b"\xff\xff" + MARK,
    "reserved bit 1": frame(TEXT, b"x", rsv=4),
    "reserved bit 2": frame(TEXT, b"x", rsv=2),
    "reserved bit 3": frame(TEXT, b"x", rsv=1),
    "reserved bits of a ping": frame(PING, b"x", rsv=4),
    "opcode 3": frame(3, b"x"),
    "opcode 7": frame(7, b"x"),
    "opcode 11": frame(11, b"x"),
    "opcode 15": frame(15, b"x"),
    "a ping of 126": frame(PING, bytes(126)),
    "a ping that claims 126": b"\x89\xfe",
    "a pong of 65536": frame(frames.PONG, bytes(65536)),
    "a close of 126": frame(CLOSE, b"\x03\xe8" + bytes(124)),
    "a fragment of a ping": frame(PING, b"x", fin=False),
    "a fragment of a close": frame(CLOSE, b"\x03\xe8", fin=False),
    "a close of 1 byte": frame(CLOSE, b"\x03"),
    **{
        f"a close with {code}": close(code)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a fragment of nothing": frame(CONTINUATION, b"x", fin=False),
    "a new text inside a fragmented one": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "a new binary inside a fragmented text": frame(TEXT, b"", fin=False) + frame(BINARY, b"b"),
    "a request": b"GET /internal HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}


@pytest.mark.parametrize("name", FROM_CLIENT)
async def test_a_bad_frame_of_the_client_ends_the_connection(tmp_path: Path, name: str) -> None:
    attack = FROM_CLIENT[name]
    allowed = attack[:7] if "inside" in name else b""
    allowed = attack[:6] if name.startswith("a new binary") else allowed
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        await client.send(GOOD + attack + frame(TEXT, b"behind"))
        assert await client.rest() == close(1002, "protocol_error", masked=False)
        await upstream.until(lambda seen: len(seen.forwarded) >= len(GOOD + allowed) + 22)
        client.writer.transport.abort()
        upstream.connections[0][1].close()
        await running.until_idle()
        # the sidecar's own close frame, masked: 2 bytes, the mask, the code and the reason
        assert upstream.forwarded[:-22] == GOOD + allowed
        assert upstream.forwarded[-22:-20] == bytes([0x80 | CLOSE, 0x80 | 16])
        await served(running, upstream)


@pytest.mark.parametrize(
    "name", ["text that is not masked", "a ping of 126", "a close with 1006", "reserved bit 1"]
)
async def test_a_bad_frame_is_refused_byte_by_byte_too(tmp_path: Path, name: str) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        for byte in GOOD + FROM_CLIENT[name]:
            await client.send(bytes([byte]))
        assert await client.rest() == close(1002, "protocol_error", masked=False)
        await upstream.until(lambda seen: len(seen.forwarded) >= len(GOOD) + 22)
        upstream.connections[0][1].close()
        assert upstream.forwarded[:-22] == GOOD


FROM_UPSTREAM: dict[str, bytes] = {
    "a masked text": frame(TEXT, b"x"),
    "a masked ping": frame(PING, b"x"),
    "reserved bit 1": frame(TEXT, b"x", masked=False, rsv=4),
    "opcode 3": frame(3, b"x", masked=False),
    "a ping of 126": frame(PING, bytes(126), masked=False),
    "a close with 1005": close(1005, masked=False),
    "a length over 63 bits": b"\x82\x7f" + b"\xff" * 8,
    "a second answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", FROM_UPSTREAM)
@pytest.mark.parametrize("early", [True, False])
async def test_a_bad_frame_of_the_upstream_ends_the_connection(
    tmp_path: Path, name: str, early: bool
) -> None:
    good, attack = frame(TEXT, b"good", masked=False), FROM_UPSTREAM[name]

    def answer(request: bytes) -> bytes:
        return switching(request) + (good + attack if early else b"")

    async with (
        recording(answer) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await client.response()
        if not early:
            await upstream.send(good + attack)
        assert await client.rest() == good + close(1002, "protocol_error", masked=False)
        await upstream.until(lambda seen: len(seen.forwarded) == 22)
        client.writer.transport.abort()
        upstream.connections[0][1].close()
        await running.until_idle()


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "x-webkit-deflate-frame",
        "permessage-deflate, permessage-bzip2",
    ],
)
async def test_an_offer_to_compress_goes_no_further(tmp_path: Path, offer: str) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        lines = [f"Sec-WebSocket-Extensions: {offer}"] * 2
        await client.send(head("/ws", bearer(), *lines, "Sec_WebSocket_Extensions: x"))
        assert b"extensions" not in (await client.response()).lower()
        assert "sec-websocket-extensions" not in fields(upstream.heads[0])
        assert b"xtensions" not in upstream.heads[0]


async def test_extensions_cannot_be_forwarded_even_when_the_policy_names_them(
    tmp_path: Path,
) -> None:
    route = {"forward_headers": ["Sec-WebSocket-Extensions"]}
    with pytest.raises(ConfigError):
        async with sidecar(policy_of("ws://127.0.0.1:9", route=route), tmp_path):
            pass
