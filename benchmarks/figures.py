"""What is measured: the figures, their names and units, and which way is better."""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CHATS",
    "FIGURES",
    "HANDSHAKES",
    "HEADLINES",
    "PRICED",
    "SHAPES",
    "Figure",
    "Handshake",
    "Shape",
]


@dataclass(frozen=True)
class Shape:
    """A load of messages in a closed loop; `payload` is in bytes, or "mixed". They are binary, or
    the JSON texts of a `chat`.
    """

    name: str
    title: str
    connections: int
    payload: str
    in_flight: int
    chat: bool = False


SHAPES: Final = (
    Shape("64x128x1", "64 connections × 128 B × 1 in flight", 64, "128", 1),
    Shape("64x128x16", "64 connections × 128 B × 16 in flight", 64, "128", 16),
    Shape("8x64KiBx4", "8 connections × 64 KiB × 4 in flight", 8, "65536", 4),
    Shape("mixed", "16 connections × 16 B to 32 KiB × 4 in flight", 16, "mixed", 4),
)


CHATS: Final = (
    Shape("chat128x1", "64 connections × 128 B of JSON × 1 in flight", 64, "128", 1, chat=True),
    Shape("chat128x16", "64 connections × 128 B of JSON × 16 in flight", 64, "128", 16, chat=True),
    Shape("chat8KiBx4", "16 connections × 8 KiB of JSON × 4 in flight", 16, "8192", 4, chat=True),
)
"""For what looks into messages."""


@dataclass(frozen=True)
class Handshake:
    """Handshakes of a peer's variant; with `different` each brings a token of its own."""

    name: str
    title: str
    variant: str
    different: bool = False


def _with_tokens(algorithm: str) -> tuple[Handshake, Handshake]:
    name, title = f"handshake-{algorithm}", f"with {algorithm}"
    return (
        Handshake(name, f"{title}, each with a token of its own", algorithm, different=True),
        Handshake(f"{name}-same", f"{title}, all with the same token", algorithm),
    )


HANDSHAKES: Final = (
    Handshake("handshake-plain", "without a token", "plain"),
    *_with_tokens("HS256"),
    *_with_tokens("RS256"),
    *_with_tokens("ES256"),
)


@dataclass(frozen=True)
class Figure:
    """One number of a peer. `key` is `<task>.<what>`."""

    key: str
    title: str
    unit: str
    lower_is_better: bool = True


def _of_shape(shape: Shape) -> tuple[Figure, ...]:
    name, title = shape.name, shape.title
    return (
        Figure(f"{name}.cpu_us", f"CPU per message round trip, {title}", "µs"),
        Figure(f"{name}.per_second", f"Messages, {title}", "1/s", lower_is_better=False),
        Figure(f"{name}.p50_us", f"Latency p50, {title}", "µs"),
        Figure(f"{name}.p99_us", f"Latency p99, {title}", "µs"),
        Figure(f"{name}.busy", f"Share of its core, {title}", "%", lower_is_better=False),
    )


def _of_handshake(kind: Handshake) -> tuple[Figure, ...]:
    key, what = kind.name, kind.title
    return (
        Figure(f"{key}.per_cpu", f"Handshakes per CPU second {what}", "1/s", lower_is_better=False),
        Figure(f"{key}.per_second", f"Handshakes {what}", "1/s", lower_is_better=False),
        Figure(f"{key}.p50_us", f"Handshake p50 {what}", "µs"),
        Figure(f"{key}.p99_us", f"Handshake p99 {what}", "µs"),
    )


FIGURES: Final = (
    *(figure for shape in SHAPES for figure in _of_shape(shape)),
    Figure("rate.p50_us", "Latency at 10,000 messages/s, p50", "µs"),
    Figure("rate.p99_us", "Latency at 10,000 messages/s, p99", "µs"),
    Figure("rate.added_p50_us", "Latency added at 10,000 messages/s, p50", "µs"),
    Figure("rate.added_p99_us", "Latency added at 10,000 messages/s, p99", "µs"),
    Figure("rate.cpu_us", "CPU per message at 10,000 messages/s", "µs"),
    *(figure for kind in HANDSHAKES for figure in _of_handshake(kind)),
    Figure("memory.start_ms", "Start until the first handshake", "ms"),
    Figure("memory.rest_bytes", "Memory at rest (PSS)", "B"),
    Figure("memory.each_first", "Memory per idle connection, the first 1,000", "B"),
    Figure("memory.each_all", "Memory per idle connection, all 8,000", "B"),
    Figure("memory.slope", "Memory per idle connection, from 1,000 to 8,000", "B"),
    Figure("memory.growth", "The slope's second half to its first", "×"),
)

HEADLINES: Final = (
    *(f"{shape.name}.cpu_us" for shape in SHAPES),
    "rate.added_p99_us",
    "handshake-plain.per_cpu",
    "handshake-RS256.per_cpu",
    "memory.slope",
)
"""The figures of the plot."""

PRICED: Final = (
    *(
        Figure(f"{shape.name}.cpu_us", f"A message there and back, {shape.title}", "µs")
        for shape in (*SHAPES[:2], *CHATS)
    ),
    Figure("paced.cpu_us", "A message there and back, 2,000 a second over 64 connections", "µs"),
    Figure("handshake.cpu_us", "A handshake and its close", "µs"),
    Figure("idle.cpu_rest", "CPU of a second without connections", "µs"),
    Figure("idle.cpu_few", "CPU of a second with few idle connections", "µs"),
    Figure("idle.cpu_most", "CPU of a second with many idle connections", "µs"),
    Figure("idle.bytes", "Memory (PSS) of an idle connection, between few and many", "B"),
)
"""The figures of the price list, all of the proxy's process: CPU time but for the last."""
