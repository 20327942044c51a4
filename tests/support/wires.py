"""Pipes and a link between transports that do nothing."""

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any

from sidecar.model import Handshake, Peer, Permit
from sidecar.policy.compiled import Address, Upstream
from sidecar.policy.decide import Standing
from sidecar.policy.limits import UNLIMITED
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.relay import Link
from sidecar.proxy.scanners import Scanners
from sidecar.wire.scanner import Bucket, FrameScanner
from tests.support.clocks import MovableClock


class Wire(asyncio.Transport):
    """A transport that writes down what it is told. `full` makes it keep what is written; `unsent`
    is how much it says it has kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: asyncio.BaseProtocol | None = None
        self.full = False
        self.unsent = 0
        self.reading = False
        self.closing = False
        self.closes = 0
        self.aborted = False
        self.half_closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        assert high < 2**10

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.half_closed
        self.written += data
        if self.full:
            assert isinstance(self.protocol, Pipe)
            self.protocol.pause_writing()

    def drained(self) -> None:
        self.full = False
        assert isinstance(self.protocol, Pipe)
        self.protocol.resume_writing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.closing
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.closes += 1

    def abort(self) -> None:
        self.closing = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True


def standing() -> Standing:
    """Of a connection to ws://example.com/ws."""
    handshake = Handshake("/ws", "", "example.com", (), "", None, ())
    upstream = Upstream("main", Address("127.0.0.1", 9000))
    return Standing(handshake, Peer("192.0.2.1", True), upstream, "/ws")


class Bench:
    """A link of two such transports."""

    def __init__(
        self,
        messages: Bucket | None = None,
        codes: Mapping[str, int] | None = None,
        **more: Any,
    ) -> None:
        self.clock = MovableClock()
        now = monotonic if messages else self.clock.monotonic
        self.wires = (Wire(), Wire())
        scanners = Scanners(UNLIMITED)
        scanner = FrameScanner(masked=True, messages=messages)
        self.client = Pipe("client", self.wires[0], scanner, now)
        self.upstream = Pipe("upstream", self.wires[1], FrameScanner(masked=False), now)
        permit = Permit("main", "main", b"", "", (), None, None)
        self.ended: list[Link] = []
        self.link = Link(
            "id",
            permit,
            self.client,
            self.upstream,
            codes or {},
            self.ended.append,
            **{"scanners": scanners, "standing": standing(), **more},
        )
