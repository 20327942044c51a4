"""Counts what one read costs in the relay, in calls and memory: no machine's load changes that.

`python -m benchmarks.micro` prints the counts; tests/test_hot_path_budget.py holds them to BUDGETS,
so that the hot path cannot get slower unnoticed.
"""

import contextlib
import gc
import sys
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType, SimpleNamespace
from typing import Any, Final, cast

from sidecar.policy.limits import Limits, Rate
from sidecar.policy.matching import MessagePattern
from sidecar.policy.pointers import ClaimPath
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.scanners import client_scanner, upstream_scanner
from sidecar.wire import scanner as scanner_module
from sidecar.wire.tap import TappedScanner

__all__ = ["BUDGETS", "READS", "Cost", "cost_of", "is_compiled"]

_ROUNDS: Final = 64
_KEY: Final = b"\x00\x00\x00\x00"
_MESSAGE: Final = b'{"type": "message", "text": "' + b"." * 97 + b'"}'  # 128 bytes
_REFRESH: Final = MessagePattern(
    ((ClaimPath.parse("/type"), "refresh"),), ClaimPath.parse("/token"), 16384
)
_LIMITS: Final = Limits(
    client_message=2**20, upstream_message=2**20, frame=2**20, messages=Rate(1e9, 1, 1e9)
)


@dataclass(frozen=True)
class Cost:
    """Of one read: calls of Python functions, the highest number of bytes that were taken
    meanwhile, and how many blocks of memory stayed taken after it.
    """

    calls: float
    peak_bytes: int
    kept_blocks: float

    def within(self, budget: "Cost") -> bool:
        """Whether no count is over the budget's."""
        return (
            self.calls <= budget.calls
            and self.peak_bytes <= budget.peak_bytes
            and self.kept_blocks <= budget.kept_blocks
        )


@dataclass(frozen=True)
class Read:
    """What a pipe gets, again and again: `first` once, then `data` each time. With `tapped`,
    messages that bring a new token are taken out of it.
    """

    masked: bool
    first: bytes
    data: bytes
    tapped: bool = False


def _frame(payload: int, *, masked: bool) -> bytes:
    mask_bit = 0x80 if masked else 0
    if payload < 126:
        header = bytes([0x82, mask_bit | payload])
    elif payload < 0x10000:
        header = bytes([0x82, mask_bit | 126]) + payload.to_bytes(2, "big")
    else:
        header = bytes([0x82, mask_bit | 127]) + payload.to_bytes(8, "big")
    return header + (_KEY if masked else b"") + bytes(payload)


def _text(payload: bytes) -> bytes:
    """A client's text message, whose key of zeros masks nothing."""
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + _KEY + payload


def _partial(*, masked: bool) -> Read:
    """The inside of a frame so big that all reads fall into it."""
    whole = _frame(2**20, masked=masked)
    size = 2**20 // (2 * _ROUNDS + 8)
    return Read(masked, whole[:size], whole[size : 2 * size])


READS: Final[Mapping[str, Read]] = {
    f"{name}, {side}": read
    for side, masked in (("client", True), ("upstream", False))
    for name, read in (
        ("one small frame", Read(masked, b"", _frame(128, masked=masked))),
        ("16 small frames", Read(masked, b"", _frame(128, masked=masked) * 16)),
        ("inside a big frame", _partial(masked=masked)),
    )
} | {
    f"{name}, tapped client": Read(True, b"", data, tapped=True)
    for name, data in (
        ("one small message", _text(_MESSAGE)),
        ("16 small frames", _frame(128, masked=True) * 16),
    )
}


def is_compiled() -> bool:
    """Whether the scanner runs as machine code."""
    return not str(scanner_module.__file__).endswith(".py")


# A client's messages are charged to a rate: that is what its frames cost more. A read inside a big
# frame must not copy a byte. A small text message is unmasked to be looked at; compiled, in place.
_INTERPRETED: Final = {
    "one small frame, client": Cost(6, 128, 0.5),
    "16 small frames, client": Cost(6, 512, 0.5),
    "inside a big frame, client": Cost(2, 256, 0.5),
    "one small frame, upstream": Cost(3, 128, 0.5),
    "16 small frames, upstream": Cost(3, 512, 0.5),
    "inside a big frame, upstream": Cost(2, 256, 0.5),
    "one small message, tapped client": Cost(9, 768, 0.5),
    "16 small frames, tapped client": Cost(7, 512, 0.5),
}
_COMPILED: Final = {name: replace(cost, calls=1) for name, cost in _INTERPRETED.items()}
BUDGETS: Final[Mapping[str, Cost]] = _COMPILED if is_compiled() else _INTERPRETED


class _Upstream:
    """Stands in for a transport; to write is to call a C function, which is not counted."""

    def __init__(self) -> None:
        self.write: Callable[[bytes], None] = deque[bytes](maxlen=1).append


def _pipe(read: Read) -> Pipe:
    """A pipe with limits on, whose peer takes everything."""
    scanner = client_scanner(_LIMITS) if read.masked else upstream_scanner(_LIMITS)
    transport = cast(Any, SimpleNamespace())
    pipe = Pipe("client" if read.masked else "upstream", transport, scanner, time.monotonic)
    if read.tapped:
        pipe.scanner = TappedScanner(scanner, _REFRESH, None)
    pipe.peer = cast(Any, SimpleNamespace(transport=_Upstream()))
    return pipe


def _ready(read: Read) -> Callable[[bytes], None]:
    pipe = _pipe(read)
    if read.first:
        pipe.data_received(read.first)
    for _ in range(4):
        pipe.data_received(read.data)
    if pipe.scanner.verdict != scanner_module.PASS:
        raise AssertionError("the read does not pass")
    return pipe.data_received


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    """What measures coverage takes memory of its own, so it pauses."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


def _calls(read: Read) -> float:
    receive = _ready(read)
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event == "call" and not frame.f_globals.get("__name__", "").startswith("coverage."):
            count += 1

    before = sys.getprofile()
    with _untraced():
        sys.setprofile(profile)
        try:
            for _ in range(_ROUNDS):
                receive(read.data)
        finally:
            sys.setprofile(before)
    return count / _ROUNDS


def _peak(read: Read) -> int:
    """The least of several rounds: what the interpreter does beside is not the read's."""
    receive = _ready(read)
    peaks = []
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        with _untraced():
            for _ in range(_ROUNDS // 2):
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                receive(read.data)
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not tracing:
            tracemalloc.stop()
    return min(peaks)


def _kept(read: Read) -> float:
    receive = _ready(read)
    gc.collect()
    with _untraced():
        before = sys.getallocatedblocks()
        for _ in range(_ROUNDS):
            receive(read.data)
        return (sys.getallocatedblocks() - before) / _ROUNDS


def cost_of(read: Read) -> Cost:
    """Count one kind of read."""
    return Cost(_calls(read), _peak(read), _kept(read))


def main() -> None:
    """Print all counts beside their budgets."""
    kind = "compiled" if is_compiled() else "interpreted"
    lines = [f"scanner: {kind}", f"{'read':32}{'calls':>14}{'peak bytes':>18}{'kept blocks':>16}"]
    for name, read in READS.items():
        cost, budget = cost_of(read), BUDGETS[name]
        lines.append(
            f"{name:32}"
            f"{cost.calls:8.2f} / {budget.calls:<3.0f}"
            f"{cost.peak_bytes:11} / {budget.peak_bytes:<4}"
            f"{cost.kept_blocks:10.2f} / {budget.kept_blocks:<3.1f}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
