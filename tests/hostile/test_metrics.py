"""Label values that clients make up."""

import asyncio
import random
from pathlib import Path
from typing import Any

from sidecar.config.source import load_policy
from sidecar.model import CloseCode, Reason
from sidecar.observe.metrics import Metrics
from tests.support.clients import head, raw
from tests.support.forgery import LATER, signed
from tests.support.frames import close
from tests.support.sidecars import ENVIRON, Running, policy_of, sidecar
from tests.support.upstreams import recording


def series(metrics: Metrics) -> set[str]:
    """Every time series of the program's own: the name and the labels."""
    lines = metrics.render()[0].decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line.startswith("ws_sidecar_")}


def known(running: Running) -> set[str]:
    return series(running.sidecar.metrics)


async def test_made_up_paths_hosts_origins_and_key_ids_make_no_time_series(
    tmp_path: Path,
) -> None:
    rng = random.Random(1)
    route = {"match": {"path": "/ws/{room}"}}

    def requests() -> list[bytes]:
        made_up = f"x{rng.getrandbits(64):x}"
        forged = signed({"sub": made_up, "exp": LATER}, {"alg": made_up, "kid": made_up})
        unknown = signed({"sub": made_up, "iss": made_up, "exp": LATER}, key=made_up)
        return [
            head(f"/{made_up}"),
            head(f"/ws/{made_up}"),
            head(f"/ws/{made_up}", host=f"{made_up}.example.com"),
            head(f"/ws/{made_up}", f"Origin: https://{made_up}"),
            head(f"/ws/{made_up}", f"Authorization: Bearer {forged}"),
            head(f"/ws/{made_up}", f"Authorization: Bearer {unknown}"),
            head(f"/ws/{made_up}", f"Sec-WebSocket-Protocol: {made_up}", method=made_up.upper()),
            made_up.encode() + b"\r\n\r\n",
        ]

    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):

        async def send(request: bytes) -> None:
            async with raw(running.port) as client:
                await client.send(request)
                await client.response()

        async def send_all(count: int) -> None:
            for _ in range(count):
                async with asyncio.TaskGroup() as group:
                    for request in requests():
                        group.create_task(send(request))

        await send_all(2)
        before = known(running)
        await send_all(40)
        assert known(running) == before
        assert upstream.heads == []


async def test_made_up_close_codes_make_few_time_series(tmp_path: Path) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        text = signed({"sub": "alice", "exp": LATER})
        for code in (*range(3000, 3020), *range(4000, 4020)):
            count = len(upstream.heads)
            async with raw(running.port) as client:
                await client.send(head("/ws", f"Authorization: Bearer {text}"))
                await client.response()
                await client.send(close(code))
                await upstream.until(lambda seen, count=count: len(seen.heads) > count)  # type: ignore[misc]
                upstream.connections[-1][1].close()
                await client.rest()
        await running.until_idle()
        closes = {line for line in known(running) if line.startswith("ws_sidecar_closes_total")}
        assert 2 <= len(closes) <= 4


def test_thousands_of_made_up_values_are_one_other(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of("ws://127.0.0.1:9"))
    metrics = Metrics(load_policy([path], ENVIRON).policy, version="test")
    rng = random.Random(2)
    for _ in range(3_000):
        value: Any = f"{rng.getrandbits(64):x}"
        metrics.handshake(value, value, value, 0.0)
        metrics.opened(value)
        metrics.closed(value, rng.getrandbits(16), value, value, 0.0)
        metrics.violation(value, value)
        metrics.shadow_denial(value, value)
        metrics.token_expiry(value, 1.0)
        metrics.key_fetch(value, value)
        metrics.upstream_connect(value, 0.0, value)
        metrics.provider_ready(value, True)
    codes = len(CloseCode) + len(Reason) + 20
    assert len(series(metrics)) < 150 + codes
