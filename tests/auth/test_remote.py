"""Keys of an issuer on the network: single flight, cool-down, stale rules."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from joserfc.jwk import RSAKey
from structlog.testing import capture_logs

from sidecar.auth import remote as module
from sidecar.auth.fetch import FetchError
from sidecar.auth.remote import COOL_DOWN, RemoteKeys, pause
from sidecar.errors import KeysUnavailable

if TYPE_CHECKING:
    from tests.auth.conftest import Clock, MakeProvider, Mint, Sleeper

Eventually = Callable[[Callable[[], object]], Awaitable[None]]


class Source:
    """What the issuer answers: a document, or an exception; counted, and held while told so."""

    def __init__(self, document: bytes) -> None:
        self.answer: bytes | Exception = document
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> bytes:
        self.fetches += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Harness:
    """A running RemoteKeys with its surroundings."""

    def __init__(self, keys: RemoteKeys, source: Source) -> None:
        self.keys = keys
        self.source = source
        self.outcomes: list[tuple[str, str]] = []

    def start(self) -> None:
        self.keys.start()

    async def kids(self, kid: str | None = None) -> list[str | None]:
        return [key.kid for key in await self.keys.find(kid)]


@pytest.fixture
async def harness(
    mint: "Mint", provider: "MakeProvider", clock: "Clock", sleeper: "Sleeper"
) -> AsyncIterator[Harness]:
    source = Source(mint.jwks(mint.rsa))
    corp = provider(name="corp", algorithms=("RS256",))
    outcomes: list[tuple[str, str]] = []
    keys = RemoteKeys(
        corp,
        600,
        source,
        clock=clock,
        sleep=sleeper,
        on_fetch=lambda name, outcome: outcomes.append((name, outcome)),
    )
    harness = Harness(keys, source)
    harness.outcomes = outcomes
    yield harness
    await keys.close()


def other_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid})


async def test_keys_are_found_by_kid_or_all_together(harness: Harness) -> None:
    harness.start()
    assert await harness.kids("rsa") == ["rsa"]
    assert await harness.kids(None) == ["rsa"]
    assert harness.keys.problem is None
    assert harness.outcomes == [("corp", "ok")]


async def test_a_handshake_waits_for_the_first_fetch(harness: Harness) -> None:
    harness.source.gate.clear()
    harness.start()
    waiting = [asyncio.create_task(harness.kids("rsa")) for _ in range(100)]
    await asyncio.sleep(0)
    harness.source.gate.set()
    assert await asyncio.gather(*waiting) == [["rsa"]] * 100
    assert harness.source.fetches == 1


async def test_a_handshake_waits_for_so_long_only(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    harness.source.gate.clear()
    harness.start()
    await asyncio.sleep(0)
    with pytest.raises(KeysUnavailable, match="corp: not fetched yet"):
        await harness.kids("rsa")
    assert harness.source.fetches == 1


async def test_without_keys_and_a_fetch_under_way_nobody_waits(
    harness: Harness, sleeper: "Sleeper"
) -> None:
    harness.source.answer = FetchError("issuer answered 500")
    harness.start()
    await sleeper.asleep()
    with pytest.raises(KeysUnavailable, match="issuer answered 500"):
        await harness.kids("rsa")
    assert harness.keys.problem == "issuer answered 500"
    assert harness.source.fetches == 1


async def test_keys_are_fetched_again_at_every_refresh(
    harness: Harness, mint: "Mint", sleeper: "Sleeper"
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.answer = mint.jwks(other_key("new"))
    await sleeper.wake()
    assert await harness.kids(None) == ["new"]
    assert all(540 <= seconds <= 600 for seconds in sleeper.pauses)


async def test_after_failures_the_pause_doubles_and_good_keys_stay(
    harness: Harness, sleeper: "Sleeper"
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.answer = FetchError("issuer did not answer")
    for _ in range(8):
        await sleeper.wake()
    for seconds, expected in zip(sleeper.pauses[1:], [1, 2, 4, 8, 16, 32, 60, 60], strict=True):
        assert expected * 0.9 <= seconds <= expected
    assert await harness.kids("rsa") == ["rsa"]
    assert harness.keys.problem is None
    assert harness.outcomes[1:] == [("corp", "error")] * 8


def test_a_pause_is_never_longer_than_the_refresh() -> None:
    assert pause(10_000, 5) <= 5
    assert 4.5 <= pause(0, 5) <= 5


def test_pauses_differ_by_chance() -> None:
    assert len({pause(0, 600) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    "document", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}']
)
async def test_an_empty_or_bad_set_never_replaces_good_keys(
    harness: Harness, sleeper: "Sleeper", document: bytes
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.answer = document
    await sleeper.wake()
    assert await harness.kids(None) == ["rsa"]
    assert harness.outcomes[-1] == ("corp", "error")


async def test_a_symmetric_key_in_a_set_is_dropped(
    harness: Harness, mint: "Mint", sleeper: "Sleeper"
) -> None:
    good = mint.jwks(mint.rsa)
    harness.source.answer = good.replace(
        b'{"keys": [', b'{"keys": [{"kty": "oct", "kid": "evil", "k": "AAAAAAAA"}, '
    )
    harness.start()
    await sleeper.asleep()
    assert await harness.kids(None) == ["rsa"]


async def test_an_unexpected_error_does_not_end_the_fetching(
    harness: Harness, mint: "Mint", sleeper: "Sleeper"
) -> None:
    harness.source.answer = RuntimeError("canary")
    harness.start()
    await sleeper.asleep()
    assert harness.keys.problem == "RuntimeError"
    harness.source.answer = mint.jwks(mint.rsa)
    await sleeper.wake()
    assert await harness.kids("rsa") == ["rsa"]


# --- unknown kids


async def test_an_unknown_kid_is_fetched_once(
    harness: Harness, mint: "Mint", sleeper: "Sleeper"
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.answer = mint.jwks(mint.rsa, other_key("new"))
    assert await harness.kids("new") == ["new"]
    assert harness.source.fetches == 2


@pytest.mark.parametrize("kid", ["", "../../dev/null", "' OR 1", "file:///etc/passwd", "RSA"])
async def test_a_kid_is_a_look_up_and_nothing_else(
    harness: Harness, sleeper: "Sleeper", kid: str
) -> None:
    harness.start()
    await sleeper.asleep()
    assert await harness.kids(kid) == []


async def test_ten_thousand_random_kids_cause_one_extra_fetch(
    harness: Harness, sleeper: "Sleeper"
) -> None:
    harness.start()
    await sleeper.asleep()
    found = await asyncio.gather(*(harness.kids(f"kid-{n}") for n in range(5_000)))
    for n in range(5_000, 10_000):
        found.append(await harness.kids(f"kid-{n}"))
    assert found == [[]] * 10_000
    assert harness.source.fetches == 2


async def test_after_the_cool_down_an_unknown_kid_is_fetched_again(
    harness: Harness, mint: "Mint", sleeper: "Sleeper", clock: "Clock"
) -> None:
    harness.start()
    await sleeper.asleep()
    assert await harness.kids("new") == []
    harness.source.answer = mint.jwks(other_key("new"))
    clock.now += COOL_DOWN - 0.1
    assert await harness.kids("new") == []
    clock.now += 0.1
    assert await harness.kids("new") == ["new"]
    assert harness.source.fetches == 3


async def test_waiters_share_a_fetch_under_way(
    harness: Harness, mint: "Mint", sleeper: "Sleeper", eventually: Eventually
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.gate.clear()
    harness.source.answer = mint.jwks(other_key("new"))
    waiting = [asyncio.create_task(harness.kids("new")) for _ in range(100)]
    await eventually(lambda: harness.source.fetches == 2)
    waiting[0].cancel()
    harness.source.gate.set()
    results = await asyncio.gather(*waiting[1:])
    assert results == [["new"]] * 99
    assert harness.source.fetches == 2


async def test_a_regular_fetch_joins_an_extra_one_under_way(
    harness: Harness, sleeper: "Sleeper", eventually: Eventually
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.gate.clear()
    waiting = asyncio.create_task(harness.kids("new"))
    await eventually(lambda: harness.source.fetches == 2)
    waking = asyncio.create_task(sleeper.wake())
    await asyncio.sleep(0.01)
    harness.source.gate.set()
    await waking
    assert await waiting == []
    await eventually(lambda: len(sleeper.pauses) == 2)
    assert harness.source.fetches == 2


async def test_an_unknown_kid_is_unknown_while_the_issuer_is_down(
    harness: Harness, sleeper: "Sleeper"
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.answer = FetchError("down")
    assert await harness.kids("new") == []
    assert await harness.kids("rsa") == ["rsa"]


async def test_closing_ends_a_fetch_under_way(
    harness: Harness, sleeper: "Sleeper", eventually: Eventually
) -> None:
    harness.start()
    await sleeper.asleep()
    harness.source.gate.clear()
    waiting = asyncio.create_task(harness.kids("new"))
    await eventually(lambda: harness.source.fetches == 2)
    await harness.keys.close()
    assert await waiting == []


async def test_each_change_of_state_is_logged_once(
    harness: Harness, mint: "Mint", sleeper: "Sleeper"
) -> None:
    with capture_logs() as lines:
        harness.source.answer = FetchError("down")
        harness.start()
        await sleeper.asleep()
        await sleeper.wake()
        harness.source.answer = mint.jwks(mint.rsa)
        await sleeper.wake()
        await sleeper.wake()
        harness.source.answer = FetchError("down again")
        await sleeper.wake()
        await sleeper.wake()
    assert [(line["event"], line.get("error")) for line in lines] == [
        ("keys_fetch_failed", "down"),
        ("keys_fetched", None),
        ("keys_fetch_failed", "down again"),
    ]
    assert lines[2]["stale_keys"] == 1
